"""The alarm in production: judged by labels of logged answers, and fitted again to them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapt.metrics import detection
from adapt.registry import detectors
from adapt.score.__main__ import main
from adapt.watching import recorder
from tests.support import logged, tracked, versions

COUNT = 120


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log whose risks say little, while visual mass says what is hallucinated; and its labels."""
    monkeypatch.setattr(recorder, "FLUSH_S", 0.05)
    rng, labels, said = np.random.default_rng(3), [], []
    for number, one in enumerate(logged.answers(COUNT)):
        mass = np.array(one.tokens["mass"])
        wrong = bool(rng.random() < 1 / (1 + np.exp(20 * (mass[2] - 0.5))))
        labels.append({"id": one.id, "start": 9, "hallucinated": wrong})
        said.append(one)
        assert number < COUNT
    logged.write(logged.CONFIG, tmp_path, iter(said))
    write(tmp_path, labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(root: Path, labels: list[dict[str, Any]]) -> None:
    (root / "labels.jsonl").write_text("".join(json.dumps(one) + "\n" for one in labels))


def read(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "labels.jsonl").read_text().splitlines()]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    given = ["risk", "--log", "log", "--labels", "labels.jsonl", "--json", *words]
    code = main(given)
    found = json.loads(capsys.readouterr().out)
    assert code == (2 if "error" in found else 0)
    return dict(found)


def test_words_are_judged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys)
    assert found["labels"] == COUNT and found["version"] == "1"
    assert found["hallucinated"] == sum(one["hallucinated"] for one in read(root))
    # By hand: the third token ends at 12, the first behind character 9.
    risks = [one.tokens["risk"][2] for one in logged.answers(COUNT)]
    labels = [one["hallucinated"] for one in read(root)]
    pairs = [
        (r > s) + 0.5 * (r == s)
        for r, w in zip(risks, labels, strict=True)
        if w
        for s, v in zip(risks, labels, strict=True)
        if not v
    ]
    assert found["auroc"][0] == pytest.approx(np.mean(pairs), abs=1e-3)
    assert sum(one["labels"] for one in found["calibration"]) == COUNT


def test_a_file_of_the_log_is_a_log(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (root / "log").rglob("*.parquet")
    assert main(["risk", "--log", str(path), "--labels", "labels.jsonl"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{COUNT} labels of version 1, ") and "AUROC" in out


def test_whole_answers_are_judged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, [{**one, "start": None} for one in read(root)])
    found = run(capsys)
    assert found["labels"] == COUNT and "auroc" in found
    assert "too few labelled words to fit to" in run(capsys, "--refit", "new.json")["error"]


def test_fitted_again_and_registered(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tracked.workspace(root, monkeypatch)
    (root / "params.yaml").write_text("tracking: {experiment: adapt, model: adapt}\n")
    versions.made(store, "a")
    found = run(capsys, "--refit", "new.json", "--register")
    assert found["registered"] == "adapt.detector version 1, for version 1"
    assert found["refit_auroc"][0] > found["auroc"][0] + 0.1
    assert found["refit_auroc_above_given"][1] > 0
    fitted = detection.read(root / "new.json")
    assert set(fitted) == {"attention", "attention_probability"}
    assert fitted["attention"].weights[0] < 0  # less mass, more risk
    number = detectors.number(store, "1")
    content = detectors.content(store, number)
    assert number == "1" and content == (root / "new.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hallucinated": "perhaps"}, "labels.jsonl row 1: 'hallucinated' is 'perhaps'"),
        ({"start": 900}, "labels.jsonl row 1: the answer has no token at character 900"),
        ({"start": -1}, "labels.jsonl row 1: 'start' is '-1', not a whole number"),
        ({"id": "answer-1"}, "labels.jsonl row 2: labels what labels.jsonl row 1 has labelled"),
        ({"id": None}, "labels.jsonl row 1: has no 'id'"),
    ],
)
def test_a_mistake_in_a_label_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    first, *rest = read(root)
    write(root, [first | change, *rest])
    error = run(capsys)["error"]
    assert error.startswith(says) and "\n" not in error


def test_other_mistakes_are_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--register")["error"].startswith("--register needs --refit FILE")
    assert run(capsys, "--version", "9")["error"].endswith("is of an answer of version '9'")
    write(root, [{"id": "unknown", "start": 1, "hallucinated": True}])
    assert run(capsys)["error"] == "labels.jsonl: no label is of an answer of log"
    assert main(["risk", "--log", "nowhere", "--labels", "labels.jsonl"]) == 2
    assert "nowhere: no answer is logged there" in capsys.readouterr().err
    assert main(["risk", "--log", "labels.jsonl", "--labels", "labels.jsonl"]) == 2
    assert "labels.jsonl: is no file of a log" in capsys.readouterr().err


def test_answers_of_several_versions(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = (one for one in logged.answers(200, version="2") if int(one.id[7:]) >= COUNT)
    logged.write(logged.CONFIG, root, late)
    more = [{"id": f"answer-{n}", "start": 9, "hallucinated": True} for n in range(COUNT, 140)]
    write(root, read(root) + more)
    assert "labels answers of versions '1', '2'; say --version" in run(capsys)["error"]
    found = run(capsys, "--version", "2")
    assert found["labels"] == 20 and found["problem"].startswith("too few to judge")
