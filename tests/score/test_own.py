"""Answers to a split of ours: the figures of `adapt.evaluation.judge` to the last bit."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from adapt.data import scenes
from adapt.data.schema import Example, SceneObject, write_vocabulary
from adapt.data.tables import write_split
from adapt.evaluation.judge import judge
from adapt.metrics import bootstrap
from tests.support.scoring import run, written

WORDS = scenes.vocabulary()
TEXTS = ("a red car, a blue house and a car", "yes, there is a tree.", "it is red.", "a bus.")


def questions(unknown: Sequence[int] = ()) -> list[Example]:
    """Scenes' rows, several of an image; of some nobody knows what is there."""
    options: dict[str, Any] = {"size": 32, "caption_noise": 0.0, "seed": 7}
    drawn = [row for image in range(4) for row in scenes.examples("test", image, **options)]
    fields = [field.name for field in dataclasses.fields(Example)]
    rows = [Example(**{name: getattr(row, name) for name in fields}) for row in drawn]
    assert len({row.image_id for row in rows}) == 4
    gone: dict[str, Any] = {"objects": None, "absent": None}
    return [
        dataclasses.replace(row, **gone) if place in unknown else row
        for place, row in enumerate(rows)
    ]


def answered(rows: Sequence[Example]) -> dict[str, str]:
    return {row.id: TEXTS[place % len(TEXTS)] for place, row in enumerate(rows)}


def judged(rows: Sequence[Example], answers: dict[str, str], words: Any) -> dict[str, float]:
    """What the pipeline says, but for what it says of tokens."""
    table = [
        {
            "id": row.id,
            "image_id": row.image_id,
            "kind": row.kind,
            "response": answers[row.id],
            "reference": row.answer,
            "tokens": 1,
            "steered": False,
        }
        for row in rows
    ]
    columns = ["id", "position", "relative", "length", "end", "fired", "mass", "focus"]
    columns += ["amc", "responsiveness", "drift"]
    tokens = pd.DataFrame({name: pd.Series(dtype=float) for name in columns})
    metrics = judge(pd.DataFrame(table), tokens, rows, words, 2).metrics
    return {k: v for k, v in metrics.items() if k != "length" and not k.endswith("_late_early")}


def split(folder: Path, rows: Sequence[Example], words: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    write_split(folder / "test.parquet", rows)
    if words:
        write_vocabulary(folder / "vocabulary.json", WORDS)
    return folder


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("unknown", [(), range(4)])
def test_the_figures_are_the_pipelines(words: bool, unknown: Sequence[int], tmp_path: Path) -> None:
    rows = questions(unknown)
    answers = answered(rows)
    folder = split(tmp_path / "splits", rows, words)
    file = written(tmp_path / "answers.json", answers)
    result = run("own", "--responses", file, "--truth", folder)
    expected = judged(rows, answers, WORDS if words else None)
    assert {name: result["metrics"][name] for name in expected} == expected
    assert result["metrics"].keys() - expected.keys() == {"length"}
    lost = [row for row in rows if row.kind == "describe" and row.objects is None]
    assert result["counts"]["unknown"] == len(lost)
    note = "descriptions are of pictures whose objects nobody knows"
    assert [note in text for text in result["notes"]] == [True] * bool(lost)
    again = run("own", "--responses", file, "--truth", folder / "test.parquet")
    assert again == result


def test_intervals_are_over_images(tmp_path: Path) -> None:
    rows = questions()
    answers = answered(rows)
    folder = split(tmp_path / "splits", rows)
    file = written(tmp_path / "answers.json", answers)
    result = run("own", "--responses", file, "--truth", folder, "--against", file)
    asked = sorted((row for row in rows if row.kind == "exists"), key=lambda row: row.image_id)
    sums: dict[str, list[int]] = {}
    for row in asked:
        right = row.answer.startswith("yes")  # whatever has no "no" in it is a yes
        above, below = sums.get(row.image_id, [0, 0])
        sums[row.image_id] = [above + right, below + 1]
    drawn = bootstrap.interval(*zip(*sums.values(), strict=True), 2000, 0)
    assert result["intervals"]["pope_accuracy"] == [drawn.low, drawn.high]
    assert set(result["against"]["difference"].values()) == {0}
    assert result["against"]["difference_intervals"]["pope_accuracy"] == [0, 0]


def test_a_split_where_nothing_is_known(tmp_path: Path) -> None:
    rows = [row for row in questions(range(1000)) if row.kind == "describe"]
    folder = split(tmp_path / "splits", rows, words=False)
    answers = {row.id: "a red car" for row in rows[1:]}
    result = run("own", "--responses", written(tmp_path / "a.json", answers), "--truth", folder)
    assert result["metrics"] == {"length": 3}
    assert result["notes"][0] == f"1 of {len(rows)} questions have no answer and are left out"


def test_known_objects_of_one_image(tmp_path: Path) -> None:
    """By hand: a car and a house are there; car, house, car and bus are named."""
    things = [SceneObject(name=n, colour="red", box=(0, 0, 1, 1)) for n in ("car", "house", "tree")]
    row = next(row for row in questions() if row.kind == "describe")
    row = dataclasses.replace(row, objects=tuple(things), absent=("bus",))
    folder = split(tmp_path / "splits", [row])
    answers = {row.id: "a car, a house, a car and a bus"}
    result = run("own", "--responses", written(tmp_path / "a.json", answers), "--truth", folder)
    figures = {"chair_i": 25, "hal": 100, "cover": 200 / 3, "cog": 100, "length": 9}
    assert result["metrics"] == pytest.approx(figures)


def test_splits_that_are_none(tmp_path: Path) -> None:
    answers = written(tmp_path / "a.json", {"1": "a car"})
    for truth in (tmp_path, tmp_path / "none.parquet", answers):
        error = run("own", "--responses", answers, "--truth", truth, code=2)["error"]
        assert "parquet" in error
