"""Published formats: fixtures in their field names are imported, exported, and read back equal."""

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapt.data.export import EXPORTED, export, exported
from adapt.data.formats.detection import FORMATS, NAMES, Recognised, by_name, detect
from adapt.data.formats.raw import RowProblem
from adapt.data.schema import Preference, SceneObject
from adapt.data.sources import Source
from adapt.data.validation import RowError, checked
from adapt.params import InputError
from tests.support import published
from tests.support.published import Pair, imported, picture

FORMS = sorted(published.FORMATS)


def preferences(folder: Path) -> list[Preference]:
    _, rows, refused = imported(folder)
    assert not refused
    return [row for row in rows if isinstance(row, Preference)]


def one(name: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The raw rows of one record in a named format."""
    return list(Recognised(format=name, why="", kinds={}).mapped("a.json", record))


def same(row: Preference, pair: Pair) -> None:
    plain = ("question", "chosen", "rejected", "history")
    assert {name: getattr(row, name) for name in plain} == {n: getattr(pair, n) for n in plain}
    assert tuple(row.images) == pair.images
    assert {name: getattr(row, name) for name in pair.more} == dict(pair.more)


@pytest.mark.parametrize("form", FORMS)
def test_a_published_form_is_recognised_imported_and_exported_to_trl(form, tmp_path):
    name, write = published.FORMATS[form]
    pairs = write(tmp_path / "in")
    recognised, rows, refused = imported(tmp_path / "in")
    assert (recognised.format, refused) == (name, []) and recognised.why
    assert len(rows) == len(pairs)
    for row, pair in zip(rows, pairs, strict=True):
        assert isinstance(row, Preference)
        same(row, pair)
    for out in (tmp_path / "out.parquet", tmp_path / "out"):
        assert export("trl", rows, out) == len(rows)
        read, again, refused = imported(out)
        assert (read.format, again, refused) == ("trl", rows, [])


@pytest.mark.parametrize("name", ["llama-factory", "ms-swift", "rlhf-v"])
def test_other_exports_are_read_back_equal_in_what_they_hold(name, tmp_path):
    published.rlaif_v(tmp_path / "in")
    rows = preferences(tmp_path / "in")
    export(name, rows, tmp_path / "out")
    recognised, again, refused = imported(tmp_path / "out")
    assert (recognised.format, again, refused) == (name, rows, [])
    if name == "rlhf-v":
        export(name, rows, tmp_path / "out.parquet")
        assert imported(tmp_path / "out.parquet")[1] == rows


def test_every_format_has_a_fixture_and_a_name_of_its_own():
    fixtures = {name for name, _ in published.FORMATS.values()} | {"pope"}
    assert fixtures == set(NAMES) and len(set(NAMES)) == len(FORMATS)
    assert set(EXPORTED) <= set(NAMES)


def test_the_page_of_formats_is_current():
    current = published.DOCUMENT.read_text(encoding="utf-8")
    assert current == published.document(), "run python -m tests.support.published"


def test_turns_and_places_of_pictures_survive_every_export(tmp_path):
    published.trl_messages(tmp_path / "in")
    rows = preferences(tmp_path / "in")
    placed = dataclasses.replace(rows[-1], question="Is <image> older than <image>?", id="x")
    for name in ("trl", "llama-factory", "ms-swift"):
        export(name, [rows[-1], placed], tmp_path / name)
        again = preferences(tmp_path / name)
        assert [row.history for row in again] == [rows[-1].history] * 2
        assert [row.question for row in again] == ["And now?", placed.question]


def test_hugging_face_datasets_decodes_the_export(tmp_path):
    from datasets import Dataset

    published.ours(tmp_path / "in")
    rows = preferences(tmp_path / "in")
    export("trl", rows, tmp_path / "trl.parquet")
    data = Dataset.from_parquet(str(tmp_path / "trl.parquet"), cache_dir=str(tmp_path / "cache"))
    assert data[0]["images"][0].size == published.SIZE
    assert data[1]["prompt"][0]["content"] == [
        {"type": "image", "text": None},
        {"type": "text", "text": rows[1].question},
    ]
    assert data[1]["chosen"] == [
        {"role": "assistant", "content": [{"type": "text", "text": rows[1].chosen}]}
    ]


def test_what_a_format_cannot_hold_is_said_before_anything_is_written(tmp_path):
    published.ours(tmp_path / "in")
    rows = preferences(tmp_path / "in")
    with pytest.raises(InputError, match="row o0: rlhf-v has no rejected pictures; export to trl"):
        export("rlhf-v", rows, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="'trll' is not exported; did you mean trl"):
        exported("trll", rows[0])
    with pytest.raises(InputError, match="ms-swift is exported to a folder"):
        export("ms-swift", rows, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="is there already"):
        export("trl", rows, tmp_path)


# ---- detection -----------------------------------------------------------------------------------


def test_the_most_specific_format_is_taken_and_the_others_are_named():
    row = {"question": "q", "chosen": "a", "rejected": "b", "image": "a.png", "ds_name": "d"}
    found = detect({"a.jsonl": [row]})
    assert found.format == "rlaif-v"
    assert found.why == (
        "columns question, chosen, rejected, ds_name; "
        "the most specific of those that fit (mmpr too)"
    )


def test_a_named_format_is_taken_though_another_is_more_specific():
    row = {"question": "q", "chosen": "a", "rejected": "b", "image": "a.png", "ds_name": "d"}
    assert detect({"a.jsonl": [row]}, "mmpr").format == "mmpr"
    with pytest.raises(InputError, match=r"trl does not fit a\.jsonl \(columns chosen, ds_name,"):
        detect({"a.jsonl": [row]}, "trl")
    with pytest.raises(InputError, match="unknown format rlhfv; did you mean rlhf-v"):
        by_name("rlhfv")


def test_unknown_columns_are_listed_with_the_formats_known():
    with pytest.raises(InputError) as caught:
        detect({"a.csv": [{"text_a": 1, "b\x1b[31m": 2}]})
    message = str(caught.value)
    assert r"a.csv (columns b\x1b[31m, text_a)" in message and "\x1b" not in message
    assert all(f"{name} (" in message for name in NAMES)


def test_files_of_another_kind_are_left_out_and_damaged_ones_kept():
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "images": ["a.png"]}
    found = detect({"a.jsonl": [row], "notes.json": [{"x": 1}], "cut.jsonl": []})
    assert found.why.endswith("; left out, because it does not fit: notes.json")
    assert found.left_out == ("notes.json",) and set(found.kinds) == {"a.jsonl", "cut.jsonl"}


def test_files_of_ours_may_be_of_either_kind():
    asked = {"id": "a", "image": "a.png", "question": "q", "answer": "a", "kind": "other"}
    pair = {"id": "b", "image": "a.png", "kind": "other", "image_id": "i", "question": "q"}
    heads = {"train.jsonl": [{**pair, "chosen": "a", "rejected": "b"}], "test.jsonl": [asked]}
    assert detect(heads).kinds == {"train.jsonl": "preference", "test.jsonl": "evaluation"}


def test_our_rows_are_taken_in_other_types_and_with_what_they_lack(tmp_path):
    published.ours(tmp_path / "in")
    rows = preferences(tmp_path / "in")
    table = pq.read_table(tmp_path / "in" / "train.parquet")
    place = table.schema.get_field_index("id")
    large = table.set_column(place, "id", table["id"].cast(pa.large_string()))
    (tmp_path / "again").mkdir()
    pq.write_table(
        large.append_column("extra", pa.array([1] * 3)), tmp_path / "again" / "a.parquet"
    )
    assert preferences(tmp_path / "again") == rows
    image = {"bytes": base64.b64encode(picture(0)).decode(), "path": None}
    truths: list[Any] = [None, [], [{"name": "cup"}]]
    asked = [{"image": image, "question": "q", "answer": "a", "objects": t} for t in truths]
    published.as_json(tmp_path / "own" / "test.json", asked)
    recognised, examples, refused = imported(tmp_path / "own")
    assert recognised.kinds == {"test.json": "evaluation"} and not refused
    cup = SceneObject(name="cup", colour="", box=None)
    assert [row.objects for row in examples] == [None, (), (cup,)]


# ---- quirks --------------------------------------------------------------------------------------


def test_popes_questions_are_evaluation_rows(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(picture(0, "JPEG"))
    rows = [
        {"question_id": 1, "image": "a.jpg", "text": "Is there a cup?", "label": "yes"},
        {"question_id": 2, "image": "a.jpg", "text": "Is there a fox?", "label": "maybe"},
    ]
    published.as_lines(tmp_path / "coco_pope_popular.json", rows)
    recognised, good, refused = imported(tmp_path)
    assert recognised.format == "pope"
    assert [(row.id, row.kind, row.answer, row.objects) for row in good] == [
        ("1", "exists", "yes", None)
    ]
    assert [str(error) for error in refused] == [
        "coco_pope_popular.json: row 2 (id missing): label: expected yes or no, got 'maybe'"
    ]


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("rlhf-v", {"text": '{"question": "q",', "image": "a"}, "text: not JSON"),
        ("rlhf-v", {"text": "[" * 100_000, "image": "a"}, "text: JSON that is nested too deeply"),
        ("rlhf-v", {"text": "[1]", "image": "a"}, "text: expected keys and values, got [1]"),
        ("rlhf-v", {"text": '{"question": "q"}'}, "text: has no chosen and no rejected"),
        ("rlaif-v", {"question": "q", "chosen": "c"}, "rejected: column rejected is missing"),
        ("rlaif-v", {"question": 3, "chosen": "c", "rejected": "r"}, "question: expected a text"),
        (
            "trl",
            {"prompt": [{"role": "user", "content": [{"type": "audio"}]}], "chosen": "c"},
            "prompt: a part of type 'audio'; only text and image are read",
        ),
        (
            "trl",
            {"prompt": [{"role": "tool", "content": "x"}], "chosen": "c"},
            "prompt: a turn of 'tool'; known: user",
        ),
        (
            "trl",
            {"prompt": [{"role": "assistant", "content": "x"}], "chosen": "c", "rejected": "r"},
            "prompt: user and assistant do not take turns",
        ),
        (
            "trl",
            {"prompt": "q", "chosen": [{"role": "user", "content": "x"}], "rejected": "r"},
            "chosen: does not end with a turn of the assistant",
        ),
        (
            "ms-swift",
            {
                "query": "q",
                "response": "a",
                "rejected_response": "b",
                "objects": {"ref": ["a", "b"], "bbox": [[0, 0, 1, 1]]},
            },
            "objects: 2 ref for 1 bbox",
        ),
        (
            "ms-swift",
            {"query": "Find <ref-object>.", "response": "<bbox>", "rejected_response": "b"},
            "messages: <ref-object> more often than objects have names (ref)",
        ),
        (
            "ms-swift",
            {"query": "Find it.", "response": "<bbox>", "rejected_response": "b"},
            "messages: <bbox> stands for a box in a model's own form",
        ),
        ("ms-swift", {"query": "q", "rejected_response": "b"}, "messages: column messages, or"),
        (
            "povid",
            {
                "conversations": [published.turn("human", "q"), published.turn("gpt", "a")],
                "rejected_conversations": [
                    published.turn("human", "p"),
                    published.turn("gpt", "b"),
                ],
            },
            "rejected_conversations: the last question is another",
        ),
        ("ha-dpo", {"image_id": 1, "chosen": [], "rejected": ["b"]}, "chosen: is an empty list"),
        ("bpo", {"prompt": "q", "completions": [{"response": "a"}]}, "has no two of them"),
        ("mdpo", {"prompt": "USER: q", "chosen": "a", "rejected": "b"}, "without ASSISTANT:"),
        (
            "mmpr",
            {"question": "q", "chosen": "a", "rejected": "b", "video": "a.mp4"},
            "video: the row is about a video or sound",
        ),
        (
            "mmpr",
            {"question": "q", "chosen": "a", "rejected": "b", "image": [3]},
            "image: expected a path or the bytes of a picture, got int",
        ),
    ],
)
def test_a_record_that_is_not_of_its_format_gives_one_reason(name, record, reason):
    with pytest.raises(RowProblem) as caught:
        one(name, record)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_a_system_turn_is_left_out_and_said():
    turns = [published.said("system", "Be brief."), published.said("user", "q")]
    row, *_ = one("trl", {"prompt": turns, "chosen": "a", "rejected": "b", "images": ["a.png"]})
    assert (row["question"], row["notes"]) == ("q", ["a system turn was left out"])


def test_names_of_objects_take_the_places_that_texts_leave_for_them():
    record = {
        "id": 7,
        "query": "Is <ref-object> left of <ref-object>?",
        "response": "No, <ref-object> is.",
        "rejected_response": ["Yes.", "Both."],
        "images": ["a.png"],
        "objects": {"ref": ["the cup", "the fork", "the fork"], "bbox": []},
    }
    first, second = one("ms-swift", record)
    assert (first["question"], first["chosen"]) == (
        "Is the cup left of the fork?",
        "No, the fork is.",
    )
    assert first["objects"] is None and (first["id"], second["id"]) == ("7-1", "7-2")


def test_a_split_that_the_source_gives_stays_with_every_format():
    row = {"question": "q", "chosen": "a", "rejected": "b", "image": "a.png", "split": "val"}
    assert [raw["split"] for name in ("mmpr", "rlaif-v") for raw in one(name, row)] == ["val"] * 2


def test_messages_of_other_names_are_conversations_as_well():
    asked = [published.said("user", "q")]
    row = {"messages": asked, "chosen": published.said("assistant", "a"), "images": ["a.png"]}
    row |= {"rejected": published.said("assistant", "b")}
    found = detect({"a.jsonl": [row]})
    assert found.format == "llama-factory"
    (raw,) = found.mapped("a.jsonl", row)
    assert (raw["question"], raw["chosen"], raw["rejected"]) == ("q", "a", "b")


def test_pictures_inside_messages_are_those_of_the_row():
    content = [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "q"}]
    turns = [{"role": "user", "content": content}]
    row, *_ = one("trl", {"prompt": turns, "chosen": "a", "rejected": "b"})
    assert row["images"] == [{"bytes": None, "path": "a.png"}]


# ---- anything at all -----------------------------------------------------------------------------

KEYS = (
    *("role", "from", "content", "value", "type", "text", "image", "bytes", "path"),
    *("ref", "bbox", "Rating", "annotations", "response", "Visual Faithfulness", "box"),
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.binary(max_size=4) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def record_of(tmp_path_factory) -> Callable[[str], tuple[Recognised, str, dict[str, Any]]]:
    """A good record of a form, with its file."""
    found = {}
    for form, (_, write) in published.FORMATS.items():
        folder = tmp_path_factory.mktemp("form") / "in"
        write(folder)
        source = Source.open(str(folder), folder.parent)
        recognised, _, _ = imported(folder)
        file = next(file for file in source.files() if file.name in recognised.kinds)
        found[form] = (recognised, file.name, dict(file.head(1)[0].values or {}))
    return lambda form: found[form]


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_column_holds_gives_rows_or_a_reason(form, record_of, data):
    recognised, file, record = record_of(form)
    column = data.draw(st.sampled_from(sorted(record)), label="column")
    changed = record | {column: data.draw(VALUES, label="value")}
    by_name(recognised.format).recognised([changed])
    try:
        raws = list(recognised.mapped(file, changed))
    except InputError as error:
        assert "\n" not in str(error)
        return
    for raw in raws:
        kind = recognised.kinds[file]
        outcome = checked(raw, file=file, row=1, kind=kind, picture=lambda _: picture(0))
        if isinstance(outcome, RowError):
            assert str(outcome).isprintable()
