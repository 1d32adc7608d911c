"""Pictures by their content: each is decoded once, in whichever row and run it comes.

What is stored of most pictures are the bytes that came. Others, turned by EXIF or in CMYK, become
PNG, which takes a while: those are kept in the state folder, as many as there is room for.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapt.data.fingerprint import FINGERPRINT_BYTES, RECORD
from adapt.data.importing.verdicts import Verdicts
from adapt.data.pictures import Stored, normalised
from adapt.files import whole_file

ROOM = 16 << 30  # bytes of kept pictures; beyond it they are made anew in every run
_REMEMBERED = 4096  # pictures that a process knows without asking the store


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a picture: `digest` (SHA-256) is of what is stored of it.

    `came` is the hash of its bytes as they came; `is_kept` says that they are what is stored.
    `about` are lines: the format and the mode that came, and the notes of `pictures.Stored`.
    """

    came: bytes
    digest: bytes
    is_kept: bool
    fingerprint: bytes
    about: str = ""

    def packed(self) -> bytes:
        """As the store of verdicts has it, by `came`."""
        return self.digest + bytes([self.is_kept]) + self.fingerprint + self.about.encode()

    @classmethod
    def unpacked(cls, came: bytes, content: bytes) -> "Seen":
        """The reverse of `packed`."""
        end = 33 + FINGERPRINT_BYTES
        about = content[end:].decode()
        return cls(came, content[:32], bool(content[32]), content[33:end], about)


class Gallery:
    """The pictures that one process has met, by their content."""

    def __init__(self, verdicts: Verdicts, folder: Path, version: bytes, room: int) -> None:
        self._verdicts, self._folder, self._version = verdicts, folder, version
        self._room = room  # bytes that may be kept
        self._seen: OrderedDict[bytes, Seen] = OrderedDict()
        self._new: list[Seen] = []
        self._last = (b"", hashlib.sha256(version).digest())

    def came(self, content: bytes) -> bytes:
        """The key of a picture: a hash of its bytes as they came, and of the code that reads it."""
        if content is not self._last[0]:  # asked several times in a row
            self._last = (content, hashlib.sha256(self._version + content).digest())
        return self._last[1]

    def seen(self, content: bytes) -> Seen:
        """What is known of a picture, which is decoded where nothing is; else `PictureProblem`."""
        came = self.came(content)
        if (seen := self._seen.get(came)) is None:
            known = self._verdicts.picture(came)
            seen = Seen.unpacked(came, known) if known else self._decoded(came, content)
            self._seen[came] = seen
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return seen

    def measured(self, content: bytes) -> Stored:
        """What validation asks of a picture: its digest and size; the content is left out."""
        seen = self.seen(content)
        size = size_of(seen.fingerprint)
        return Stored(
            content=b"",
            digest=seen.digest.hex(),
            size=size,
            mode="",
            format="",
            notes=(),
            fingerprint=seen.fingerprint,
        )

    def stored(self, content: bytes) -> bytes:
        """What is stored of a picture."""
        seen = self.seen(content)
        if seen.is_kept:
            return content
        path = self._path(seen.came)
        made = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(made).digest() != seen.digest:  # none was kept, or it was damaged
            made = normalised(content).content
        assert hashlib.sha256(made).digest() == seen.digest, f"{path}: is another picture"
        return made

    def taken(self) -> list[Seen]:
        """The pictures that nobody knew before, since this was asked last."""
        new, self._new = self._new, []
        return new

    def _decoded(self, came: bytes, content: bytes) -> Seen:
        stored = normalised(content)
        digest, is_kept = bytes.fromhex(stored.digest), stored.content == content
        if not is_kept:
            self._keep(came, stored.content)
        about = "\n".join([stored.format, stored.mode, *stored.notes])
        self._new.append(Seen(came, digest, is_kept, stored.fingerprint, about))
        return self._new[-1]

    def _keep(self, came: bytes, content: bytes) -> None:
        path = self._path(came)
        if path.is_file() or len(content) > self._room:
            return
        try:
            with whole_file(path) as partial:
                partial.write_bytes(content)
            self._room -= len(content)
        except OSError:  # a full disk: it can be made anew
            self._room = 0

    def _path(self, came: bytes) -> Path:
        return self._folder / came[:1].hex() / f"{came.hex()}.png"


def size_of(fingerprint: bytes) -> tuple[int, int]:
    """Width and height of the picture that a fingerprint is of."""
    width, height = np.frombuffer(fingerprint, RECORD)["size"][0].tolist()
    return width, height


def room(folder: Path) -> int:
    """Bytes of pictures that may be kept besides those that are."""
    return ROOM - sum(path.stat().st_size for path in folder.glob("*/*.png"))


def tidy(folder: Path, used: set[bytes]) -> None:
    """Where there is no more room, forget the pictures that the last run did not use."""
    if room(folder) < ROOM // 8:
        for path in folder.glob("*/*.png"):
            if bytes.fromhex(path.stem) not in used:
                path.unlink(missing_ok=True)
