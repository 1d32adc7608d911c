"""`python -m adapt.generation`: a model, a benchmark, a file that `adapt.score` reads."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adapt.generation import __main__ as command
from adapt.generation import batches
from adapt.models.load import save
from adapt.score import __main__ as scoring
from tests.support import benchmark_folders as made
from tests.support import oracle, tiny_world
from tests.support.benchmark_folders import MAKERS
from tests.support.workspace import ROOT, environment

SHORT = "max_new_tokens=6"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that says nothing but things that AMBER's made-up words have."""
    folder = tmp_path_factory.mktemp("model")
    tiny, tokenizer = tiny_world.model(), tiny_world.processor().tokenizer
    words = tokenizer.convert_tokens_to_ids(["car", "house", "tree"])
    tiny.generation_config.suppress_tokens = [i for i in range(len(tokenizer)) if i not in words]
    save(tiny, tiny_world.processor(), folder)
    return folder


@pytest.fixture
def run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in a folder of its own, on one processor."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text().replace("device: auto", "device: cpu")
    (tmp_path / "params.yaml").write_text(text.replace("noise_images: 32", "noise_images: 2"))

    def main(*words: str) -> int:
        return command.main([str(model), *words])

    return main


def test_ambers_answers_are_scored_as_they_are(run, tmp_path, capsys, monkeypatch):
    oracle.use_nltk_data(monkeypatch)
    made.amber(tmp_path / "AMBER")
    assert run("--benchmark", f"amber=AMBER,{SHORT}", "--out", "base.json", "--batch", "2") == 0
    rows = json.loads((tmp_path / "base.json").read_text())
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]
    assert {*rows[0]["response"].split()} <= {"car", "house", "tree"}
    assert not (tmp_path / "base.json.kept").exists()
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "adapt.score" in one]
    words = line.partition("python -m adapt.score ")[2].split()
    assert scoring.main([*words, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["responses"] == 5 and "hal" in scores["metrics"] and "f1" in scores["metrics"]


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "amber"])
def test_every_benchmark_is_answered(name, run, tmp_path):
    path = MAKERS[name](tmp_path / "data")
    assert run("--benchmark", f"{name}={path},{SHORT}", "--out", "out/answers.json") == 0
    text = (tmp_path / "out" / "answers.json").read_text()
    rows = json.loads(text) if text.startswith("[") else list(map(json.loads, text.splitlines()))
    columns = {"pope": "answer", "chair": "caption", "objhal": "answer"}
    columns |= {"mmhal": "model_answer", "hallusion": "model_prediction"}
    assert rows and all(row[columns[name]] for row in rows)


def test_steering_several_benchmarks_a_limit_and_a_label_of_params(run, tmp_path):
    pope, coco = made.pope(tmp_path / "pope"), made.coco(tmp_path / "coco")
    params = (tmp_path / "params.yaml").read_text()
    entry = f"benchmarks: [{{name: chair, label: mine, path: {coco}, max_new_tokens: 4}}]"
    (tmp_path / "params.yaml").write_text(params.replace("benchmarks: [] ", entry, 1))
    both = ["--benchmark", "mine", "--benchmark", f"random:pope={pope},{SHORT}"]
    assert run(*both, "--out", "{label}.jsonl", "--steer", "1.5", "--limit", "2") == 0
    for label in ("mine", "random"):
        assert len((tmp_path / f"{label}.jsonl").read_text().splitlines()) == 2


def test_a_stopped_run_goes_on_and_writes_the_same(run, tmp_path, capsys, monkeypatch):
    made.amber(tmp_path / "AMBER")
    words = ["--benchmark", f"amber=AMBER,{SHORT}", "--batch", "1", "--out"]
    assert run(*words, "whole.json") == 0
    whole, asked = batches.answer, list[str]()

    def answer(model, processor, images, questions, decoding, ids=None, *more, **most):
        if decoding.debias is not None:
            asked.extend(ids)
            if len(asked) == 4:
                raise KeyboardInterrupt
        return whole(model, processor, images, questions, decoding, ids, *more, **most)

    monkeypatch.setattr(batches, "answer", answer)
    assert run(*words, "cut.json") == 130
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "cut.json").exists()
    assert run(*words, "cut.json") == 0
    assert asked == ["1", "2", "3", "4", "4", "5"]
    assert (tmp_path / "cut.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--benchmark", "amber=AMBER"], "the following arguments are required: --out"),
        (["--out", "a.json"], "the following arguments are required: --benchmark"),
        (["--benchmark", "amber=none", "--out", "a"], "amber: none: has no annotations.json"),
        (["--benchmark", "ambr=AMBER", "--out", "a"], "did you mean amber?"),
        (["--benchmark", "amber=AMBER", "--limit", "0", "--out", "a"], "--limit: must be at least"),
        (["--benchmark", "amber=AMBER", "--batch", "0", "--out", "a"], "--batch: must be at least"),
        (["--benchmark", "amber=AMBER", "--out", "AMBER"], "is a folder; name a file"),
        (["--benchmark", "amber=AMBER", "--out", "a", "--steer"], "1.2 for alpha (--steer 1.2)"),
        (["--benchmark", "amber=AMBER", "--out", "a", "--steer", "much"], "such as 1.2, got much"),
        (["--benchmark", "amber=AMBER", "--out", "a", "--params", "none"], "none: not found"),
        (
            ["--benchmark", "amber=AMBER", "--benchmark", "b:amber=AMBER", "--out", "a"],
            "several benchmarks need {label} in it",
        ),
        (
            ["--benchmark", "amber=AMBER", "--benchmark", "amber=AMBER", "--out", "{label}"],
            "two are called amber; give one of them another label",
        ),
    ],
)
def test_a_mistake_is_one_line(words, says, run, tmp_path, capsys):
    made.amber(tmp_path / "AMBER")
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and error.startswith("adapt.generation: ")


def test_a_damaged_picture_names_its_question(run, tmp_path, capsys):
    made.amber(tmp_path / "AMBER")
    (tmp_path / "AMBER" / "image" / "AMBER_2.jpg").write_bytes(b"no picture")
    assert run("--benchmark", "amber=AMBER", "--out", "a.json") == 2
    assert "question 2: " in capsys.readouterr().err.splitlines()[-1]


def test_a_model_that_is_not_there(tmp_path, capsys, run):
    made.amber(tmp_path / "AMBER")
    words = ["--benchmark", "amber=AMBER", "--out", "a.json"]
    assert command.main([str(tmp_path / "nowhere"), *words]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_help_teaches_without_torch(tmp_path):
    """It is there at once, and where there is no params.yaml."""
    code = "import sys; from adapt.generation.__main__ import main\n"
    code += "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(ROOT), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for part in ("--benchmark amber=AMBER", "python -m adapt.score amber", "{label}", "Exit codes"):
        assert part in done.stdout
