"""One row at a time: what it is in the first pass, and the record that is written in the second.

A record of a file becomes raw rows (`adapt/data/formats`), their pictures are read, and each row is
checked (`adapt/data/validation.py`). The first pass leaves a `Verdict` of it, and what the store of
verdicts keeps, the checked texts among it; the second takes these texts and adds the pictures.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapt.data.columns import Kind
from adapt.data.formats.detection import Recognised
from adapt.data.importing.gallery import Gallery, Seen
from adapt.data.importing.rows import Part, Piece, Raw, RawRow, Verdict
from adapt.data.importing.verdicts import Verdicts
from adapt.data.pictures import PictureProblem
from adapt.data.readers.record import OutOfReach, Unreadable
from adapt.data.schema import Example, Preference, SceneObject, Turn, Vocabulary
from adapt.data.sources import Chunk, Source
from adapt.data.validation import MAX_PICTURES, RowError, checked
from adapt.params import InputError, require

STORE = "verdicts.sqlite"
PICTURES = "pictures"
Row = Example | Preference


@dataclass(frozen=True, kw_only=True)
class Checking:
    """How the rows of a source are checked; a small value that pickles.

    `state` is the folder of what is kept, `version` a hash of the code that checks, `room` how many
    bytes of pictures each process may keep.
    """

    source: Source
    recognised: Recognised
    vocabulary: Vocabulary | None
    state: Path
    version: bytes
    room: int

    def __call__(self, piece: Piece) -> Iterator[Part]:
        """The verdicts of all rows of a piece, a block at a time."""
        with Checker(self) as checker:
            yield from checker.parts(piece)

    def raw_rows(self, chunk: Chunk) -> Iterator[RawRow]:
        """The rows of a chunk, always the same ones in the same order."""
        for record in chunk.records():
            place = (record.file, record.row)
            if record.values is None:
                yield RawRow(*place, None, record.problem, None)
                continue
            try:
                for raw in self.recognised.mapped(record.file, record.values):
                    yield RawRow(*place, raw, "", record.values)
            except InputError as error:
                yield RawRow(*place, None, str(error), record.values)


class Checker:
    """Checks rows, and makes records of those that have been checked."""

    def __init__(self, checking: Checking) -> None:
        self._checking = checking
        self._verdicts = Verdicts(checking.state / STORE, writable=False)
        folder = checking.state / PICTURES
        self._gallery = Gallery(self._verdicts, folder, checking.version, checking.room)
        self._sent: set[bytes] = set()
        words = json.dumps(checking.vocabulary and asdict(checking.vocabulary), sort_keys=True)
        about = f"{checking.recognised.format}\n{words}".encode()
        self._about = hashlib.sha256(checking.version + about).digest()

    def __enter__(self) -> "Checker":
        return self

    def __exit__(self, *_: object) -> None:
        self._verdicts.close()

    # ---- the first pass --------------------------------------------------------------------------

    def parts(self, piece: Piece) -> Iterator[Part]:
        """The verdicts of a piece, a block at a time."""
        part = Part()
        for number, row in enumerate(self._checking.raw_rows(piece.chunk)):
            if number // piece.block % piece.stripes != piece.stripe:
                continue
            part.verdicts.append(self._verdict(row, part))
            if len(part.verdicts) == piece.block:
                yield part
                part = Part()
        if part.verdicts:
            yield part

    def _verdict(self, row: RawRow, part: Part) -> Verdict:
        place = Verdict(row.file, row.row, row.problem)
        if row.raw is None:
            part.checked += 1
            return place
        place = place._replace(id=_short(row.raw.get("id")))
        # 1. Its pictures as they come. A row of which one cannot be read has no key.
        if (raw := self._with_contents(row.raw, row.file)) is None:
            part.checked += 1
            reason = self._checked(row.file, row.raw).get("reason", "was changed while it was read")
            return place._replace(reason=reason)
        # 2. What an earlier run has found, or what there is to find now.
        key = self._key(raw, row.file)
        if (kept := self._verdicts.row(key)) is None:
            self._look_at(raw)
            kept = json.dumps(self._checked(row.file, raw), ensure_ascii=False).encode()
            part.checked += 1
            part.new_rows.append((key, kept))
        known = json.loads(kept)
        part.new_pictures += [(one.came, one.packed()) for one in self._gallery.taken()]
        if "reason" in known:
            return place._replace(reason=known["reason"], key=key)
        # 3. What the decisions need: digests of the pictures, and each fingerprint once.
        seen = [self._gallery.seen(content) for content in _contents(raw, known)]
        part.seen += [one for one in seen if one.digest not in self._sent]
        self._sent.update(one.digest for one in seen)
        split = _short(row.raw.get("split"))
        return _verdict(place, known, tuple(seen))._replace(key=key, split=split)

    def _look_at(self, raw: Raw) -> None:
        """Decode the pictures: what is wrong with one validation tells, other troubles end here."""
        for one in (*raw["images"], *raw["rejected_images"]):
            with suppress(PictureProblem):
                self._gallery.seen(one["bytes"])

    def _with_contents(self, raw: Raw, file: str) -> Raw | None:
        """The row with its pictures' bytes in place of their names; None where one is missing."""
        try:
            read = {name: self._read(raw.get(name), file) for name in _PICTURES}
        except OutOfReach:  # no fault of the row
            raise
        except InputError:
            return None
        return {**raw, **read}

    def _read(self, found: Any, file: str) -> list[dict[str, Any]]:
        found = () if found is None else found
        is_list = isinstance(found, list | tuple) and len(found) <= MAX_PICTURES
        is_known = is_list and all(isinstance(one, Mapping) for one in found)
        require(is_known, "images", "not a list of pictures")
        contents = []
        for one in found:
            content, path = one.get("bytes"), one.get("path")
            places = path if isinstance(path, list | tuple) else [path]
            contents.append(content or self._first(places, file))
        require(all(isinstance(one, bytes) for one in contents), "images", "expected bytes")
        return [{"bytes": content, "path": None} for content in contents]

    def _first(self, places: Sequence[str], file: str) -> bytes:
        for place in places[:-1]:
            with suppress(Unreadable):
                return self._checking.source.picture(place, file)
        require(bool(places) and isinstance(places[-1], str), "image", "has neither bytes nor path")
        return self._checking.source.picture(places[-1], file)

    def _key(self, raw: Raw, file: str) -> bytes:
        """A hash of all that the row says, its pictures by their own hashes, and of its kind."""
        digest = hashlib.sha256(self._about + self._kind(file).encode())
        texts = {name: value for name, value in raw.items() if name not in _PICTURES}
        digest.update(json.dumps(texts, sort_keys=True, default=repr).encode("utf-8", "replace"))
        for name in _PICTURES:
            found = raw[name] or ()
            digest.update(len(found).to_bytes(4, "big"))
            for one in found:
                digest.update(self._gallery.came(one["bytes"]))
        return digest.digest()

    def _checked(self, file: str, raw: Raw) -> dict[str, Any]:
        """The checked row without its pictures, or {"reason"}, as values of JSON."""
        found = checked(
            raw,
            file=file,
            row=0,  # the place of a row is no part of what is kept of it
            kind=self._kind(file),
            picture=lambda name: self._checking.source.picture(name, file),
            vocabulary=self._checking.vocabulary,
            stored=self._gallery.measured,
        )
        if isinstance(found, RowError):
            return {"reason": found.reason}
        row = {name: value for name, value in vars(found).items() if name not in _PICTURES}
        row["history"] = [vars(turn) for turn in found.history]
        row["objects"] = found.objects and [vars(thing) for thing in found.objects]
        others = found.rejected_images if isinstance(found, Preference) else ()
        counts = [len(found.images), len(others)]
        notes = [str(note) for note in raw.get("notes") or ()]
        return {"kind": self._kind(file), "row": row, "pictures": counts, "notes": notes}

    def _kind(self, file: str) -> Kind:
        kind = self._checking.recognised.kinds[file]
        return "preference" if kind == "preference" else "evaluation"

    # ---- the second pass -------------------------------------------------------------------------

    def record(self, row: RawRow | None, verdict: Verdict) -> Row:
        """The record of an accepted row; InputError where it is not what the first pass saw."""
        raw = self._with_contents(row.raw, row.file) if row and row.raw else None
        problem = "was changed while it was read; start again"
        is_same = raw is not None and self._key(raw, verdict.file) == verdict.key
        require(is_same, f"{verdict.file}: row {verdict.row}", problem)
        assert raw is not None
        kept = self._verdicts.row(verdict.key)
        known = self._checked(verdict.file, raw) if kept is None else json.loads(kept)
        pictures = [self._gallery.stored(content) for content in _contents(raw, known)]
        count = known["pictures"][0]
        fields = {**known["row"], "images": tuple(pictures[:count])}
        fields["history"] = tuple(Turn(**turn) for turn in fields["history"])
        if fields["objects"] is not None:
            fields["objects"] = tuple(map(SceneObject.of, fields["objects"]))
        fields["absent"] = fields["absent"] and tuple(fields["absent"])
        if known["kind"] == "evaluation":
            return Example(**fields)
        return Preference(**fields, rejected_images=tuple(pictures[count:]))


_PICTURES = ("images", "rejected_images")


def _contents(raw: Raw, known: Mapping[str, Any]) -> list[bytes]:
    """The bytes of the pictures that the checked row has: equal rejected ones are left out."""
    pairs = zip(_PICTURES, known["pictures"], strict=True)
    return [one["bytes"] for name, count in pairs for one in (raw[name] or ())[:count]]


def _verdict(place: Verdict, known: Mapping[str, Any], seen: tuple[Seen, ...]) -> Verdict:
    row, digests = known["row"], tuple(one.digest for one in seen)
    texts = ("history", "question", "answer", "chosen", "rejected")
    said = [row.get(name) for name in texts] + [one.hex() for one in digests]
    return place._replace(
        id=row["id"],
        image_id=row["image_id"],
        kind=known["kind"],
        pictures=digests,
        images=known["pictures"][0],
        said=hashlib.sha256(json.dumps(said).encode()).digest()[:16],
        objects=-1 if row["objects"] is None else len(row["objects"]),
    )


def _short(found: Any) -> str:
    """An id or a split as the file has it, for messages and decisions."""
    return "" if found is None else str(found)[:200]
