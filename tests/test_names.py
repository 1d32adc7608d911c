"""Text from outside as a file name, a line, a tag and a figure's text; names below a folder."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib import cbook

from adapt.names import below, figure_text, file_name, one_line, tag
from adapt.params import InputError

TEXTS = st.text(st.characters(), max_size=200)  # surrogates included
HOSTILE = st.text(st.sampled_from("a.-/\\\x00\n\x1b$%é"), max_size=12)


@settings(max_examples=300)
@given(TEXTS | HOSTILE, st.integers(20, 100))
@example("..", 80)
@example("../../../x", 80)
@example("-rf", 80)
def test_a_file_name_is_one(text: str, limit: int) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", file_name(text, limit))
    assert len(file_name(text, limit)) <= limit


@settings(max_examples=300)
@given(HOSTILE, HOSTILE)
def test_two_texts_share_no_file_name(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)
    assert file_name(file_name(one)) != file_name(one) or file_name(one) == one


def test_a_plain_name_stays() -> None:
    assert file_name("image_12.png") == "image_12.png"
    assert file_name("a" * 80) == "a" * 80 and len(file_name("a" * 81)) == 80


@settings(max_examples=300)
@given(TEXTS, st.integers(3, 300))
def test_a_line_prints_and_is_one(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert line.isprintable() and len(line) <= limit
    line.encode()


@pytest.mark.parametrize(
    "text",
    ["\x1b[2J", "\x9b2J", "a\rb", "a\nb", "a\u2028b", "\u202eabc", "\u2066", "\udcff", "\x7f"],
)
def test_what_steers_a_terminal_is_shown_as_its_code(text: str) -> None:
    assert one_line(text) == text.encode("unicode_escape").decode()


@settings(max_examples=300)
@given(TEXTS)
def test_a_tag_keeps_its_lines_and_nothing_else_that_steers(text: str) -> None:
    assert all(line.isprintable() for line in tag(text).split("\n"))
    assert len(tag(text, 10)) <= 10


def test_a_tag_holds_no_password() -> None:
    assert tag("one\r\nhttp://me:hun/ter2@host/x\x1b") == "one\nhttp://host/x\\x1b"


@settings(max_examples=300)
@given(TEXTS | HOSTILE)
def test_no_formula_starts_in_a_figures_text(text: str) -> None:
    drawn = figure_text(text)
    assert not cbook.is_math_text(drawn)
    assert drawn.replace(r"\$", "$").replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["a", "a/b.txt", "é/ü", "..a", "a..", " ", "a" * 255])
def test_a_name_inside_its_folder(name: str, tmp_path: Path) -> None:
    assert below(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        *("", "/abs", "//abs", "..", "../x", "a/../../x", "a/..", "./a", "a//b", "a/", "a/.", "."),
        *("a\\b", "..\\x", "a\0b", "a\nb", "a\x1b[2J", "\ud800", "a" * 256, "é" * 128),
        *("a/" * 3000 + "a", 7, None, ["a"]),
    ],
)
def test_a_name_that_leads_elsewhere(name: object, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        below(tmp_path, name)  # type: ignore[arg-type]
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_links_on_the_way_may_not_leave(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    (folder / "kept").symlink_to(folder / "in")
    (folder / "round").symlink_to(folder / "round")
    assert below(folder, "kept/x") == folder / "kept" / "x"
    for name in ("out/x", "out", "round/x", "round"):
        with pytest.raises(InputError, match=r"leads out of its folder|cannot be followed"):
            below(folder, name)


@settings(max_examples=300)
@given(HOSTILE)
def test_nothing_is_below_that_is_not(text: str) -> None:
    folder = Path("/somewhere/else")
    try:
        path = below(folder, text)
    except InputError:
        return
    assert path.resolve().is_relative_to(folder) and path != folder
