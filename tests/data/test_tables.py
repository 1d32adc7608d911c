"""Split files: what is written is read, a little at a time, and by Hugging Face `datasets` too."""

import dataclasses
import io
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adapt.data import lazy
from adapt.data.schema import Example, Preference, SceneObject, Turn, open_images
from adapt.data.tables import Writer, kind_of_file, read_preferences, read_split, write_split
from adapt.params import InputError

HOUSE = SceneObject(name="house", colour="red", box=(0.1, 0.2, 0.5, 1.0))


def png(seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def example(row_id: str = "a-0", **changes: Any) -> Example:
    fields: dict[str, Any] = {
        **{"id": row_id, "image_id": "a", "images": (png(),), "kind": "describe", "history": ()},
        **{"question": "describe the picture.", "answer": "a red house."},
        **{"objects": (HOUSE,), "absent": ("tree",)},
    }
    return Example(**fields | changes)


def preference(row_id: str = "a-0", **changes: Any) -> Preference:
    fields: dict[str, Any] = {
        **{"id": row_id, "image_id": "a", "images": (png(),), "kind": "other", "history": ()},
        **{"question": "what is it?", "chosen": "a house.", "rejected": "a boat."},
        **{"rejected_images": (), "chosen_score": None, "rejected_score": None},
        **{"objects": None, "absent": None},
    }
    return Preference(**fields | changes)


def rows_of_every_state() -> list[Example]:
    unplaced = SceneObject(name="tree", colour="", box=None)
    turn = Turn(question="is it day?", answer="yes.")
    return [
        example("known"),
        example("none there", objects=(), absent=()),
        example("unknown", objects=None, absent=None),
        example("unplaced", objects=(unplaced,), history=(turn, turn)),
    ]


def test_rows_are_read_as_they_were_written_and_the_same_rows_give_the_same_bytes(
    tmp_path: Path,
) -> None:
    rows = rows_of_every_state()
    for name in ("one", "two"):
        write_split(tmp_path / f"{name}.parquet", rows)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    again = read_split(tmp_path / "one.parquet")
    assert again == rows and [*again] == rows and again[-1] == rows[-1]
    assert again[1:3] == rows[1:3] and again[::-2] == rows[::-2]
    assert again != rows[:-1] and again != [*rows[:-1], rows[0]]
    assert kind_of_file(tmp_path / "one.parquet") == "evaluation"
    assert open_images(again[0])[0].size == (30, 20)


def test_preferences_are_read_as_such_and_as_the_questions_that_they_ask(tmp_path: Path) -> None:
    rows = [
        preference("plain"),
        preference("scored", chosen_score=0.5, rejected_score=-1.0, objects=(HOUSE,)),
        preference("other picture", rejected_images=(png(1),)),
    ]
    path = tmp_path / "train.parquet"
    write_split(path, rows)
    assert kind_of_file(path) == "preference" and read_preferences(path) == rows
    assert read_split(path) == [row.asked() for row in rows]
    write_split(path, [example()])
    with pytest.raises(InputError, match=r"train\.parquet: has no column chosen"):
        read_preferences(path)


def test_a_file_that_is_read_lazily_can_be_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_split(path, rows_of_every_state())
    first = read_split(path)
    write_split(path, [dataclasses.replace(row, answer="no.") for row in first])
    assert [row.answer for row in read_split(path)] == ["no."] * 4
    again = read_split(path)
    assert len(again) == 4, "its texts are read"
    write_split(path, many(2))
    with pytest.raises(InputError, match=r"train\.parquet: was replaced while its rows are in use"):
        tuple(again[0].images)


def test_rows_of_one_image_store_it_once(tmp_path: Path) -> None:
    for count in (1, 100):
        write_split(tmp_path / f"{count}.parquet", [example(f"a-{i}") for i in range(count)])
    large, small = ((tmp_path / f"{count}.parquet").stat().st_size for count in (100, 1))
    assert large < small + 3000


def many(count: int) -> list[Example]:
    return [example(f"{i}", images=(png(i),)) for i in range(count)]


def test_row_groups_hold_so_many_bytes_of_pictures_or_rows(tmp_path: Path) -> None:
    path, rows = tmp_path / "train.parquet", many(12)
    with Writer(path, "evaluation", several=False, group_bytes=3 * len(png()) + 500) as writer:
        for row in rows:
            writer.write(row)
    footer = pq.read_metadata(path)
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [4, 4, 4]
    assert read_split(path) == rows
    write_split(path, [example(f"{i}") for i in range(1500)])
    footer = pq.read_metadata(path)
    assert [footer.row_group(i).num_rows for i in range(2)] == [1000, 500]


def test_texts_cost_no_picture_and_a_picture_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reads = tmp_path / "train.parquet", []
    with Writer(path, "evaluation", several=False, group_bytes=1) as writer:
        for row in many(2 * lazy.GROUPS_KEPT):
            writer.write(row)
    read = lazy.StoredFile.group

    def counted(file: lazy.StoredFile, column: str, group: int) -> pa.Array:
        reads.append(group)
        return read(file, column, group)

    monkeypatch.setattr(lazy.StoredFile, "group", counted)
    rows = read_split(path)
    assert [len(row.images) for row in rows] == [1] * len(rows) and not reads
    assert rows[5].images[0] == png(5) and rows[5].images == (png(5),)
    assert reads == [5], "asked twice, read once"
    assert [row.images[0] for row in rows] == [png(i) for i in range(len(rows))]
    assert sorted(reads) == [*range(len(rows))], "those that follow each other are read once"


def test_rows_go_to_other_processes(tmp_path: Path) -> None:
    path, rows = tmp_path / "train.parquet", many(3)
    write_split(path, rows)
    read = read_split(path)
    assert pickle.loads(pickle.dumps(read)) == rows
    assert len(pickle.dumps(read[1])) < len(png()), "its picture stays in the file"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_picture, [read[2], read[0]]) == [png(2), png(0)]


def _picture(row: Example) -> bytes:
    return row.images[0]


def test_rows_of_several_pictures_have_a_list_of_them(tmp_path: Path) -> None:
    path = tmp_path / "two.parquet"
    rows = [example(images=(png(), png(1))), example("a-1"), example("a-2", images=())]
    write_split(path, rows)
    assert "images" in pq.read_schema(path).names
    assert read_split(path) == rows and [len(row.images) for row in read_split(path)] == [2, 1, 0]


def test_hugging_face_datasets_reads_and_writes_the_format(tmp_path: Path) -> None:
    from datasets import Dataset, List
    from datasets import Image as ImageFeature

    path, cache = tmp_path / "train.parquet", str(tmp_path / "cache")
    write_split(path, [example()])
    dataset = Dataset.from_parquet(str(path), cache_dir=cache)
    assert dataset.features["image"] == ImageFeature()
    assert isinstance(dataset.features["objects"], List)
    assert np.array_equal(np.asarray(dataset[0]["image"]), np.asarray(open_images(example())[0]))
    box = [0.1, 0.2, 0.5, 1.0]
    assert dataset[0]["objects"] == [{"name": "house", "colour": "red", "box": box}]
    dataset.to_parquet(str(tmp_path / "again.parquet"))
    assert read_split(tmp_path / "again.parquet") == [example()]


def test_columns_of_a_wrong_type_or_missing_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_split(path, [example()])
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["answer", "kind"]), path)
    with pytest.raises(InputError, match=r"train\.parquet: missing column kind, answer$"):
        len(read_split(path))
    pq.write_table(table.set_column(0, "id", pa.array([[1]])), path)
    with pytest.raises(InputError, match=r"train\.parquet: column id is list<.*>, expected string"):
        len(read_split(path))


def test_other_types_of_the_same_values_are_taken_and_unknown_may_be_left_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "train.parquet"
    write_split(path, [example()])
    table = pq.read_table(path)
    large = table.set_column(0, "id", table["id"].cast(pa.large_string()))
    large = large.append_column("extra", pa.array([1]))
    pq.write_table(large.drop_columns(["objects", "absent", "history"]), path)
    assert read_split(path) == [example(objects=None, absent=None)]


def test_what_is_no_parquet_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    with pytest.raises(InputError, match=r"train\.parquet: not found$"):
        read_split(path)
    path.write_text("id,answer\n")
    with pytest.raises(InputError, match=r"not a parquet file, or damaged$"):
        len(read_split(path))
    write_split(path, [example()])
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"not a parquet file, or damaged$"):
        len(read_split(path))


def test_a_file_without_rows_has_none(tmp_path: Path) -> None:
    write_split(tmp_path / "none.parquet", [])
    rows = read_split(tmp_path / "none.parquet")
    assert len(rows) == 0 and [*rows] == [] == rows
