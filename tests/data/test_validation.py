"""What is refused and why: each fault with its file and row, while the rows around it are kept."""

import io
import json
import math
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adapt.data.kinds import kind_of
from adapt.data.pictures import open_picture
from adapt.data.schema import Example, Preference, SceneObject, Turn, Vocabulary
from adapt.data.texts import MAX_ID, MAX_TEXT, identifier, said
from adapt.data.validation import RowError, checked
from adapt.params import InputError
from tests.support.published import as_lines, as_parquet, imported, in_row, picture

WORDS = Vocabulary(objects={"house": ("house",), "tree": ("tree",)}, colours=("red",))


def flat(number: int, **changes: Any) -> dict[str, Any]:
    """A row of the flattest published form, its picture beside it."""
    good = {
        "ds_name": "drawn",
        "idx": f"r{number}",
        "image": "images/a.png",
        "question": "What is there?",
        "chosen": "A cup.",
        "rejected": "A cat.",
    }
    return good | changes


def refusal(folder: Path, broken: dict[str, Any] | bytes) -> str:
    """Why the second of three rows is refused; the first and the third are kept."""
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "a.png").write_bytes(picture(0))
    lines = [json.dumps(flat(0)), broken, json.dumps(flat(2))]
    content = b"".join(
        (
            line
            if isinstance(line, bytes)
            else json.dumps(line).encode()
            if isinstance(line, dict)
            else line.encode()
        )
        + b"\n"
        for line in lines
    )
    (folder / "pairs.jsonl").write_bytes(content)
    _, rows, refused = imported(folder)
    assert [row.id for row in rows] == ["r0", "r2"]
    (error,) = refused
    assert (error.file, error.row) == ("pairs.jsonl", 2) and str(error).isprintable()
    assert str(error).startswith("pairs.jsonl: row 2 (id ") and len(str(error)) < 600
    return error.reason


# ---- texts, ids, answers -------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an id with a path": ({"idx": "../../r1"}, "id: '../../r1' is a path"),
    "an id with a path of Windows": ({"idx": "a\\b"}, r"id: 'a\\b' is a path"),
    "an id that is a folder": ({"idx": ".."}, "id: '..' is a path"),
    "an id with an end of a line": ({"idx": "a\nb"}, r"id: 'a\nb' has a character that cannot"),
    "an id with an escape sequence": ({"idx": "\x1b[31mred"}, r"id: '\x1b[31mred' has a character"),
    "an id that turns the text around": (
        {"idx": "a\u202egpj"},
        r"id: 'a\u202egpj' has a",
    ),
    "an id too long for a file": ({"idx": "x" * 201}, f"has 201 bytes, more than {MAX_ID}"),
    "an id that is a list": ({"idx": [1]}, "id: expected a text or a whole number, got [1]"),
    "an id that is true": ({"idx": True}, "id: expected a text or a whole number, got True"),
    "an id with a fraction": ({"idx": 1.5}, "id: expected a text or a whole number, got 1.5"),
    "no chosen answer": ({"chosen": None}, "chosen: column chosen is missing or empty"),
    "an empty chosen answer": ({"chosen": ""}, "chosen: is empty"),
    "a blank rejected answer": ({"rejected": " \n\t"}, "rejected: is empty"),
    "an answer of spaces without width": ({"rejected": "\u200b\ufeff"}, "rejected: is empty"),
    "equal answers": ({"rejected": "A cup.\n"}, "rejected: is the same as chosen"),
    "an answer that is a number": ({"chosen": 7}, "chosen: expected a text or messages, got 7"),
    "a question that is a number": (
        {"question": 7},
        "question: expected a text or messages",
    ),
    "an empty question": ({"question": "<image>\n"}, "question: is empty"),
    "a picture in an answer": ({"chosen": "It is <image>."}, "chosen: says <image>, the place"),
    "more tags than pictures": (
        {"question": "<image><image> What?"},
        "question: says <image> 2 times, but the row has 1 pictures",
    ),
    "a video": ({"question": "<video>\nWhat?"}, "question: says <video>; only pictures are read"),
    "a column of videos": ({"videos": ["a.mp4"]}, "videos: the row is about a video or sound"),
    "a control character": ({"chosen": "a\x1b[2Jb"}, "chosen: has the control character U+001B"),
    "a zero byte": ({"question": "a\0"}, "question: has the control character U+0000 at 2"),
    "text of another encoding": (
        {"chosen": "the cup\x92s handle"},
        "U+0092 at 8 (saved in one encoding, read in another?)",
    ),
    "a text without end": ({"chosen": "a" * (MAX_TEXT + 1)}, "chosen: has more than 100,000 char"),
    "no picture": ({"image": None}, "images: has no picture; rows of text alone are not read"),
    "an empty list of pictures": ({"image": []}, "images: has no picture"),
    "too many pictures": ({"image": ["images/a.png"] * 17}, "images: has more than 16 pictures"),
    "a missing picture": ({"image": "images/b.png"}, "image: 'images/b.png' is not there"),
    "a picture outside": ({"image": "../secret.png"}, "image: '../secret.png' leads out of"),
    "an address": ({"image": "https://example.org/a.png"}, "image: 'https://example.org/a.png' is"),
    "a name with an escape sequence": ({"image": "\x1b[2J.png"}, "has a control character"),
    "bytes that are none": ({"image": {"bytes": "%%%", "path": None}}, "image: the picture in"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_refused_with_its_place_and_the_others_are_kept(fault, tmp_path):
    changes, reason = BAD[fault]
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(picture(1))
    assert reason in refusal(folder, flat(1, **changes))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(1))
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    absolute = str(tmp_path / "secret.png")
    for name in ("images/link.png", absolute):
        assert "leads out of" in refusal(tmp_path / "data", flat(1, image=name))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"ds_name": "drawn", "question": "What', "is no JSON"),
        (b"[1, 2]", "is [1, 2], not an object with columns"),
        (json.dumps(flat(1), ensure_ascii=False).encode().replace(b"cup", b"caf\xe9"), "not UTF-8"),
        (b'{"chosen": ' + b"[" * 50_000 + b"}", "nested"),
        (b'{"chosen": "\\ud800"}', "half a character"),
        (b'{"idx": ' + b"1" * 5000 + b"}", "a number of thousands of digits"),
    ],
)
def test_a_line_that_cannot_be_read_costs_itself_alone(line, reason, tmp_path):
    assert reason in refusal(tmp_path, line)


def test_bad_json_inside_a_column_is_refused_with_its_place(tmp_path):
    good = {"question": "q", "chosen": "a", "rejected": "b"}
    texts = [json.dumps(good), '{"question": "q", "chosen": "a"', json.dumps(good)]
    image = in_row(picture(0))
    rows = [{"text": text, "image": image, "idx": n} for n, text in enumerate(texts)]
    as_parquet(tmp_path / "a.parquet", rows)
    _, kept, (error,) = imported(tmp_path)
    assert [row.id for row in kept] == ["0", "2"]
    assert str(error).startswith("a.parquet: row 2 (id missing): text: not JSON (Expecting")
    assert error.column == "text"


def test_a_byte_order_mark_and_windows_ends_of_lines_do_no_harm(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    rows = [flat(n, image="a.png", chosen="A cup.\r\nAnd a fork.\r") for n in range(2)]
    lines = "".join(json.dumps(row) + "\r\n" for row in rows)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    _, kept, refused = imported(tmp_path)
    assert not refused
    assert [row.chosen for row in kept] == ["A cup.\nAnd a fork.\n"] * 2


def test_words_of_every_script_are_kept_as_they_are(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    said_ = ["Ein „kleiner“ Löffel.", "勺子在桌子上。", "ملعقة", "\U0001f944 👩‍🍳"]
    as_lines(tmp_path / "a.jsonl", [flat(n, image="a.png", chosen=t) for n, t in enumerate(said_)])
    _, kept, refused = imported(tmp_path)
    assert [row.chosen for row in kept] == said_ and not refused


# ---- pictures ------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def huge(side: int) -> bytes:
    """A PNG that says it has side x side pixels, and whose pixels are all white."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + crc

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    row = b"\0" + b"\xff" * -(-side // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


REFUSED_PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "words": (lambda: b"hello, I am no picture at all", "image: is not an image file that is read"),
    "nothing": (lambda: b"", "image: is empty"),
    "truncated": (lambda: picture(0, size=(90, 90))[:-60], "image: does not decode ("),
    "a truncated JPEG": (lambda: picture(0, "JPEG")[:-200], "image: does not decode ("),
    "20,000 x 20,000 pixels": (lambda: huge(20_000), "image: has more than 67,108,864 pixels"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "image: is EPS, not one of JPEG"),
    "floats": (
        lambda: encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
        "image: has floating-point numbers",
    ),
}


@pytest.mark.parametrize("fault", REFUSED_PICTURES)
def test_a_picture_that_cannot_be_seen_is_refused(fault, tmp_path):
    make, reason = REFUSED_PICTURES[fault]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.png").write_bytes(make())
    assert reason in refusal(tmp_path, flat(1, image="images/bad.png"))


def _animated() -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


TAKEN_PICTURES: dict[str, Callable[[], bytes]] = {
    "animated": _animated,
    "16 bits": lambda: encoded(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PNG"),
    "CMYK": lambda: encoded(Image.new("CMYK", (8, 8), (0, 90, 90, 0)), "JPEG"),
    "a palette": lambda: encoded(Image.new("RGB", (8, 8), "red").convert("P"), "PNG"),
    "transparent": lambda: encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"),
}


@pytest.mark.parametrize("kind", TAKEN_PICTURES)
def test_unusual_pictures_are_stored_as_everybody_sees_them(kind, tmp_path):
    content = TAKEN_PICTURES[kind]()
    (tmp_path / "a.png").write_bytes(content)
    as_lines(tmp_path / "a.jsonl", [flat(0, image="a.png")])
    _, (row,), refused = imported(tmp_path)
    assert not refused
    plain = Image.open(io.BytesIO(row.images[0])).convert("RGB")
    assert np.array_equal(np.asarray(plain), np.asarray(open_picture(content)))


def turned(orientation: int, width: int = 40, height: int = 20) -> bytes:
    """A picture whose upper left quarter is red where the camera was held as EXIF says."""
    upright = Image.new("RGB", (width, height), "white")
    upright.paste("red", (0, 0, width // 2, height // 2))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(upright.transpose(undo[orientation]), "PNG", exif=exif)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_is_stored_upright_and_boxes_lie_on_it(orientation, tmp_path):
    (tmp_path / "a.png").write_bytes(turned(orientation))
    turns = [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "This."}]
    row = {"messages": turns, "rejected_response": "That.", "images": ["a.png"]}
    things = {"ref": ["patch"], "bbox": [[0, 0, 20, 10]], "bbox_type": "real"}
    as_lines(tmp_path / "a.jsonl", [row | {"objects": things}])
    _, (kept,), refused = imported(tmp_path)
    assert not refused and kept.objects is not None
    stored = Image.open(io.BytesIO(kept.images[0]))
    assert stored.size == (40, 20) and not stored.getexif().get(274)
    x0, y0, x1, y1 = kept.objects[0].box or (0, 0, 0, 0)
    inside = stored.convert("RGB").crop((int(40 * x0), int(20 * y0), int(40 * x1), int(20 * y1)))
    assert inside.size == (20, 10) and inside.getcolors() == [(200, (255, 0, 0))]


# ---- one row by itself ---------------------------------------------------------------------------


def raw(**changes: Any) -> dict[str, Any]:
    good = {
        "id": "a-0",
        "image_id": "a",
        "images": [{"bytes": picture(0), "path": None}],
        "question": "Describe the picture.",
        "chosen": "A house.",
        "rejected": "A hut.",
    }
    return good | changes


def outcome(
    row: dict[str, Any], kind: Any = "preference", vocabulary: Vocabulary | None = None
) -> Example | Preference | RowError:
    def read(name: str) -> bytes:
        raise InputError(f"{name} is not there")

    return checked(row, file="a", row=3, kind=kind, picture=read, vocabulary=vocabulary)


def test_a_row_without_ids_gets_those_of_its_content():
    row = raw(id=None, image_id=None)
    first, again = outcome(row), outcome(dict(reversed(row.items())))
    other = outcome(row | {"chosen": "A home."})
    assert isinstance(first, Preference) and first == again and isinstance(other, Preference)
    assert len(first.id) == 16 and first.id != other.id and first.image_id == other.image_id


def test_a_degraded_picture_makes_equal_answers_a_pair():
    other = [{"bytes": picture(1), "path": None}]
    row = outcome(raw(rejected="A house.", rejected_images=other))
    assert isinstance(row, Preference) and row.rejected_images == (picture(1),)
    same = outcome(raw(rejected="A house.", rejected_images=raw()["images"]))
    assert isinstance(same, RowError) and same.reason == "rejected: is the same as chosen"
    two = outcome(raw(rejected_images=other * 2))
    assert isinstance(two, RowError) and "has 2 pictures, images 1" in two.reason


def thing(**changes: Any) -> list[dict[str, Any]]:
    return [{"name": "house", "colour": "red", "box": [0.1, 0.2, 0.5, 1.0]} | changes]


@pytest.mark.parametrize(
    ("given_", "known"),
    [
        (None, None),
        ([], ()),
        (thing(), (SceneObject(name="house", colour="red", box=(0.1, 0.2, 0.5, 1.0)),)),
        ([{"name": "fire truck"}], (SceneObject(name="fire truck", colour="", box=None),)),
        (
            thing(box=[10, 15, 40.4, 30], unit="pixels"),
            (SceneObject(name="house", colour="red", box=(0.25, 0.5, 1.0, 1.0)),),
        ),
    ],
)
def test_truth_has_three_states(given_, known):
    row = outcome(raw(objects=given_))
    assert isinstance(row, Preference) and row.objects == known
    asked = outcome(raw(objects=given_, answer="A house."), "evaluation")
    assert isinstance(asked, Example) and asked.objects == known


BAD_TRUTH: dict[str, tuple[dict[str, Any], str]] = {
    "order": ({"objects": thing(box=[0.5, 0.2, 0.1, 1])}, "is not 0 <= x0 < x1 <= 1, same for y"),
    "pixels": ({"objects": thing(box=[10, 20, 30, 40])}, "[10, 20, 30, 40] is not 0 <= x0"),
    "outside": (
        {"objects": thing(box=[0, 0, 41, 30], unit="pixels")},
        "[0, 0, 41, 30] is not inside 40 x 30 pixels",
    ),
    "NaN": ({"objects": thing(box=[math.nan, 0, 1, 1])}, "is not 0 <= x0"),
    "a number too large": ({"objects": thing(box=[0, 0, 1, 10**400])}, "is not 0 <= x0"),
    "three numbers": ({"objects": thing(box=[0, 0, 1])}, "has not four numbers"),
    "a hole": ({"objects": thing(box=[0, 0, 1, None])}, "has not four numbers"),
    "text": ({"objects": thing(box=["0", 0, 1, 1])}, "has not four numbers"),
    "no list": ({"objects": {"name": "house"}}, "objects: expected a list, got {'name'"),
    "no object": ({"objects": [None]}, "objects: expected an object, got None"),
    "a name that is none": ({"objects": thing(name="")}, "'' is not a lower-case word"),
    "a name in capitals": ({"absent": ["Tree"]}, "absent: 'Tree' is not a lower-case word"),
    "a name with a line": ({"absent": ["tree\nb"]}, r"absent: 'tree\nb' is not a lower-case word"),
    "both": ({"objects": thing(), "absent": ["house"]}, "absent: 'house' is also in objects"),
    "a picture too many": ({"objects": thing(picture=1)}, "1 is not the number of a picture"),
    "too many": ({"absent": ["tree"] * 1001}, "absent: has more than 1000 entries"),
    "a score of words": ({"chosen_score": "good"}, "chosen_score: expected a number, got 'good'"),
    "an endless score": ({"rejected_score": math.inf}, "rejected_score: is infinite"),
    "an unknown kind": ({"kind": "vqa"}, "kind: 'vqa' is not one of describe, exists, colour"),
    "no yes or no": ({"kind": "exists"}, "begins with yes or no, not 'a'"),
    "turns of one": ({"history": [{"question": "q"}]}, "history: expected turns with question"),
}


@pytest.mark.parametrize("fault", BAD_TRUTH)
def test_bad_truth_is_refused(fault):
    changes, reason = BAD_TRUTH[fault]
    error = outcome(raw(**changes))
    assert isinstance(error, RowError)
    assert str(error).startswith("a: row 3 (id a-0): ") and reason in error.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objects": thing(name="huose")}, "objects: 'huose' is not in vocabulary.json"),
        ({"objects": thing(colour="teal")}, "objects: colour 'teal' is not in vocabulary.json"),
        ({"absent": ["tre"]}, "absent: 'tre' is not in vocabulary.json"),
    ],
)
def test_a_vocabulary_closes_the_list_of_names(changes, reason):
    error = outcome(raw(**changes), vocabulary=WORDS)
    assert isinstance(error, RowError) and error.reason == reason
    assert isinstance(outcome(raw(objects=thing()), vocabulary=WORDS), Preference)


@pytest.mark.parametrize(
    ("found", "score"), [(None, None), ("", None), (math.nan, None), (3, 3.0), ("4.5", 4.5)]
)
def test_a_score_that_is_not_a_number_was_not_given(found, score):
    row = outcome(raw(chosen_score=found))
    assert isinstance(row, Preference) and row.chosen_score == score


@pytest.mark.parametrize(
    ("history", "question", "kept"),
    [
        ([], "<image>\nIs it red?", ([], "Is it red?")),
        ([], "Is it red?\n<image>", ([], "Is it red?\n<image>")),
        (["<image>\nHello."], "Is it red?", (["Hello."], "Is it red?")),
        (["Hello."], "<image>\nIs it red?", (["Hello."], "<image>\nIs it red?")),
    ],
)
def test_tags_say_where_a_picture_stands(history, question, kept):
    turns = [{"question": text, "answer": "Yes."} for text in history]
    row = outcome(raw(history=turns, question=question))
    assert isinstance(row, Preference)
    assert ([turn.question for turn in row.history], row.question) == kept
    assert all(isinstance(turn, Turn) for turn in row.history)


def test_a_path_may_have_several_places():
    row = raw(images=[{"bytes": None, "path": ["a.png", "b.png"]}])
    found = checked(
        row,
        file="a",
        row=1,
        kind="preference",
        picture=lambda name: picture(0) if name == "b.png" else outcome_of(name),
    )
    assert isinstance(found, Preference)
    error = outcome(row)
    assert isinstance(error, RowError) and error.reason == "image: b.png is not there"


def outcome_of(name: str) -> bytes:
    raise InputError(f"{name} is not there")


def test_an_error_travels_between_processes_and_never_harms_a_terminal():
    error = RowError("a\x1b.json", 3, "\x1b[31m" * 100, "id: '\x1b' " + "x" * 1000)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.row, again.column) == (str(error), 3, "id")
    assert str(error).isprintable() and len(str(error)) < 600


@given(st.text())
@settings(deadline=None)
def test_an_id_is_a_good_name_of_a_file_or_refused(text):
    try:
        name = identifier(text, "id")
    except InputError as error:
        assert str(error).isprintable()
        return
    assert name == "" or (Path("x") / name).parent == Path("x")
    assert len(name.encode()) <= MAX_ID and name.isprintable()


@given(st.text())
@settings(deadline=None)
def test_a_text_that_is_taken_can_be_written(text):
    try:
        kept = said(text, "chosen")
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert kept.strip() and kept.encode() and "\r" not in kept and "\0" not in kept


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("Is there a dog in the image?", "Yes", "exists"),
        ("Is there a dog?", "no, there is none", "exists"),
        ("Is there a dog?", "**Yes**, a small one.", "exists"),
        ("How many are there?", "No fewer than five.", "other"),
        ("Describe this image in detail.", "No people are in it.", "describe"),
        ("What can you see?", "A dog.", "describe"),
        ("Please provide a detailed description of the photo", "A dog.", "describe"),
        ("What is in the picture?", "A dog.", "describe"),
        ("What colour is the dog?", "Brown.", "other"),
        ("Yesterday?", "Yesterday it rained.", "other"),
    ],
)
def test_the_kind_of_a_question_is_guessed(question, answer, kind):
    assert kind_of(question, answer) == kind
