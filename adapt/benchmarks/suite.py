"""What a benchmark asks: its questions with pictures that are read when they are looked at.

A question is an `Example`, so that whatever asks the questions of a split asks these. Its kind says
what comes back: "describe" a text that is counted for objects, "exists" a yes or a no, "other"
anything else.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from adapt.benchmarks.settings import Benchmark, Name
from adapt.data.lots import Unit, alone, drawn
from adapt.data.schema import Example
from adapt.params import InputError, require
from adapt.score.content import read_bytes
from adapt.score.rows import Row

SHORT = "\nAnswer the question using a single word or phrase."
"""What LLaVA-1.5 (arXiv 2310.03744) is asked after a question with a short answer."""
YES_OR_NO = 128  # tokens: what LLaVA's loader of short questions allows
DESCRIPTION = 512  # tokens: OPERA's, which many papers' descriptions are limited to
LONGEST_NAME = 1000  # characters; what is longer is the picture itself
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The questions of one benchmark, in its order; `label` is what its metrics are called.

    `max_new_tokens` of each kind of question; `records` are the benchmark's own rows by id, of
    those it writes answers into; `notes` say what is not as published; `fingerprint` names the
    files that were read and counts the pictures.
    """

    label: str
    name: Name
    questions: Sequence[Example]
    max_new_tokens: Mapping[str, int]
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: Mapping[str, Any] = field(default_factory=dict)


class Files(Sequence[bytes]):
    """Pictures that lie in files; a file is read when its picture is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return Files(self.paths[index])
        return read_bytes(self.paths[index])

    def __reduce__(self) -> tuple[type[tuple[bytes, ...]], tuple[list[bytes]]]:
        """Whoever gets them in another process, perhaps on another machine, gets what they hold."""
        return tuple, ([*self],)


def question(
    identity: str, image: str, images: Sequence[bytes], kind: str, text: str, **known: Any
) -> Example:
    """A question of a benchmark; `known` is what else is true of it (answer, objects, absent)."""
    unknown = {"answer": "", "history": (), "objects": None, "absent": None}
    asked = {"id": identity, "image_id": image, "images": images, "kind": kind, "question": text}
    return Example(**{**unknown, **asked, **known})


def shortened(benchmark: Benchmark, text: str) -> str:
    """A question that wants one word, as it is asked."""
    return text + (SHORT if benchmark.suffix is None else benchmark.suffix)


def limited(benchmark: Benchmark, lengths: Mapping[str, int]) -> Mapping[str, int]:
    """The longest answer of each kind of question: the benchmark's, or the one that is named."""
    longest = benchmark.max_new_tokens
    return lengths if longest is None else dict.fromkeys(lengths, longest)


# ---- pictures ----------------------------------------------------------------------------------


def folder_of(benchmark: Benchmark, usual: Sequence[Path]) -> list[Path]:
    """The folders where pictures are looked for: the one that is named, or the usual ones."""
    if benchmark.images is None:
        return [folder for folder in usual if folder.is_dir()]
    folder = Path(benchmark.images)
    require(folder.is_dir(), f"{benchmark.called}: images {folder}", "is no folder")
    return [folder]


def located(folders: Sequence[Path], names: Iterable[str]) -> dict[str, Path]:
    """The files of these names, of those that are there; the first folder that has one counts."""
    here: dict[str, Path] = {}
    for folder in reversed(folders):
        here |= {path.name: path for path in folder.iterdir()}
    return {name: here[name] for name in names if name in here}


def embedded(content: str, where: str) -> bytes:
    """A picture that stands in a row as base64."""
    try:
        return base64.b64decode(content.partition("base64,")[2] or content, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{where}: the picture is neither a file's name nor base64") from None


class Pictures:
    """The pictures of a file of questions that holds them as base64 or names them.

    `columns`: where a row may have one. A name is a file's, the end of an address, or an id.
    """

    def __init__(
        self, benchmark: Benchmark, file: Path, asked: Mapping[str, Row], columns: Sequence[str]
    ) -> None:
        usual = [file.parent / name for name in ("images", "image", "val2014", ".")]
        self.looked = folder_of(benchmark, usual)
        self._asked, self._columns = asked, columns
        self._stems = {
            path.stem: path
            for folder in reversed(self.looked)
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES
        }
        self.missing: dict[str, str] = {}

    def of(self, identity: str) -> Sequence[bytes]:
        """The picture of one question; a missing one is noted."""
        row = self._asked[identity]
        names = [row.id(name) for name in self._columns if row.has(name)]
        for name in names:
            if len(name) > LONGEST_NAME:
                return (embedded(name, row.where),)
            stem = Path(name.rpartition("/")[2]).stem
            if stem in self._stems:
                return Files([self._stems[stem]])
        self.missing[identity] = names[0] if names else "no picture is named"
        return ()


def without_pictures(cells: Mapping[str, Any]) -> dict[str, Any]:
    """A row without base64, which an answer need not carry along."""
    return {
        name: value
        for name, value in cells.items()
        if not (name == "image" and len(str(value)) > LONGEST_NAME)
    }


# ---- which questions are asked -----------------------------------------------------------------


def finished(
    suite: Suite,
    benchmark: Benchmark,
    missing: Mapping[str, str],
    looked: Sequence[Path],
    unit: Unit = alone,
) -> Suite:
    """The suite with what `limit` and `partial` leave of it.

    `missing`: the picture of each question that has none, by the question's id; `looked`: where
    pictures were looked for; `unit`: what a question is asked with or not at all. Raises
    InputError, in one line, for missing pictures and for a suite without questions.
    """
    asked, notes = list(suite.questions), list(suite.notes)
    if benchmark.limit and benchmark.limit < len(asked):
        asked = drawn(asked, benchmark.limit, benchmark.seed, unit)
        notes.append(f"{len(asked)} of {len(suite.questions)} questions, drawn (limit)")
    lacking = [one for one in asked if one.id in missing]
    if lacking:
        names = {missing[one.id] for one in lacking}
        some = ", ".join(sorted(names)[:3])
        places = " and ".join(map(str, looked)) or f"a folder beside {benchmark.path}"
        lost = f"missing pictures: {len(names)}, of {len(lacking)} questions; not in {places}"
        advice = "name their folder (images), or ask the others alone (partial: true)"
        require(benchmark.partial, suite.label, f"{lost} ({some}); {advice}")
        without = {unit(one) for one in lacking}
        asked = [one for one in asked if unit(one) not in without]
        notes.append(f"partial, {lost}")
    require(bool(asked), f"{suite.label}: {benchmark.path}", "no question is left to ask")
    pictures = {"questions": len(asked), "pictures": len({one.image_id for one in asked})}
    fingerprint = {**suite.fingerprint, **pictures}
    return replace(suite, questions=asked, notes=tuple(notes), fingerprint=fingerprint)


def fingerprint(paths: Sequence[Path]) -> dict[str, Any]:
    """The SHA-256 of each file that the questions were read from."""
    named = {str(path): hashlib.sha256(read_bytes(path)).hexdigest() for path in paths}
    return {"files": named}


# ---- files of answers --------------------------------------------------------------------------


def as_json(table: Iterable[Mapping[str, Any]]) -> str:
    """One list, an object a line."""
    lines = [json.dumps(row, ensure_ascii=False) for row in table]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def as_lines(table: Iterable[Mapping[str, Any]]) -> str:
    """JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
