"""Text from outside as a file name, a line, a tag or a figure's text: one function for each.

Ids, questions, answers, names on a storage and texts in a registry are anybody's. They may hold
slashes, escape sequences that move a terminal's cursor, line breaks that forge a line of a log, or
half a formula. Whatever is made of them goes through here. But for `below`, which refuses, every
function answers for every text.
"""

import hashlib
import os
import re
import unicodedata
from pathlib import Path

from adapt.addresses import shown
from adapt.params import InputError

NAME_BYTES = 255  # of one part of a path, on every file system in use
PATH_BYTES = 3000  # of a name with its folders: a path may have 4096
DIGEST = 12  # hex digits that keep changed names apart
_CHANGED = re.compile(rf"-[0-9a-f]{{{DIGEST}}}$")


def file_name(text: str, limit: int = 80) -> str:
    """A file name of at most `limit` characters: letters, digits and . _ - of ASCII.

    Two texts never share one: where a text has to be changed, a piece of its sha256 follows, also
    where it already looks as if one did.

    >>> file_name("scene#1"), file_name("image_12.png")
    ('scene_1-9ecedbbabb26', 'image_12.png')
    """
    kept = re.sub(r"[^A-Za-z0-9._-]", "_", text)
    kept = re.sub(r"^[.-]", "_", kept) or "_"
    if kept == text and len(kept) <= limit and not _CHANGED.search(kept):
        return kept
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    return f"{kept[: max(1, limit - DIGEST - 1)]}-{digest}"


def one_line(text: str, limit: int = 500) -> str:
    r"""One printable line of at most `limit` characters, for messages, logs and terminals.

    What does not print, moves the cursor or turns the direction of writing is shown as its code.

    >>> one_line("a\x1b[2J\nINFO forged\u202e")
    'a\\x1b[2J\\nINFO forged\\u202e'
    """
    # No code is shorter than its character, so nothing behind the limit can be shown.
    line = "".join(map(_printed, text[: limit + 1]))
    return line if len(line) <= limit else f"{line[: max(0, limit - 3)]}..."


def tag(text: str, limit: int = 5000) -> str:
    """`text` as a tag or parameter: lines of `one_line`, without credentials of its addresses."""
    lines = shown(text[: 4 * limit]).replace("\r\n", "\n").split("\n")
    joined = "\n".join("".join(map(_printed, line)) for line in lines)
    return joined if len(joined) <= limit else f"{joined[: max(0, limit - 3)]}..."


def figure_text(text: str, limit: int = 300) -> str:
    r"""`text` for a figure, line breaks kept: drawn as it stands, never as a formula.

    At most `limit` characters of it. Comes last, after any wrapping, which could part a dollar from
    the backslash before it.

    >>> figure_text(r"what costs $\foo$?")
    'what costs \\$\\foo\\$?'
    """
    drawn = "".join(char if char == "\n" else _printed(char) for char in text[: limit + 1])
    drawn = drawn if len(drawn) <= limit else f"{drawn[: max(0, limit - 3)]}..."
    return drawn.replace("$", r"\$")


def below(folder: Path, name: str) -> Path:
    """The path of the relative `name` inside `folder`, which need not exist yet.

    `InputError` for anything that leads elsewhere, now or by a link, or that no folder can hold.
    """
    problem = _problem(name)
    path = folder
    if not problem:
        path = folder / name
        try:
            inside = path.resolve().is_relative_to(folder.resolve())
            problem = "" if inside else "leads out of its folder by a link"
        except (OSError, RuntimeError):  # a circle of links, a path longer than the system takes
            problem = "cannot be followed to a file"
    if problem:
        raise InputError(f"{folder}: the name {one_line(str(name)[:200], 100)!r} {problem}")
    return path


def _problem(name: object) -> str:
    """Why `name` is no relative name of a file; nothing where it is one."""
    if not isinstance(name, str):
        return "is no text"
    if len(name) > PATH_BYTES:
        return f"is longer than {PATH_BYTES} characters"
    parts = name.split("/")
    if "\\" in name or any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        return "holds a backslash, a control character or half a character"
    if any(part in ("", ".", "..") for part in parts):
        return "is absolute or has an empty part, . or .. in it"
    too_long = max(len(os.fsencode(part)) for part in parts) > NAME_BYTES
    return f"has a part of more than {NAME_BYTES} bytes" if too_long else ""


def _printed(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
