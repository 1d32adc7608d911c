"""Files that are broken, enormous or malicious: one short line, and no memory for them."""

import io
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapt.score import content, delimited, rows
from tests.support.scoring import run, written

TRUTH = [{"question_id": i, "image": "a", "label": "yes"} for i in (1, 2)]
WIDE = [f"c{i}" for i in range(100_000)]


def answered(folder: Path, name: str, content: str | bytes, code: int = 2) -> Any:
    """POPE over the file: its error, which is one short line, or its counts."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    truth = written(folder / "truth.json", TRUTH, lines=True)
    result = run("pope", "--responses", path, "--truth", truth, code=code)
    if code == 0:
        return result["counts"]["TP"]
    assert len(result["error"]) < 320 and "\n" not in result["error"]
    return result["error"].replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (str(10**400), "question_id '10000000"),
        ("1" * 5000, "row 1: holds a number of more than 4300 digits"),
        ("1e308", "row 1: 'question_id' is 1e+308, not an id"),
        ("1e400", "row 1: 'question_id' is inf, not an id"),
        ("Infinity", "row 1: 'question_id' is inf, not an id"),
        ("-Infinity", "row 1: 'question_id' is -inf, not an id"),
        ("NaN", "row 1: has no 'question_id', which is null"),
        ("9007199254740994.0", "row 1: 'question_id' is 9007199254740994.0, not an id"),
        ("[1]", "row 1: 'question_id' is [1], not an id"),
        ('"\\ud800"', "question_id '\\ud800' is unknown"),
        ('"1\\n\\u001b[31m"', "question_id '1\\n\\x1b[31m' is unknown"),
        (f'"{"x" * 3_000_000}"', "row 1: question_id 'xxxxxxxxxxxxx"),
        ("[" * 990 + "]" * 990, "row 1: "),
    ],
)
def test_what_is_no_id(value: str, problem: str, tmp_path: Path) -> None:
    row = f'{{"question_id": {value}, "answer": "Yes"}}'
    assert problem in answered(tmp_path, "a.jsonl", row)


@pytest.mark.parametrize("value", [str(10**400), "1e308", "Infinity", "NaN", '"\\ud800"', "[[]]"])
def test_a_column_that_nobody_asks_for(value: str, tmp_path: Path) -> None:
    row = f'{{"question_id": 1, "answer": "Yes", "score": {value}}}'
    assert answered(tmp_path, "a.jsonl", row, code=0) == 1


@pytest.mark.parametrize("code", [0, 2])
def test_very_many_columns(code: int, tmp_path: Path) -> None:
    names = ["question_id", "answer", *WIDE] if code == 0 else WIDE
    cells = dict(zip(names, ["1", "Yes", *WIDE], strict=False))
    table = ",".join(names) + "\n" + ",".join(cells.values()) + "\n"
    for name, text in {"a.csv": table, "a.json": json.dumps([cells])}.items():
        found = answered(tmp_path, name, text, code)
        few = "its columns are 'c0', 'c1', 'c2', 'c3', 'c4' and 99995 more"
        assert found == 1 if code == 0 else few in found
    split = {"columns": list(cells), "data": [list(cells.values())]}
    assert str(answered(tmp_path, "split.json", json.dumps(split), code))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_an_answer_that_is_a_file_of_its_own(name: str, tmp_path: Path) -> None:
    long = "x" * (rows.LONGEST + 1)
    row = {"question_id": 1, "answer": long}
    text = json.dumps(row) if name == "a.jsonl" else f"question_id,answer\n1,{long}\n"
    problem = "row 1: 'answer' has 2,000,001 characters, more than 2,000,000"
    assert problem in answered(tmp_path, name, text)


def test_one_long_line_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LONGEST_HEADER", 10_000)
    error = answered(tmp_path, "a.csv", "x" * 100_000)
    assert error == "a.csv: is no table; its first line has 100,000 characters"


def test_more_objects_than_memory_holds(tmp_path: Path) -> None:
    assert "more than 4,000,000 objects" in answered(tmp_path, "b.json", "[" * 4_000_001)


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LARGEST_TEXT", content.MIB)
    problem = "a.csv: is larger than 1 MiB; keep the columns of ids and answers alone"
    assert problem in answered(tmp_path, "a.csv", "a,b\n" * 2**19)
    monkeypatch.setattr(content, "MOST_ROWS", 9)
    table = "question_id,answer\n" + "1,Yes\n" * 10
    assert "a.csv: has more than 9 rows" in answered(tmp_path, "a.csv", table)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a", "a.parquet"])
def test_files_that_hold_something_else(name: str, tmp_path: Path) -> None:
    for start in (b"", b"\0" * 1000, b"\xff\xfe", b"\xef\xbb\xbf", b"PAR1", b"\x7fELF\0\0"):
        assert answered(tmp_path, name, start).startswith(name)


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, problem in {
        tmp_path: "Is a directory",
        tmp_path / "none.json": "No such file",
        tmp_path / ("x" * 300): "File name too long",
        Path("/dev/zero"): "no text, but a binary file",
        Path("a\0b"): "null",
    }.items():
        for benchmark in ("mmhal", "hallusion"):
            error = run(benchmark, "--responses", path, code=2)["error"]
            assert problem in error and len(error) < 420
        error = run(
            "chair", "--responses", written(tmp_path / "a.json", {"1": ""}), "--truth", path, code=2
        )
        assert "error" in error


def test_a_path_or_an_argument_of_any_length(tmp_path: Path) -> None:
    assert len(run("pope", "--responses", "x" * 10_000, "--truth", "y", code=2)["error"]) < 330
    assert len(run("x" * 10_000, code=2)["error"]) < 330


# --- parquet that unpacks to much more ---


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def test_parquet_that_unpacks_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 2**25
    one = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array([long]))
    repeated = parquet(pa.table({"question_id": pa.array(range(200)), "answer": one}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(repeated) < 100_000
    assert "unpacks to more than 512 MiB" in answered(tmp_path, "a.parquet", repeated)
    if sys.platform == "linux":
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 600 * 1024  # KiB, of 6.4 GiB
    monkeypatch.setattr(content, "MOST_ROWS", 9)
    many = parquet(pa.table({"question_id": range(10), "answer": ["Yes"] * 10}))
    assert "has more than 9 rows" in answered(tmp_path, "b.parquet", many)


def test_parquet_reads_only_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    pictures = pa.array([os.urandom(1000)] * 2)
    columns = {"question_id": pa.array([1, 2], pa.int32()), "answer": ["Yes", "Yes"]}
    table = pa.table({**columns, "image": pictures, "big": ["x" * 2**20] * 2})
    for wide in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        typed = table.set_column(1, "answer", table["answer"].cast(wide))
        assert answered(tmp_path, "a.parquet", parquet(typed), code=0) == 2
    path = tmp_path / "a.parquet"
    (first, _) = rows.read(
        path, {}, rows.Layout("question_id", "answer", ("question_id", "answer"))
    )
    assert first.cells == {"question_id": 1, "answer": "Yes"}
    with pytest.raises(ValueError, match="its columns are 'question_id', 'answer', 'image', 'big'"):
        first.get("label")
