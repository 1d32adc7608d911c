"""`python -m adapt.data convert`, `export` and `retry`: the same rows on either side."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapt.attention.grids import Kind
from adapt.attention.support import SIDE
from adapt.data.__main__ import main
from adapt.data.exchange import preferences
from adapt.data.schema import SPLITS, Preference, Turn
from adapt.data.settings import Config
from adapt.data.tables import read_preferences, read_split, write_split
from adapt.pairs.table import Origin, Pair, PairView, write_pairs
from adapt.params import load
from adapt.stages import data
from tests.support import published
from tests.support.closure import ROOT
from tests.support.published import PAIRS, imported


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's params.yaml, in which the command runs."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAPT_STATE", raising=False)
    return tmp_path


def write_params(home: Path, params: dict[str, Any]) -> None:
    (home / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def stage(home: Path, out: str, **changes: Any) -> Path:
    """Stage data on a source; the folder of its splits."""
    params = yaml.safe_load((home / "params.yaml").read_text(encoding="utf-8"))
    params["data"] |= changes
    (home / out / "results").mkdir(parents=True)
    config = load(params, "data", Config)
    (home / out / "made").mkdir()
    data.run(config, home / out / "results", home / out / "made", lambda step, metrics: None)
    return home / out / "made" / "splits"


def test_convert_writes_what_stage_data_writes_and_stage_data_reads_it_back(home, capsys):
    published.rlaif_v(home / "mine")
    assert main(["convert", "mine", "ours"]) == 0
    assert "1 rows in test.parquet; 0 rejected" in capsys.readouterr().out
    names = {path.name for path in (home / "ours").iterdir()}
    assert names == {f"{split}.parquet" for split in SPLITS}
    first = stage(home, "first", source=str(home / "mine"))
    again = stage(home, "again", source=str(home / "ours"))
    for split in SPLITS:
        bytes_of = [(folder / f"{split}.parquet").read_bytes() for folder in (first, home / "ours")]
        assert bytes_of[0] == bytes_of[1]
        rows = read_preferences(home / "ours" / f"{split}.parquet")
        assert read_preferences(again / f"{split}.parquet") == rows
    assert {path.name for path in home.iterdir()} >= {"mine", "ours"}
    assert not [*home.glob("*rejected*"), *home.glob(".ours*"), *home.glob("quarantine")]
    assert main(["convert", "mine", "ours"]) == 2, "it is there already"


def test_convert_keeps_a_vocabulary_and_evaluation_rows(home):
    scenes = {"train_images": 3, "validation_images": 1, "test_images": 1, "image_size": 24}
    params = yaml.safe_load((home / "params.yaml").read_text(encoding="utf-8"))
    params["scenes"] |= scenes
    write_params(home, params)
    drawn = stage(home, "drawn")
    assert main(["convert", str(drawn), "ours"]) == 0
    for split in SPLITS:
        rows = read_split(drawn / f"{split}.parquet")
        assert read_split(home / "ours" / f"{split}.parquet") == rows
    assert (home / "ours" / "vocabulary.json").read_text() == (
        drawn / "vocabulary.json"
    ).read_text()


def test_convert_with_rejected_rows_says_where_they_are(home, capsys):
    published.rlaif_v(home / "mine")
    row = {"question": "?", "chosen": " ", "rejected": "b", "image": "x.png", "idx": "bad"}
    published.as_lines(home / "mine" / "more.jsonl", [{**row, "ds_name": "a"}])
    assert main(["convert", "mine", "ours"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    place = home / "ours-rejected.jsonl"
    assert f"all in {place}" in told and not (home / "ours").exists()
    assert json.loads(place.read_text())["reason"] == "chosen: is empty"
    assert not (home / "quarantine").exists(), "the pipeline's own is left alone"


def test_an_id_that_would_colour_the_terminal_does_not(home, capsys):
    params = yaml.safe_load((home / "params.yaml").read_text(encoding="utf-8"))
    params["data"]["max_rejected"] = 0.5
    write_params(home, params)
    published.rlaif_v(home / "mine")
    row = {"question": "?", "chosen": "a", "rejected": "b", "image": "x.png", "idx": "\x1b[31mred"}
    published.as_lines(home / "mine" / "more.jsonl", [{**row, "ds_name": "a"}])
    assert main(["convert", "mine", "ours"]) == 0
    told = capsys.readouterr()
    assert "\\x1b[31mred" in told.err and "\x1b" not in told.out + told.err


@pytest.mark.parametrize("name", ["trl", "llama-factory", "ms-swift", "rlhf-v"])
def test_a_folder_of_splits_is_exported_and_read_back_equal(home, capsys, name):
    published.rlaif_v(home / "mine")
    main(["convert", "mine", "ours"])
    assert main(["export", "ours", "--format", name, "theirs"]) == 0
    assert capsys.readouterr().out.count(": 1 pairs") == 3
    for split in SPLITS:
        rows = list(read_preferences(home / "ours" / f"{split}.parquet"))
        place = home / "theirs" / (f"{split}.parquet" if name in ("trl", "rlhf-v") else split)
        found, again, refused = imported(place)
        assert (found.format, again, refused) == (name, rows, [])
    assert main(["check", "theirs", "--json"]) == 0, "the splits are still given"
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert [splits[split]["how"] for split in SPLITS] == ["given"] * 3


def pairs() -> list[Pair]:
    """Pairs of a run, with anchors of no meaning."""
    shared = {"anchor": (0.25,) * 4, "support": (bytes(SIDE**2),), "kind": "other"}
    kind: Kind = "whole"
    views = (PairView(image=0, kind=kind, rows=2, columns=2),)
    turns = (Turn(question="Hello?", answer="Hello."),)
    return [
        Pair(
            id=f"p{number}",
            images=pair.images,
            question=pair.question,
            chosen=pair.chosen,
            rejected=pair.rejected,
            chosen_score=None if number else 0.5,
            rejected_score=None if number else 0.25,
            history=turns if number == 1 else (),
            views=views,
            **shared,
        )
        for number, pair in enumerate(PAIRS)
    ]


def test_pairs_of_a_run_are_exported_and_read_back_equal(home):
    made = pairs()
    write_pairs(home / "pairs.parquet", made, Origin(prompt="", model_type="m"))
    assert main(["export", "pairs.parquet", "--format", "trl", "theirs.parquet"]) == 0
    _, again, refused = imported(home / "theirs.parquet", "trl")
    names = ("id", "kind", "images", "history", "question", "chosen", "rejected", "rejected_images")
    names += ("chosen_score", "rejected_score")
    for row, pair in zip(again, made, strict=True):
        assert isinstance(row, Preference)
        assert all(getattr(row, name) == getattr(pair, name) for name in names)
        assert row.objects is None and row.absent is None
    assert not refused and again == list(preferences(home / "pairs.parquet"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "none.parquet", "out", "--format", "trl"], "none.parquet: not found"),
        (["export", "empty", "out", "--format", "trl"], "empty: no preferences in train.parquet"),
        (["export", "train.parquet", "out", "--format", "tlr"], "invalid choice: 'tlr'"),
        (["export", "train.parquet", "empty", "--format", "trl"], "empty: is there already"),
        (["export", "train.parquet", "a.parquet", "--format", "ms-swift"], "to a folder"),
        (["export", ".", "a.parquet", "--format", "trl"], "has several splits; name a folder"),
        (["export", "asked.parquet", "out", "--format", "trl"], "evaluation rows, not preferences"),
        (["export", "text.parquet", "out", "--format", "trl"], "not a parquet file, or damaged"),
        (["convert", "nowhere", "out"], "nowhere: not found"),
        (["convert", "mine", "a/b/out"], "its folder is not there"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(home, capsys, arguments, says):
    published.rlaif_v(home / "mine")
    rows = [row for row in imported(home / "mine")[1] if isinstance(row, Preference)]
    write_split(home / "train.parquet", rows)
    write_split(home / "asked.parquet", [row.asked() for row in rows])
    (home / "text.parquet").write_text("no")
    (home / "empty").mkdir()
    before = {path.name for path in home.iterdir()}
    assert main(arguments) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert {path.name for path in home.iterdir()} <= before | {".state"}


def test_a_pair_without_a_text_or_picture_is_named(home, capsys):
    made = [dataclasses.replace(pairs()[0], question=""), pairs()[1]]
    write_pairs(home / "pairs.parquet", made, Origin(prompt="", model_type="m"))
    assert main(["export", "pairs.parquet", "--format", "trl", "out"]) == 2
    assert "pairs.parquet: row 1: no question" in capsys.readouterr().err
    assert not (home / "out").exists()


def test_retry_says_what_became_of_each_row(home, capsys):
    assert main(["retry"]) == 0 and "no rows are in quarantine" in capsys.readouterr().out
    published.as_lines(
        home / "mine" / "rows.jsonl",
        [
            {"question": "?", "chosen": f"a {n}", "rejected": "b", "image": f"{n}.png", "idx": n}
            | {"ds_name": "a"}
            for n in range(6)
        ],
    )
    for number in range(4):
        (home / "mine" / f"{number}.png").write_bytes(published.picture(number))
    params = yaml.safe_load((home / "params.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"source": "mine", "max_rejected": 0.5}
    write_params(home, params)
    (home / "out").mkdir()
    data.run(load(params, "data", Config), home / "results", home / "out", lambda s, m: None)
    (home / "mine" / "5.png").write_bytes(published.picture(5))
    capsys.readouterr()
    assert main(["retry"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rows.jsonl: row 5 (id 4): image: ")
    assert lines[1] == "rows.jsonl: row 6 (id 5): passes now"
    assert lines[2].startswith("1 of 2 rows pass now")
