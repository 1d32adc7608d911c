"""Data as others publish it, from end to end: RLHF-V's rows without any objects, POPE and AMBER.

The whole flow at its smallest on what `make example` draws, with the rules of the gate on the
benchmarks; AMBER by its own annotation files where they are on this machine.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from flows import example
from tests.support import limits, tiny_world, workspace
from tests.support.oracle import FOLDER

pytestmark = pytest.mark.timeout(limits.WHOLE_TEST_S)
AMBER = FOLDER.parent / "amber"
WORDS = FOLDER.parent / "nltk_data"
WORLD = tiny_world.scenes(train=40, test=6)
POPE = {"name": "pope", "path": "drawn/pope/questions.json"}


def drawn(root: Path, benchmark: dict[str, Any], rules: dict[str, Any]) -> Path:
    """A workspace with what is drawn for it, one benchmark and the rules of its gate."""
    answer = {**example.SETTINGS["answer"], "questions": 6, "benchmarks": [benchmark]}
    settings = workspace.SMOKE | {"data": example.SETTINGS["data"], "answer": answer}
    workspace.copy(root, settings)
    set_gate(root, rules)
    (root / "drawn").mkdir()
    example.draw(root / "drawn", WORLD)
    return root


def set_gate(root: Path, rules: dict[str, Any]) -> None:
    content = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(content | {"gate": rules}, sort_keys=False))


def retrained(root: Path, **env: str) -> str:
    return workspace.command(root, "flows.retrain", env=env)


@pytest.fixture(scope="module")
def pope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace that has retrained on RLHF-V's rows, its gate on POPE."""
    rules = {"pope.f1": {"max_loss": 100.0}, "pope.accuracy": {"max_loss": 100.0}}
    root = drawn(tmp_path_factory.mktemp("own") / "ws", POPE, rules)
    (root / "said.txt").write_text(retrained(root))
    workspace.all_end(root)
    yield root
    workspace.all_end(root)


def metrics(root: Path, stage: str) -> dict[str, float]:
    return json.loads((root / "results" / stage / "metrics.json").read_text())


def test_rows_without_objects_are_pairs_and_nothing_is_said_of_hallucination(pope: Path) -> None:
    about = json.loads((pope / "results/data/source.json").read_text())
    assert (about["format"], about["rejected"]) == ("rlhf-v", 0) and "text" in about["why"]
    assert metrics(pope, "data")["rows_with_truth"] == 0
    judged = metrics(pope, "evaluate")
    unknowable = ("/hal", "/cover", "/chair_i", "/cog")
    assert not [key for key in judged if key.endswith(unknowable) and "pope" not in key]
    assert {"tuned/pope.f1", "base_steered/pope.accuracy"} <= judged.keys()


def test_the_gate_answers_by_the_benchmark(pope: Path) -> None:
    said = (pope / "said.txt").read_text()
    assert "promoted to champion" in said
    assert "pope.f1" in said.lower() or "pope f1" in said.lower()
    answers = pd.read_parquet(pope / "results/answer/benchmarks.parquet")
    assert answers.groupby("arm").size().to_dict() == dict.fromkeys(
        ("base", "base_steered", "tuned", "tuned_steered"), 12
    )


def test_nothing_to_do_is_found_and_a_stricter_rule_refuses(pope: Path) -> None:
    assert "Nothing has changed" in retrained(pope)
    set_gate(pope, {"pope.f1": {"min": 100.1}})
    said = retrained(pope)
    assert "not promoted" in said or "champion already" in said


def test_ambers_own_annotations_with_a_few_pictures(tmp_path: Path) -> None:
    for folder in (AMBER, WORDS):
        if not folder.is_dir():
            pytest.skip(f"AMBER's annotations or NLTK's words ({folder}) are not on this machine")
    benchmark = {"name": "amber", "path": str(AMBER), "images": "amber", "partial": True}
    rules = {"amber.hal": {"drop": 0.0, "confidence": 0.95}, "amber.cover": {"max_loss": 2.0}}
    root = drawn(tmp_path / "ws", benchmark | {"part": "generative"}, rules)
    (root / "amber").mkdir()
    pictures = sorted((root / "drawn/pope/images").iterdir())
    for number, picture in enumerate(pictures[:4], 1):
        (root / "amber" / f"AMBER_{number}.jpg").write_bytes(picture.read_bytes())
    said = retrained(root, NLTK_DATA=str(WORDS))
    assert "not promoted" in said, "an untrained model does not hallucinate measurably less"
    assert "amber" in said.lower() and "hal" in said.lower()
    answers = pd.read_parquet(root / "results/answer/benchmarks.parquet")
    assert set(answers.id) == {"1", "2", "3", "4"}
    assert "tuned/amber.hal" in metrics(root, "evaluate")
