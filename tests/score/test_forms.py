"""Answers in the forms that spreadsheets, pandas and people write: scored alike, or refused."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support import limits, scoring
from tests.support.scoring import run, written

CASES = scoring.SHARED / "cases"
ROOT = Path(__file__).parents[2]
TRUTH = [
    {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": "a.jpg", "text": "Is there a cat in the image?", "label": "no"},
    {"question_id": 3, "image": "b.jpg", "text": "Is there a car in the image?", "label": "yes"},
]
ANSWERS = {1: "Yes", 2: "No, there is not; not one.", 3: "Yes,\tthere | is a\ncar."}
TABLE = pd.DataFrame({"question_id": list(ANSWERS), "answer": list(ANSWERS.values())})
RIGHT = {"TP": 2, "FP": 0, "TN": 1, "FN": 0, "neither": 0}
CSV = TABLE.to_csv(index=False)


def scored(folder: Path, name: str, content: str | bytes, *more: Any) -> dict[str, Any]:
    """POPE over a file of this name and content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    truth = written(folder / "truth.json", TRUTH, lines=True)
    return run("pope", "--responses", path, "--truth", truth, *more)


def refused(folder: Path, name: str, content: str | bytes, *more: Any) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    truth = written(folder / "truth.json", TRUTH, lines=True)
    error = run("pope", "--responses", path, "--truth", truth, *more, code=2)["error"]
    assert len(error) < 320
    return error.replace(str(folder) + "/", "")


def json_of(**options: Any) -> str:
    text = TABLE.to_json(**options)
    assert isinstance(text, str)
    return text


EXCEL = io.StringIO()
TABLE.to_csv(EXCEL, index=False, sep=";", lineterminator="\r\n")
SEVERAL = TABLE.assign(score=[0.5, None, 1], seen=[True, False, True])
ROWS = json.loads(json_of(orient="records"))
FORMS = {
    "comma.csv": CSV,
    "semicolon.csv": TABLE.to_csv(index=False, sep=";"),
    "bar.csv": TABLE.to_csv(index=False, sep="|"),
    "tab.tsv": TABLE.to_csv(index=False, sep="\t"),
    "tab.txt": TABLE.to_csv(index=False, sep="\t"),
    "tab.csv": TABLE.to_csv(index=False, sep="\t"),
    "excel.CSV": b"\xef\xbb\xbf" + EXCEL.getvalue().encode(),
    "declared.csv": "sep=;\r\n" + EXCEL.getvalue(),
    "unicode text.txt": TABLE.to_csv(index=False, sep="\t").encode("utf-16"),
    "big endian.csv": b"\xfe\xff" + CSV.encode("utf-16-be"),
    "macintosh.csv": CSV.replace("a\ncar", "a car").replace("\n", "\r"),
    "blank lines.csv": f"\n{CSV}\n\n,\n , \n",
    "blank columns.csv": "question_id,answer,,\n1,Yes,,\n2,No,,\n3,Yes,,\n",
    "longer rows.csv": "question_id,answer\n1,Yes,,\n2,No\n3,Yes,\n",
    "blanks in the header.csv": "question_id, answer\n1,Yes\n2,No\n3,Yes\n",
    "floats.csv": TABLE.astype({"question_id": float}).to_csv(index=False),
    "floats.tsv": TABLE.astype({"question_id": float}).to_csv(index=False, sep="\t"),
    "index.csv": SEVERAL.to_csv(),
    "named index.csv": TABLE.set_index("question_id").to_csv(),
    "records.Json": json_of(orient="records"),
    "floats.json": json.dumps([{**row, "question_id": float(row["question_id"])} for row in ROWS]),
    "texts.json": json.dumps([{**row, "question_id": str(row["question_id"])} for row in ROWS]),
    "lines.JSONL": json_of(orient="records", lines=True),
    "lines.json": json_of(orient="records", lines=True),
    "list.jsonl": json_of(orient="records"),
    "columns.json": json_of(),
    "columns with gaps.json": SEVERAL.to_json(),
    "index.json": json_of(orient="index"),
    "split.json": json_of(orient="split"),
    "table.json": json_of(orient="table"),
    "index of ids.json": TABLE.set_index("question_id").to_json(orient="index"),
    "lists.json": json.dumps(TABLE.to_dict("list")),
    "by id.json": json.dumps(ANSWERS),
    "by id of rows.json": json.dumps({key: {"answer": of, "n": 1} for key, of in ANSWERS.items()}),
    "under a key.json": json.dumps({"results": ROWS}),
    "under a key, by id.json": json.dumps({"results": ANSWERS}),
    "beside a model.json": json.dumps({"model": "a", "n": 3, "config": {"x": []}, "data": ROWS}),
    "one after the other.json": "".join(map(json.dumps, ROWS)),
    "indented.jsonl": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "separated.jsonl": "".join(f"\x1e{json.dumps(row)}\n" for row in ROWS),
    "mark.json": b"\xef\xbb\xbf" + json_of(orient="records").encode(),
    "wide.json": json_of(orient="records").encode("utf-16"),
    "json.csv": json_of(orient="records"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_scores_alike(name: str, tmp_path: Path) -> None:
    result = scored(tmp_path, name, FORMS[name])
    assert result["counts"] == RIGHT and result["notes"] == []


@pytest.mark.parametrize("ending", ["parquet", "PARQUET", "data"])
def test_parquet_whatever_it_is_called(ending: str, tmp_path: Path) -> None:
    content = io.BytesIO()
    SEVERAL.astype({"question_id": float}).to_parquet(content)
    assert scored(tmp_path, f"answers.{ending}", content.getvalue())["counts"] == RIGHT


def test_a_renamed_column_in_every_form(tmp_path: Path) -> None:
    theirs = TABLE.rename(columns={"question_id": "qid", "answer": "out"})
    renames = ["--rename", "qid=question_id", "--rename", "out=answer"]
    contents = {f"{orient}.json": theirs.to_json(orient=orient) for orient in ("split", "columns")}
    contents |= {"index.json": theirs.to_json(orient="index"), "a.csv": theirs.to_csv(sep=";")}
    for name, content in contents.items():
        assert scored(tmp_path, name, content, *renames)["counts"] == RIGHT


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        # Two separators of which neither, or either, gives a column that is asked for.
        ("a.csv", "qid;who, when\n1;Yes, now\n", "a.csv: its header has commas and semicolons"),
        ("a.csv", "question_id;x,answer\n1;2,Yes\n", "a.csv: its header has commas and semicolons"),
        ("a.csv", "1,Yes\n2,No\n", "row 1: has no 'question_id'; its columns are '1', 'Yes'"),
        ("a.tsv", 'question_id\tanswer\n1\t"No" it is\n', "a.tsv: is no CSV table with tabs"),
        ("a.csv", "question_id,answer,answer\n1,Yes,No\n", "two columns have one name, 'answer'"),
        ("a.csv", "question_id,answer\n1.5,Yes\n", "question_id '1.5' is unknown"),
        ("a.csv", "question_id,answer\n1E+00,Yes\n", "question_id '1E+00' is unknown"),
        ("a.csv", "question_id,answer\n1,Yes\n1.0,No\n", "row 2: question_id '1' is there already"),
        ("a.json", '{"1": "Yes", "1": "No"}', "a.json row 1: has an object with the key '1' twice"),
        ("a.jsonl", '{"question_id": 1, "answer": "a", "answer": "b"}', "the key 'answer' twice"),
        (
            "a.json",
            json.dumps({"before": ROWS, "after": ROWS}),
            "a.json: has 2 lists of rows ('before', 'after'); keep the answers alone",
        ),
        ("a.json", '[[1, "Yes"]]', "a.json row 1: is [1, 'Yes'], not an object with columns"),
        ("a.json", '{"columns": ["a"], "data": [[1, 2]]}', "row 1: is 2 cells, and there are 1"),
        ("a.json", '{"1": ["Yes"]}', "has no 'question_id'"),
        ("a.json", "{}", "a.json: is empty"),
        (
            "a.xlsx",
            b"PK\x03\x04\x14\0",
            "a zip archive or an Excel workbook; save the table as CSV",
        ),
        ("a.jsonl.gz", b"\x1f\x8b\x08\0", "is compressed with gzip; unpack it first"),
        ("a.feather", b"ARROW1\0\0", "is an Arrow file; save it as parquet"),
    ],
)
def test_what_is_not_clear_is_not_guessed(
    name: str, content: str | bytes, problem: str, tmp_path: Path
) -> None:
    assert problem in refused(tmp_path, name, content)


# --- pipes ---


def by_command(folder: Path, *arguments: str, **options: Any) -> dict[str, Any]:
    written(folder / "truth.json", TRUTH, lines=True)
    ended = subprocess.run(
        arguments,
        capture_output=True,
        cwd=folder,
        timeout=limits.COMMAND_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )
    assert ended.stderr == b""
    return json.loads(ended.stdout)


def test_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adapt.score", "pope", "--truth", "truth.json", "--json"]
    for name in ("-", "/dev/stdin"):
        result = by_command(tmp_path, *command, "--responses", name, input=CSV.encode())
        assert result["counts"] == RIGHT


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    pipes = {"answers": CSV, "truth": "\n".join(map(json.dumps, TRUTH))}
    for name, content in pipes.items():
        os.mkfifo(tmp_path / name)
        write = threading.Thread(target=(tmp_path / name).write_text, args=(content,), daemon=True)
        write.start()
    result = run("pope", "--responses", tmp_path / "answers", "--truth", tmp_path / "truth")
    assert result["counts"] == RIGHT
    # The version of what came through the pipe.
    assert result["versions"]["truth"].startswith("sha256:")


# --- what was refused before, with its right value ---


@pytest.mark.parametrize("name", ["a.tsv", "dict.json", "wrapped.json", "float_ids.csv"])
def test_files_that_were_refused(name: str) -> None:
    folder = CASES / "score-unclear-files"
    if not folder.is_dir():
        pytest.skip(f"the small inputs {folder} are not on this machine")
    result = run("pope", "--responses", folder / name, "--truth", folder / "pope_truth.json")
    assert result["counts"] == {"TP": 3, "FP": 0, "TN": 3, "FN": 0, "neither": 0}


@pytest.mark.parametrize("name", ["c_name.jsonl", "c_zero.jsonl"])
def test_captions_by_the_names_of_coco_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CASES / "coco-file-names"
    if not folder.is_dir():
        pytest.skip(f"the small inputs {folder} are not on this machine")
    scoring.shared(monkeypatch)
    result = run("chair", "--responses", folder / name, "--truth", folder / "coco")
    # A dog and a cat are named; a dog is segmented, and a reference caption tells of a car.
    assert (result["chair_s"], result["chair_i"], result["recall"]) == (1, 0.5, 0.5)
