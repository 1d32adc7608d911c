"""Answers that outlive the run that made them: a file that grows by a line an answer.

A run that is interrupted goes on behind the last whole line. One file belongs to all that an answer
depends on but its question: weights, prompt, decoding; a line belongs to a question by what is
asked, not by its id. Floats are kept bit by bit, so that tables made over two runs equal those made
in one.
"""

import base64
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapt.data.schema import Example
from adapt.generation.said import Said

VERSION = 2  # of what a line holds
DAYS = 14  # that a file is left in the folder after its last use


def question_key(row: Example, *more: object) -> str:
    """A name for what a row asks: its pictures, earlier turns, question, and `more`."""
    digest = hashlib.blake2b(digest_size=16)
    turns = [(turn.question, turn.answer) for turn in row.history]
    digest.update(repr((row.question, turns, more)).encode())
    for content in row.images:
        digest.update(hashlib.blake2b(content, digest_size=16).digest())
    return digest.hexdigest()


class Kept:
    """The kept answers of one model and decoding, by `question_key`; `path` None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self, wanted: Sequence[str]) -> dict[str, Said]:
        """The answers that are there, of the wanted ones; a torn line at the end is cut off."""
        if self._path is None or not self._path.is_file():
            return {}
        os.utime(self._path)
        names, found, whole = {*wanted}, dict[str, Said](), 0
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                key, _, content = line.partition(b" ")
                if (name := key.decode("ascii", "replace")) in names:
                    with suppress(ValueError):  # a damaged line: it is asked again
                        found[name] = _decoded(json.loads(content))
        if whole < self._path.stat().st_size:
            os.truncate(self._path, whole)
        return found

    def add(self, answers: Mapping[str, Said]) -> None:
        """Keep answers; they are on the disk when this returns."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{name} {json.dumps(_encoded(said))}\n" for name, said in answers.items())
        # In one go: what is left to ask after a kill is whole batches, which are then as they were.
        with self._path.open("ab", buffering=0) as file:
            content = memoryview("".join(lines).encode())
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())


def forget(folder: Path, now: float | None = None) -> None:
    """Remove what nobody has used for `DAYS` days: answers of models that are gone."""
    oldest = (time.time() if now is None else now) - DAYS * 24 * 3600
    for path in folder.glob("*.jsonl"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


# ---- a line ------------------------------------------------------------------------------------


def _encoded(said: Said) -> dict[str, Any]:
    values = {field.name: getattr(said, field.name) for field in dataclasses.fields(said)}
    values["heats"] = [_packed(heat_M) for heat_M in said.heats]
    values["tokens"] = {name: _packed(column_T) for name, column_T in said.tokens.items()}
    if said.maps is not None:
        values["maps"] = [[_packed(map_M) for map_M in token] for token in said.maps]
    return values


def _decoded(values: Mapping[str, Any]) -> Said:
    maps = values["maps"]
    changed = {
        "heats": [_unpacked(heat) for heat in values["heats"]],
        "tokens": {name: _unpacked(column) for name, column in values["tokens"].items()},
        "maps": None if maps is None else [[_unpacked(one) for one in token] for token in maps],
        "views": tuple(tuple(grid) for grid in values["views"]),
        "sizes": tuple(tuple(size) for size in values["sizes"]),
    }
    return Said(**{**values, **changed})


def _packed(array: Any) -> tuple[str, str]:
    array = np.asarray(array)
    return str(array.dtype), base64.b64encode(array.tobytes()).decode()


def _unpacked(packed: Sequence[str]) -> NDArray[Any]:
    kind, content = packed
    return np.frombuffer(base64.b64decode(content), dtype=kind).copy()
