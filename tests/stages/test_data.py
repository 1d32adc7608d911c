"""Stage `data`: drawn or brought, checked once, put into splits; bad rows are set aside."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adapt.data.importing.build import retry
from adapt.data.pictures import open_picture
from adapt.data.schema import SPLITS, Example, Preference
from adapt.data.tables import kind_of_file, read_preferences, read_split, write_split
from adapt.params import InputError, as_params, load
from adapt.stages import data

SCENES = {
    "difficulty": "default",
    "train_images": 6,
    "validation_images": 3,
    "test_images": 2,
    "image_size": 48,
    "caption_noise": 0.5,
}
SPLIT = {"validation": 0.1, "test": 0.1}
DRAWN = {
    **{"source": "scenes", "format": "auto", "pictures": "", "split": SPLIT},
    "max_rejected": 0.0,
}


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


def quarantined(workspace: Path) -> list[str]:
    return (workspace / "quarantine" / "data.jsonl").read_text().splitlines()


def change(file: Path, row: int, **values: Any) -> None:
    rows: list[Example] = [*read_split(file)]
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
    counts = {e.image_id: len(e.objects or ()) for r in rows.values() for e in r}
    assert metrics == {
        "train/images": 6.0,
        "validation/images": 3.0,
        "test/images": 2.0,
        "train/rows": 24.0,
        "validation/rows": 12.0,
        "test/rows": 8.0,
        "rejected": 0.0,
        "objects_per_image": sum(counts.values()) / 11,
        "pictures": 11.0,
        "near_duplicates": 0.0,
        "repeated_rows": 0.0,
        "rows_with_truth": 44.0,
        "rows_without_truth": 0.0,
    }
    assert json.loads((tmp_path / "results" / "data" / "source.json").read_text())["rows"] == 44
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
    assert (
        message.startswith(f"{folder / 'test.parquet'}: row 3 (id test-00000-")
        and "\n" not in message
    )
    assert ": answer: is empty" in message
    assert f"and 1 more, of 44 rows; all in {tmp_path / 'quarantine' / 'data.jsonl'}" in message
    lines = [
        json.loads(line)
        for line in (tmp_path / "quarantine" / "data.jsonl").read_text().splitlines()
    ]
    assert [(line["file"], line["row"]) for line in lines] == [
        ("test.parquet", 3),
        ("train.parquet", 6),
    ]
    assert lines[0]["reason"] == "answer: is empty" and lines[0]["id"] == lines[0]["values"]["id"]
    assert lines[1]["reason"].startswith("image: does not decode") and lines[1]["id"] == good.id
    assert lines[1]["values"]["question"] == good.question
    size = len(good.images[0]) - 100
    assert lines[1]["values"]["image"] == {"bytes": f"<{size} bytes>", "path": None}


def test_few_bad_rows_are_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = brought(tmp_path)
    change(folder / "train.parquet", 0, question="")
    metrics = run(tmp_path, source="mine", max_rejected=0.03)  # 1 of 44 is 0.023
    assert metrics["rejected"] == 1 and metrics["train/rows"] == 23
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "row 1 " in warnings[0] and "question: is empty" in warnings[0]
    run(tmp_path, "again")
    assert not (tmp_path / "quarantine" / "data.jsonl").exists(), (
        "it tells about the latest run only"
    )


def test_an_image_in_two_splits_stays_in_the_one_that_measures(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    first, second = (read_split(folder / f"{split}.parquet")[0] for split in ("test", "train"))
    change(folder / "train.parquet", 0, images=tuple(first.images))
    change(folder / "train.parquet", 5, image_id=first.image_id)
    with pytest.raises(InputError) as caught:
        run(tmp_path, source="mine")
    where = "is also in test (test.parquet: row 1)"
    message = f"{folder / 'train.parquet'}: row 1 (id {second.id}): image: {where}"
    assert str(caught.value).startswith(message)
    metrics = run(tmp_path, "without", source="mine", max_rejected=0.5)
    assert metrics["rejected"] == 2 and metrics["train/rows"] == 22 and metrics["test/rows"] == 8
    reasons = [json.loads(line)["reason"] for line in quarantined(tmp_path)]
    assert reasons == [f"image: {where}", f"image_id {first.image_id}: {where}"]


def test_pictures_of_the_training_split_under_other_names_are_noticed(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    rows = [
        dataclasses.replace(row, id=f"x{row.id}", image_id=f"x{row.image_id}")
        for row in read_split(folder / "train.parquet")
    ]
    write_split(folder / "test.parquet", rows)
    with pytest.raises(InputError, match=r"image: is also in test .* and 23 more, of 60 rows"):
        run(tmp_path, source="mine")


def test_pictures_that_only_look_alike_stay_where_they_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = brought(tmp_path)
    first = read_split(folder / "test.parquet")[0]
    large = open_picture(first.images[0]).resize((144, 144), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=95)
    change(folder / "train.parquet", 0, images=(buffer.getvalue(),))
    metrics = run(tmp_path, source="mine")
    assert metrics["rejected"] == 0 and metrics["near_duplicates"] == 1
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    where = "test.parquet: row 1 (test) and train.parquet: row 1 (train)"
    assert warnings == [f"adapt data: warning: pictures of two splits look alike: {where}"]


def test_an_id_in_two_splits_is_a_bad_row(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    twin = read_split(folder / "train.parquet")[0].id
    change(folder / "test.parquet", 0, id=twin)
    reason = r"id: is also that of test\.parquet: row 1, "
    with pytest.raises(InputError, match=rf"train\.parquet: row 1 \(id {twin}\): {reason}"):
        run(tmp_path, source="mine")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_that_is_not_given_is_cut_from_the_training_rows(
    tmp_path: Path, split: str
) -> None:
    folder = brought(tmp_path)
    (folder / f"{split}.parquet").unlink()
    metrics = run(tmp_path, source="mine", split={"validation": 2, "test": 2})
    assert metrics[f"{split}/images"] == 2 and metrics["train/images"] == 4
    about = json.loads((tmp_path / "results" / "data" / "source.json").read_text())
    assert about["splits"] == {one: "cut" if one == split else "given" for one in SPLITS}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: not found"):
        run(tmp_path, "first", source="nowhere")
    folder = brought(tmp_path)
    (folder / "train.parquet").unlink()
    with pytest.raises(InputError, match=r"mine: split train: no valid rows in it"):
        run(tmp_path, source="mine")
    (folder / "vocabulary.json").unlink()
    for split in ("test", "validation"):
        (folder / f"{split}.parquet").unlink()
    with pytest.raises(InputError, match=r"mine: no file in it ends in "):
        run(tmp_path, "none", source="mine")


def test_a_second_run_checks_only_what_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = brought(tmp_path)
    run(tmp_path, "first", source="mine")
    rows = [*read_split(folder / "train.parquet")]
    more = [dataclasses.replace(row, id=f"{row.id}-more") for row in rows[:3]]
    write_split(folder / "train.parquet", [*more, *rows])
    run(tmp_path, "second", source="mine")
    told = [line for line in capsys.readouterr().out.splitlines() if "known" in line]
    assert told == [
        "adapt data: 44 rows: 0 known, 44 checked",
        "adapt data: 47 rows: 44 known, 3 checked",
    ]
    splits = tmp_path / "results" / "second" / "splits"
    assert read_split(splits / "train.parquet") == [*more, *rows]


def test_rows_with_and_without_truth_and_pairs_beside_questions(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    rows = read_split(folder / "train.parquet")
    pairs = [
        Preference(
            **{name: getattr(row, name) for name in ("id", "image_id", "images", "history")},
            **{"kind": "other", "question": row.question, "chosen": row.answer},
            **{"rejected": "nothing.", "rejected_images": (), "objects": None, "absent": None},
            **{"chosen_score": 1.5, "rejected_score": None},
        )
        for row in rows
    ]
    write_split(folder / "train.parquet", pairs)
    metrics = run(tmp_path, source="mine")
    assert (metrics["rows_with_truth"], metrics["rows_without_truth"]) == (20.0, 24.0)
    splits = tmp_path / "results" / "data" / "splits"
    assert read_preferences(splits / "train.parquet") == pairs
    assert kind_of_file(splits / "test.parquet") == "evaluation"
    write_split(folder / "test-2.parquet", pairs[:1])
    write_split(folder / "train.parquet", pairs[4:])
    with pytest.raises(InputError, match="split test has preferences and evaluation rows"):
        run(tmp_path, "mixed", source="mine", max_rejected=1.0)


def test_rows_in_quarantine_are_tried_again(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    good = read_split(folder / "train.parquet")[5]
    change(folder / "train.parquet", 5, answer="")
    change(folder / "test.parquet", 2, answer="")
    with pytest.raises(InputError):
        run(tmp_path, source="mine")
    change(folder / "train.parquet", 5, answer=good.answer)
    write_split(folder / "test.parquet", read_split(folder / "test.parquet")[:2])
    lines = retry(config(source="mine"), tmp_path)
    assert [line.rpartition(": ")[2] for line in lines[:2]] == ["is gone", "passes now"]
    assert lines[2] == "1 of 2 rows pass now; stage data takes them in"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scenes.train_images", 0),
        ("scenes.image_size", 8),
        ("scenes.caption_noise", 1.5),
        ("scenes.difficulty", "impossible"),
        ("data.max_rejected", -0.1),
        ("seed", -1),
        ("data.source", ""),
        ("data.split.test", 1.0),
        ("data.split.test", -1),
    ],
)
def test_a_value_out_of_range_names_its_key(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^params.yaml: {key}: "):
        name = key.rpartition(".")[2]
        config(**{"split": SPLIT | {name: value}} if ".split." in key else {name: value})


def test_shares_leave_something_to_train_on() -> None:
    with pytest.raises(
        InputError, match=r"params.yaml: data.split.test: with validation takes 1.1"
    ):
        config(split={"validation": 0.9, "test": 0.2})


def test_settings_are_what_the_file_says() -> None:
    assert as_params("data", config()) == {"data": DRAWN, "scenes": SCENES, "seed": 7}
