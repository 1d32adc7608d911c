"""Readers: every row once with its number, in whole or in parts; a bad row costs only itself."""

import csv
import io
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapt.data.readers import (
    arrow,
    json_files,
    json_lines,
    json_scan,
    messages,
    pages,
    parquet,
    record,
    separated,
)
from adapt.data.readers.record import MAX_COLUMNS, MAX_DEPTH, Record
from adapt.data.sources import File, Source
from adapt.params import InputError

ROWS: list[dict[str, Any]] = [
    {"question": f'is "{i}" [a, {{b: \\ ?', "chosen": "é\u2028" * (i % 7), "n": [i, {"x": []}]}
    for i in range(200)
]
BOM = b"\xef\xbb\xbf"


def opened(folder: Path, name: str, content: bytes | str) -> File:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Source.open(name, folder).files()[0]


def read(file: File) -> list[Record]:
    """All records, which are the same when the file is read in parts by other processes."""
    whole = list(file.records())
    chunks = [pickle.loads(pickle.dumps(chunk)) for chunk in file.chunks()]
    assert [one for chunk in chunks for one in chunk.records()] == whole
    assert all(bool(one.problem) == (one.values is None) for one in whole)
    assert all("\n" not in one.problem and len(one.problem) < 250 for one in whole)
    return whole


def problems(file: File) -> dict[int, str]:
    return {one.row: one.problem for one in read(file) if one.problem}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of a few rows, read in blocks that end in the middle of everything."""
    for module in (json_lines, json_scan):
        monkeypatch.setattr(module, "BLOCK", 7)
    for module in ("json_lines", "json_files", "separated"):
        monkeypatch.setattr(f"adapt.data.readers.{module}.CUT_BYTES", 1000)


# ---- JSON --------------------------------------------------------------------------------------

LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
SHAPES = {
    "lines.jsonl": LINES,
    "lines.json": LINES,
    "endings.JSONL": LINES.replace("\n", "\r\n"),
    "mark.jsonl": BOM + LINES.encode(),
    "open.jsonl": LINES.rstrip("\n"),
    "list.json": json.dumps(ROWS),
    "indented.json": BOM + json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "comma.json": json.dumps(ROWS)[:-1] + ",\r\n]\r\n",
    "wrapped.json": json.dumps({"version": 1, "info": {"by": [{}]}, "data": ROWS, "end": {}}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_json_of_every_shape_gives_the_same_rows(tmp_path, name):
    records = read(opened(tmp_path, name, SHAPES[name]))
    assert [one.values for one in records] == ROWS
    assert [one.row for one in records] == list(range(1, 201))
    assert {one.file for one in records} == {name}


def test_files_are_cut_into_parts(tmp_path):
    for name, content in SHAPES.items():
        assert len(list(opened(tmp_path, name, content).chunks())) > 10


def test_rows_by_id_have_it_in_a_column(tmp_path):
    content = json.dumps({f"id{i}": row for i, row in enumerate(ROWS)}, indent=1)
    records = read(opened(tmp_path, "by_id.json", content))
    assert [one.values for one in records] == [
        {"key": f"id{i}", **row} for i, row in enumerate(ROWS)
    ]
    own = read(opened(tmp_path, "own.json", '{"a": {"key": 7}}'))
    assert own[0].values == {"key": 7}


@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_with_columns_is_one_row(tmp_path, indent):
    row = {"conversations": [{"from": "human", "value": "?"}], "chosen": {"value": "a"}}
    (record,) = read(opened(tmp_path, "one.json", json.dumps(row, indent=indent)))
    assert record.values == row


@pytest.mark.parametrize("content", ["", " \n", "[]", "[ ]\n", "\n\n"])
def test_a_file_without_rows_has_none(tmp_path, content):
    assert read(opened(tmp_path, "empty.json", content)) == []


def test_several_lists_of_rows_are_told_to_part(tmp_path):
    file = opened(tmp_path, "two.json", json.dumps({"train": ROWS[:1], "test": ROWS[:1]}))
    with pytest.raises(
        InputError, match=r"two.json: has several lists of rows \('test', 'train'\)"
    ):
        list(file.records())


def test_blank_lines_count_as_lines_and_are_no_rows(tmp_path):
    records = read(opened(tmp_path, "a.jsonl", '{"a": 1}\n\n  \n{"a": 2}\n'))
    assert [(one.row, one.values) for one in records] == [(1, {"a": 1}), (4, {"a": 2})]


DEEP = '{"a": ' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1)
texts = st.text(st.sampled_from('ab"\\\\[]{},:é \n'), max_size=12)
leaves = st.none() | st.booleans() | st.integers() | texts
rows = st.lists(st.dictionaries(texts, st.recursive(leaves, st.lists, max_leaves=5), max_size=4))


@given(rows=rows, indent=st.sampled_from([None, 1]), ascii=st.booleans(), block=st.integers(1, 9))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_list_of_rows_is_read_as_the_json_module_reads_it(
    tmp_path, monkeypatch, rows, indent, ascii, block
):
    monkeypatch.setattr(json_scan, "BLOCK", block)
    monkeypatch.setattr(json_files, "CUT_BYTES", 30)
    content = json.dumps(rows, indent=indent, ensure_ascii=ascii)
    assert [one.values for one in read(opened(tmp_path, "a.json", content))] == rows


def test_a_string_of_backslashes_takes_time_in_proportion_to_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr(json_scan, "BLOCK", 100)
    content = json.dumps([{"a": "\\" * 100_000}, {"a": 'x\\"'}])
    assert [one.row for one in read(opened(tmp_path, "a.json", content)) if one.values] == [1, 2]


FAULTS = {
    "cut": (b'{"a": "tex', "is no JSON (Unterminated string"),
    "word": (b'{"a": tru}', "is no JSON (Expecting value, column 7)"),
    "list": (b"[1, 2]", "is [1, 2], not an object with columns"),
    "text": (b'"row"', "is 'row', not an object with columns"),
    "bytes": (b'{"a": "\xff"}', "is not UTF-8 (byte 0xff)"),
    "latin": ('{"a": "schön"}'.encode("latin-1"), "is not UTF-8 (byte 0xf6)"),
    "infinity": (b'{"a": -Infinity}', "holds -Infinity, which JSON does not have"),
    "large": (b'{"a": 1e999}', "holds '1e999', a number too large to be stored"),
    "digits": (b'{"a": ' + b"7" * 5000 + b"}", "holds a number of thousands of digits"),
    "double": (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
    "half": (b'{"a": "\\ud83d"}', "holds half a character"),
    "deep": (DEEP.encode(), f"is nested more than {MAX_DEPTH} levels deep"),
    "deeper": (b'{"a": ' + b"[" * 9_000 + b"]" * 9_000 + b"}", "levels deep"),
    "control": (b'{"a": "\x1b[2J"}', "is no JSON (Invalid control character"),
    "columns": (
        json.dumps(dict.fromkeys(map(str, range(MAX_COLUMNS + 1)))).encode(),
        f"has {MAX_COLUMNS + 1} columns, more than {MAX_COLUMNS}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_bad_line_costs_only_itself(tmp_path, name, fault):
    line, reason = FAULTS[fault]
    file = opened(tmp_path, name, b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    (found,) = problems(file).items()
    assert found[0] == 2 and reason in found[1]
    assert [one.values for one in read(file) if one.values] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"cut"}))
def test_a_bad_item_of_a_list_costs_only_itself(tmp_path, fault):
    item, reason = FAULTS[fault]
    file = opened(tmp_path, "a.json", b'[{"a": 1},\n' + item + b', {"a": 2}]')
    (found,) = problems(file).items()
    assert found[0] == 2 and reason in found[1]
    assert [one.values for one in read(file) if one.values] == [{"a": 1}, {"a": 2}]


def test_a_gap_of_a_table_is_null_in_json(tmp_path):
    assert read(opened(tmp_path, "a.jsonl", '{"a": NaN}'))[0].values == {"a": None}


def test_whole_surrogate_pairs_are_one_character(tmp_path):
    assert read(opened(tmp_path, "a.jsonl", r'{"a": "\ud83d\ude00"}'))[0].values == {"a": "😀"}


@pytest.mark.parametrize("tail", ["", ",", ', {"a": 3', ', {"a": "thr'])
def test_a_list_that_is_cut_off_keeps_its_whole_rows(tmp_path, tail):
    file = opened(tmp_path, "a.json", '[{"a": 1}, {"a": 2}' + tail)
    assert [one.values for one in read(file) if one.values] == [{"a": 1}, {"a": 2}]
    assert "the file is cut off" in list(problems(file).values())[-1]


def test_what_stands_behind_a_list_is_said(tmp_path):
    file = opened(tmp_path, "a.json", '[{"a": 1}] {"a": 2}')
    assert problems(file) == {2: "stands behind the end of the list"}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_rows_above_the_limit_are_passed_over_in_little_memory(tmp_path, monkeypatch, name):
    for module in ("json_lines", "json_files", "json_scan", "separated"):
        monkeypatch.setattr(f"adapt.data.readers.{module}.MAX_ROW", 2**16)
        monkeypatch.setattr(f"adapt.data.readers.{module}.BLOCK", 2**12)
    long = "x, y]" * 2_000_000
    content = {
        "a.jsonl": f'{{"a": 1}}\n{{"a": "{long}"}}\n{{"a": 2}}\n',
        "a.json": f'[{{"a": 1}}, {{"a": "{long}"}}, {{"a": 2}}]',
        "a.csv": f'a\n1\n"{long}"\n2\n',
    }
    file = opened(tmp_path, name, content[name])
    tracemalloc.start()
    records = list(file.records())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22  # of ten megabytes
    assert [bool(one.values) for one in records] == [True, False, True]
    assert "longer than" in records[1].problem


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('[{"a": 1}]'.encode("utf-16"), "UTF-16"),
        ('[{"a": 1}]'.encode("utf-32"), "UTF-32"),
        ('[{"a": 1}]'.encode("utf-16-le"), "zero bytes"),
        (b"\x1f\x8b\x08\0\0\0", "gzip"),
        (b"PK\x03\x04\x14\0", "zip"),
        (b"PAR1\x15\x04", "parquet"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, name, content, kind):
    with pytest.raises(InputError, match=rf"{name}: is .*{kind}"):
        list(opened(tmp_path, name, content).records())


# ---- CSV and TSV -------------------------------------------------------------------------------


def table(separator: str, end: str = "\r\n") -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["question", "chosen"], delimiter=separator, lineterminator=end)
    writer.writeheader()
    writer.writerows(CELLS)
    return text.getvalue()


CELLS = [{"question": f'say "{i}"\n, ; \t |', "chosen": "é\r\n" * (i % 5)} for i in range(100)]


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.TSV", "\t")])
@pytest.mark.parametrize("mark", [b"", BOM])
def test_tables_with_lines_in_their_cells(tmp_path, name, separator, mark):
    file = opened(tmp_path, name, mark + table(separator).encode())
    records = read(file)
    assert [one.values for one in records] == CELLS
    assert [one.row for one in records] == list(range(1, 101))
    assert len(list(file.chunks())) > 3


def test_bad_rows_of_a_table_cost_only_themselves(tmp_path):
    content = b'a,b\n1,2\n3\n\n"4"x,5\n6,\xe9\n"7,8\n9,10\n'
    file = opened(tmp_path, "a.csv", content)
    assert problems(file) == {
        2: "has 1 cells, and the header has 2",
        3: "is no row of a table (',' expected after '\"')",
        4: "'b' is not UTF-8 (byte 0xe9); save the file as UTF-8",
        5: "is no row of a table (unexpected end of data)",
    }
    assert [one.values for one in read(file) if one.values] == [
        {"a": "1", "b": "2"},
        {"a": "9", "b": "10"},
    ]


def test_a_row_of_a_table_may_not_be_endless(tmp_path, monkeypatch):
    monkeypatch.setattr(separated, "MAX_ROW", 200)
    file = opened(tmp_path, "a.csv", "a,b\n1,2\n" + '"' + "x\n" * 5000 + '",3\n')
    assert "longer than" in problems(file)[2]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("a,b,a", "two columns are named 'a'"),
        (",".join(map(str, range(10**6))), f"has 1000000 columns, more than {MAX_COLUMNS}"),
        ('"a,b', "its header is no row of a table"),
    ],
)
def test_headers_that_name_no_columns(tmp_path, header, reason):
    with pytest.raises(InputError, match=f"a.csv: {reason}"):
        list(opened(tmp_path, "a.csv", f"{header}\n1,2,3\n").records())


def test_an_empty_table(tmp_path):
    assert read(opened(tmp_path, "a.csv", "")) == read(opened(tmp_path, "a.csv", "a,b\n")) == []


# ---- parquet and Arrow -------------------------------------------------------------------------

COLUMNS = {
    "n": list(range(100)),
    "image": [{"bytes": bytes([i]) * i, "path": None} for i in range(100)],
    "turns": [[{"from": "a", "value": str(i)}] for i in range(100)],
}
TABLE = pa.table(COLUMNS)
TORN = pa.Array.from_buffers(  # three texts, the second of which is no UTF-8
    pa.string(),
    3,
    [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffb")],
)


def as_parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def as_arrow(table: pa.Table, form: Any, size: int) -> bytes:
    buffer = io.BytesIO()
    with form(buffer, table.schema) as writer:
        writer.write_table(table, size)
    return buffer.getvalue()


FORMS = {
    "a.parquet": as_parquet(TABLE, row_group_size=30),
    "s.arrow": as_arrow(TABLE, pa.ipc.new_stream, 30),
    "f.ARROW": as_arrow(TABLE, pa.ipc.new_file, 30),
}


@pytest.mark.parametrize("name", FORMS)
def test_tables_of_arrow(tmp_path, name):
    file = opened(tmp_path, name, FORMS[name])
    records = read(file)
    assert [one.values for one in records] == TABLE.to_pylist()
    assert [one.row for one in records] == list(range(1, 101))
    assert [chunk.rows for chunk in file.chunks()] == [30, 30, 30, 10]
    assert file.rows() == (100 if name == "a.parquet" else None)


@pytest.mark.parametrize("name", FORMS)
def test_a_cell_that_is_no_text_costs_only_its_row(tmp_path, name):
    torn = pa.table({"a": TORN, "n": [1, 2, 3]})
    written = {
        "a.parquet": as_parquet(torn),
        "s.arrow": as_arrow(torn, pa.ipc.new_stream, 3),
        "f.ARROW": as_arrow(torn, pa.ipc.new_file, 3),
    }
    file = opened(tmp_path, name, written[name])
    assert [one.values for one in read(file) if one.values] == [
        {"a": "a", "n": 1},
        {"a": "b", "n": 3},
    ]
    assert "column 'a' cannot be read (Invalid UTF8" in problems(file)[2]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_page_headers_account_for_every_byte_that_the_footer_counts(version, dictionary, codec):
    options = {"data_page_version": version, "use_dictionary": dictionary, "compression": codec}
    content = io.BytesIO(
        as_parquet(TABLE, row_group_size=30, write_batch_size=7, data_page_size=50, **options)
    )
    metadata, counts = pq.ParquetFile(content).metadata, list[int]()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            found = list(pages.pages(content, chunk))
            sizes = [page.size + page.header for page in found]
            assert sum(sizes) == chunk.total_uncompressed_size
            values = [page.values for page in found if not page.is_dictionary]
            assert sum(values) == chunk.num_values
            counts.append(len(found))
            assert any(page.is_dictionary for page in found) == chunk.has_dictionary_page
    assert max(counts) > 3


@pytest.mark.parametrize("byte", range(40))
def test_page_headers_that_are_damaged_end_in_one_error(byte):
    content = bytearray(as_parquet(TABLE, use_dictionary=False, compression="none"))
    chunk = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0)
    for value in (0, 1, 0x7F, 0x80, 0xFF):
        content[chunk.data_page_offset + byte] = value
        try:
            found = list(pages.pages(io.BytesIO(content), chunk))
        except pages.Damaged as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert all(page.size >= 0 and page.header > 0 for page in found)


def test_a_row_group_that_unpacks_to_too_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_UNPACKED", 10**5)
    table = pa.table({"a": [b"", bytes(10**6), b""], "n": [1, 2, 3]})
    content = as_parquet(table, row_group_size=1, compression="zstd", use_dictionary=False)
    assert len(content) < 10_000
    file = opened(tmp_path, "a.parquet", content)
    reason = "lies in a row group that is not read: its pages unpack to 0 MiB at a time, more than"
    assert reason in problems(file)[2]
    assert [one.row for one in read(file) if one.values] == [1, 3]


def test_a_page_that_says_other_than_the_footer_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_UNPACKED", 2**26)
    table = pa.table({"a": [np.random.default_rng(0).bytes(2**21)]})
    content = bytearray(as_parquet(table, use_dictionary=False, compression="zstd"))
    at = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0).data_page_offset
    # Field 1, the type, takes two bytes; then one byte says field 2, and four its number.
    assert content[at + 2] == 0x15 and content[at + 6] < 128 <= content[at + 5]
    content[at + 3 : at + 7] = b"\xfe\xff\xff\x7f"  # 134 million in zigzag code
    (problem,) = problems(opened(tmp_path, "a.parquet", bytes(content))).values()
    assert "its pages unpack to 127 MiB at a time, more than 64 MiB" in problem


def test_lists_without_end_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_VALUES", 10**5)
    table = pa.table({"a": pa.array([[None] * 10**6], pa.list_(pa.int8()))})
    content = as_parquet(table)
    assert len(content) < 10_000
    (problem,) = problems(opened(tmp_path, "a.parquet", content)).values()
    assert "its lists have 1000000 values, more than 100000" in problem


def test_one_large_value_of_many_rows_is_unpacked_for_a_few_rows_at_a_time(tmp_path, monkeypatch):
    """A dictionary holds 256 KiB once, and 2,000 rows refer to it: 512 MiB."""
    monkeypatch.setattr(parquet, "BATCH_BYTES", 2**20)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), [bytes(2**18)])
    content = as_parquet(pa.table({"a": repeated}), store_schema=False)
    assert len(content) < 20_000
    file = opened(tmp_path, "a.parquet", content)
    before = pa.default_memory_pool().max_memory()
    assert sum(len(one.values["a"]) for one in file.records() if one.values) == 2000 << 18
    assert pa.default_memory_pool().max_memory() - before < 2**25


def test_a_damaged_row_group_costs_its_rows(tmp_path):
    content = bytearray(as_parquet(TABLE, row_group_size=30, compression="zstd"))
    metadata = pq.ParquetFile(io.BytesIO(content)).metadata
    at = metadata.row_group(1).column(0).data_page_offset
    content[at : at + 40] = bytes(40)
    file = opened(tmp_path, "a.parquet", bytes(content))
    assert sorted(problems(file)) == list(range(31, 61))
    assert sum(one.values is not None for one in read(file)) == 70


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_what_a_compressed_batch_unpacks_to_is_known_before(tmp_path, monkeypatch, form, codec):
    names = pa.array(["x" * 1000, "y" * 1000] * 500).dictionary_encode()
    table = pa.table({"zeros": [bytes(10_000)] * 1000, "n": list(range(1000)), "name": names})
    buffer = io.BytesIO()
    with form(buffer, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    schema, dictionary, batch = messages.unpacked(pa.BufferReader(buffer.getvalue()))
    assert schema == 0
    if codec:
        assert 2000 <= dictionary < 3000 and 0 <= batch - 10**7 < 50_000
    else:
        assert dictionary == batch == 0
    file = opened(tmp_path, "a.arrow", buffer.getvalue())
    assert [one.values for one in read(file)] == table.to_pylist()
    monkeypatch.setattr(arrow, "MAX_UNPACKED", 2**20)
    if codec:
        with pytest.raises(InputError, match=r"a.arrow: a batch unpacks to 9 MiB, more than 1 MiB"):
            list(file.records())


@pytest.mark.parametrize("byte", range(0, 400, 3))
def test_messages_that_are_damaged_end_in_one_line(tmp_path, byte):
    buffer = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(buffer, TABLE.schema, options=options) as writer:
        writer.write_table(TABLE)
    content = bytearray(buffer.getvalue())
    content[-len(content) // 2 + byte] ^= 0xFF
    file = opened(tmp_path, "a.arrow", bytes(content))
    try:
        rows = read(file)
    except InputError as error:
        assert str(error).startswith(str(file.document.place.root)) or "a.arrow" in str(error)
        assert "\n" not in str(error)
    else:
        assert len(rows) <= len(TABLE) + 1, "whole rows, and a line for the damage"


def test_an_arrow_file_that_is_cut_off_keeps_its_whole_batches(tmp_path):
    file = opened(tmp_path, "s.arrow", FORMS["s.arrow"][:-3000])
    whole = [one.row for one in read(file) if one.values]
    assert whole and whole == list(range(1, len(whole) + 1))
    assert list(problems(file)) == [len(whole) + 1]


def nested(levels: int) -> pa.Table:
    kind: pa.DataType = pa.int64()
    for _ in range(levels):
        kind = pa.list_(kind)
    return pa.table({"a": pa.array([None], kind)})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.parquet", b"PAR1 and no more", "is no parquet file"),
        ("a.parquet", b"", "is no parquet file"),
        ("a.parquet", FORMS["a.parquet"][:-100], "is no parquet file"),
        ("a.arrow", b"", "is no Arrow file"),
        ("a.arrow", b"no arrow", "is no Arrow file"),
        ("a.parquet", as_parquet(nested(MAX_DEPTH + 1)), "is nested more than"),
        ("a.parquet", as_parquet(nested(1000)), "is no parquet file"),
        ("a.arrow", as_arrow(nested(MAX_DEPTH + 1), pa.ipc.new_file, 1), "is nested more than"),
        (
            "a.parquet",
            as_parquet(pa.table({str(i): [1] for i in range(MAX_COLUMNS + 1)})),
            f"has {MAX_COLUMNS + 1} columns",
        ),
        (
            "a.arrow",
            as_arrow(pa.table([[1], [2]], names=["a", "a"]), pa.ipc.new_file, 1),
            "two columns are named 'a'",
        ),
    ],
)
def test_tables_that_are_refused_in_one_line(tmp_path, name, content, reason):
    with pytest.raises(InputError, match=f"{name}: .*{reason}") as refused:
        list(opened(tmp_path, name, content).records())
    assert "\n" not in str(refused.value)


def test_head_reads_no_further(tmp_path):
    file = opened(tmp_path, "a.jsonl", LINES + "no json\n")
    assert [one.values for one in file.head(3)] == ROWS[:3]


def test_bounds_are_far_above_published_rows():
    assert record.MAX_ROW >= 100e6 and MAX_COLUMNS >= 1000 and MAX_DEPTH >= 16
