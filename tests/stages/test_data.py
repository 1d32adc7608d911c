"""Stage `data`: drawn and brought data take one road; bad rows are set aside or stop it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from adapt.data.schema import SPLITS, Example
from adapt.data.tables import read_split, write_split
from adapt.params import InputError, as_params, load
from adapt.stages import data

SCENES = {
    "train_images": 6,
    "validation_images": 3,
    "test_images": 2,
    "image_size": 48,
    "caption_noise": 0.5,
}
DRAWN = {"source": "scenes", "max_rejected": 0.0}


def config(**changes: Any) -> data.Config:
    """The drawn world's settings; a change of one of its keys is made in its section."""
    seed = changes.pop("seed", 7)
    inner = {key: changes.pop(key) for key in SCENES if key in changes}
    return load(
        {"data": {**DRAWN, **changes}, "scenes": SCENES | inner, "seed": seed}, "data", data.Config
    )


def run(workspace: Path, name: str = "data", **changes: Any) -> dict[str, float]:
    out = workspace / "results" / name
    out.mkdir(parents=True)
    return data.run(config(**changes), workspace / "results", out, lambda step, metrics: None)


def brought(workspace: Path) -> Path:
    """A folder as a user would bring it, made from drawn splits."""
    run(workspace, "made")
    return (workspace / "results" / "made" / "splits").rename(workspace / "mine")


def change(file: Path, row: int, **values: Any) -> None:
    rows: list[Example] = read_split(file)
    rows[row] = dataclasses.replace(rows[row], **values)
    write_split(file, rows)


def test_drawn_splits_and_their_numbers(tmp_path: Path) -> None:
    metrics = run(tmp_path)
    rows = {
        split: read_split(tmp_path / "results" / "data" / "splits" / f"{split}.parquet")
        for split in SPLITS
    }
    assert {split: len(r) for split, r in rows.items()} == {
        "train": 24,
        "validation": 12,
        "test": 8,
    }
    counts = {e.image_id: len(e.objects) for r in rows.values() for e in r}
    assert metrics == {
        "train/images": 6.0,
        "validation/images": 3.0,
        "test/images": 2.0,
        "train/rows": 24.0,
        "validation/rows": 12.0,
        "test/rows": 8.0,
        "rejected": 0.0,
        "objects_per_image": sum(counts.values()) / 11,
    }
    assert not (tmp_path / "quarantine").exists()


def test_two_runs_write_the_same_bytes_and_a_longer_one_begins_alike(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(tmp_path, name)
    run(tmp_path, "longer", train_images=8)
    splits = {name: tmp_path / "results" / name / "splits" for name in ("one", "two", "longer")}
    for file in splits["one"].iterdir():
        assert file.read_bytes() == (splits["two"] / file.name).read_bytes()
    short, longer = (read_split(splits[name] / "train.parquet") for name in ("one", "longer"))
    assert longer[: len(short)] == short and len(longer) == 32


def test_a_brought_folder_gives_what_it_holds(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    run(tmp_path, source="mine")
    for file in folder.iterdir():
        assert (
            file.read_bytes() == (tmp_path / "results" / "data" / "splits" / file.name).read_bytes()
        )


def test_one_bad_row_stops_the_stage_and_is_named(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    good = read_split(folder / "train.parquet")[5]
    change(folder / "train.parquet", 5, images=(good.images[0][:-100],))
    change(folder / "test.parquet", 2, answer="")
    with pytest.raises(InputError) as caught:
        run(tmp_path, source="mine")
    message = str(caught.value)
    assert message.startswith(
        f"{folder / 'train.parquet'}: row 5 (id {good.id}): image: does not decode"
    )
    assert (
        f"and 1 more, of 44 rows; all in {tmp_path / 'quarantine' / 'data.jsonl'}" in message
        and "\n" not in message
    )
    lines = [
        json.loads(line)
        for line in (tmp_path / "quarantine" / "data.jsonl").read_text().splitlines()
    ]
    assert [(Path(line["file"]).name, line["row"]) for line in lines] == [
        ("train.parquet", 5),
        ("test.parquet", 2),
    ]
    assert lines[1]["reason"] == "answer: is empty" and lines[1]["id"] == lines[1]["values"]["id"]
    assert lines[0]["values"]["question"] == good.question and lines[0]["values"]["images"] == [
        {"path": None}
    ]


def test_few_bad_rows_are_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = brought(tmp_path)
    change(folder / "train.parquet", 0, question="")
    metrics = run(tmp_path, source="mine", max_rejected=0.03)  # 1 of 44 is 0.023
    assert metrics["rejected"] == 1 and metrics["train/rows"] == 23
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "row 0" in warnings[0] and "question: is empty" in warnings[0]
    run(tmp_path, "again")
    assert not (tmp_path / "quarantine" / "data.jsonl").exists(), (
        "it tells about the latest run only"
    )


def test_an_image_in_two_splits_stops_the_stage(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    change(folder / "test.parquet", 0, image_id="train-00002")
    with pytest.raises(
        InputError, match=r"test\.parquet: image_id train-00002 .* is also in train\.parquet"
    ):
        run(tmp_path, source="mine")


def test_an_id_in_two_splits_is_a_bad_row(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    twin = read_split(folder / "train.parquet")[0].id
    change(folder / "test.parquet", 0, id=twin)
    with pytest.raises(InputError, match=rf"test\.parquet: row 0 \(id {twin}\): id: occurs before"):
        run(tmp_path, source="mine")


@pytest.mark.parametrize("name", ["train.parquet", "validation.parquet", "test.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = brought(tmp_path)
    (folder / name).unlink()
    with pytest.raises(InputError) as caught:
        run(tmp_path, source="mine")
    assert str(caught.value) == f"{folder / name}: not found"


def test_a_missing_folder_and_an_empty_split_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.source: folder nowhere not found"):
        run(tmp_path, "first", source="nowhere")
    write_split(brought(tmp_path) / "test.parquet", [])
    with pytest.raises(InputError, match=r"test\.parquet: no valid rows"):
        run(tmp_path, source="mine")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scenes.train_images", 0),
        ("scenes.image_size", 8),
        ("scenes.caption_noise", 1.5),
        ("data.max_rejected", -0.1),
        ("seed", -1),
        ("data.source", ""),
    ],
)
def test_a_value_out_of_range_names_its_key(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^params.yaml: {key}: "):
        config(**{key.rpartition(".")[2]: value})


def test_settings_are_what_the_file_says() -> None:
    assert as_params("data", config()) == {"data": DRAWN, "scenes": SCENES, "seed": 7}
