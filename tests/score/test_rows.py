"""Rows of all four kinds of file, and every bad one named by file and row."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapt.params import InputError
from adapt.score.ids import Ids
from adapt.score.rows import by_id, by_known_id, read

ROWS = [{"id": 1, "text": "a dog, two cats"}, {"id": 2, "text": ""}]


def written(folder: Path, name: str) -> Path:
    """The same two rows as a file of the kind that the name says."""
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        path.write_text('id,text\n1,"a dog, two cats"\n2,\n')
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        path.write_text(json.dumps(ROWS, indent=1))
    return path


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.parquet"])
def test_every_kind_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    rows = read(written(tmp_path, name), {})
    assert [(row.id("id"), row.text("text")) for row in rows] == [
        ("1", "a dog, two cats"),
        ("2", ""),
    ]


def test_json_lines_may_be_called_json_and_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "pope.json").write_bytes(b'\xef\xbb\xbf{"id": 1}\n\n{"id": 2}\r\n')
    assert [row.where.rsplit(" ", 1)[1] for row in read(tmp_path / "pope.json", {})] == ["1", "3"]


def test_a_column_by_another_name(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv")
    assert read(path, {"text": "caption"})[0].text("caption") == "a dog, two cats"
    with pytest.raises(
        InputError,
        match=r"rows.csv row 1: has no 'caption'; its columns are 'id', 'text'; --rename",
    ):
        read(path, {})[0].text("caption")
    with pytest.raises(InputError, match="row 1: has both 'text' and 'id'"):
        read(path, {"text": "id"})


def test_ids_of_tables_and_of_json_are_the_same(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [7, None], "n": ["x", "y"]}), tmp_path / "gap.parquet")
    first, second = read(tmp_path / "gap.parquet", {})
    assert first.id("id") == "7"
    with pytest.raises(InputError, match="row 2: has no 'id', which is null"):
        second.id("id")


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (True, "True, not an id"),
        ("", "'', not an id"),
        (1.5, "1.5, not an id"),
        ([1], r"\[1\], not an id"),
    ],
)
def test_what_is_no_id(cell: Any, problem: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"id": cell}]))
    with pytest.raises(InputError, match=f"row 1: 'id' is {problem}"):
        read(tmp_path / "rows.json", {})[0].id("id")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("rows.json", b"", "rows.json: is empty"),
        ("rows.jsonl", b"\n \n", "rows.jsonl: is empty"),
        ("rows.csv", b"", "rows.csv: is empty"),
        ("rows.csv", b"id,text\n", "rows.csv: is empty"),
        ("rows.json", b"[]", "rows.json: is empty"),
        ("rows.json", b"[{}, 3]", "rows.json row 2: is 3, not an object"),
        ("rows.json", b'[{"id": 1},\n {"id": }]', "rows.json line 2: is no JSON"),
        ("rows.json", b"[" * 100_000, "rows.json: is n"),
        ("rows.jsonl", b'{"id": 1}\n{"id": ', "rows.jsonl row 2: is no JSON"),
        ("rows.jsonl", b'{"id": 1}\n{"id": "\xff"}', "rows.jsonl line 2: is not UTF-8 .byte 0xff"),
        ("rows.csv", b"id,text\n1,\xe9t\xe9\n", "rows.csv line 2: is not UTF-8 .byte 0xe9"),
        ("rows.csv", b"id,text\n1,a\n2,b,c\n", "rows.csv row 2: has 3 cells, and the header has 2"),
        ("rows.csv", b"id,text\n1,a\n2\n", "rows.csv row 2: has 1 cells, and the header has 2"),
        ("rows.csv", b"id,id\n1,2\n", "rows.csv: two columns have one name"),
        ("rows.csv", b'id,text\n1,"a\n', "rows.csv: is no CSV table"),
        ("rows.parquet", b"no parquet", "rows.parquet: is no parquet file"),
    ],
)
def test_bad_files_are_named(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem) as error:
        read(tmp_path / name, {})
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "none.parquet"):
        with pytest.raises(InputError, match=str(path)):
            read(path, {})


def test_a_text_that_is_none_and_a_very_long_one(tmp_path: Path) -> None:
    long = "a dog " * 200_000
    (tmp_path / "rows.csv").write_text(f"id,text\n1,{long}\n")
    assert read(tmp_path / "rows.csv", {})[0].text("text") == long
    (tmp_path / "rows.json").write_text(json.dumps([{"text": [long]}, {"text": None}]))
    rows = read(tmp_path / "rows.json", {})
    with pytest.raises(InputError, match=r"row 1: 'text' is .*, not a text") as error:
        rows[0].text("text")
    assert len(str(error.value)) < 200 + len(str(tmp_path))
    with pytest.raises(InputError, match="row 2: has no 'text', which is null"):
        rows[1].text("text")


def test_lists_of_texts_in_json_and_in_csv(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('objects\n"[""dog"", ""cat""]"\ndog\n')
    good, bad = read(tmp_path / "rows.csv", {})
    assert good.texts("objects") == ["dog", "cat"]
    with pytest.raises(InputError, match="row 2: 'objects': is no JSON"):
        bad.texts("objects")


def test_duplicates_and_unknown_ids_are_named_with_their_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": 1}\n{"id": 2}\n{"id": "1"}\n')
    rows = read(tmp_path / "rows.jsonl", {})
    with pytest.raises(
        InputError, match=r"rows.jsonl row 3: id '1' is there already \(.*rows.jsonl row 1\)"
    ):
        by_id(rows, "id")
    with pytest.raises(
        InputError, match=r"rows.jsonl row 2: id '2' is unknown; truth.json does not list it"
    ):
        by_known_id(rows[:2], "id", Ids(["1"]), Path("truth.json"))
