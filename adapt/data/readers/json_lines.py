"""JSON Lines: one object a line, blank lines between them allowed; a bad line costs only itself."""

from collections.abc import Iterator
from typing import BinaryIO

from adapt.data.readers import values
from adapt.data.readers.encoding import text_start
from adapt.data.readers.record import BLOCK, CUT_BYTES, MAX_ROW, Cut, Document, Record, Unreadable


def cuts(document: Document) -> Iterator[Cut]:
    """Ranges of bytes that end with a line; the file is read once, to count its lines."""
    with document.open() as stream:
        start = at = text_start(document, stream)
        stream.seek(at)
        first = line = 1
        while block := stream.read(BLOCK):
            seam = -1
            if at + len(block) - start >= CUT_BYTES:
                seam = block.find(b"\n", max(0, start + CUT_BYTES - at - 1))
            if seam >= 0:
                line += block.count(b"\n", 0, seam + 1)
                yield Cut(start=start, stop=at + seam + 1, row=first)
                start, first = at + seam + 1, line
            line += block.count(b"\n", seam + 1)
            at += len(block)
        if at > start:
            yield Cut(start=start, stop=at, row=first)


def records(document: Document, cut: Cut | None = None) -> Iterator[Record]:
    """The lines of a cut, or of the whole file, that are not blank."""
    with document.open() as stream:
        at = text_start(document, stream) if cut is None else cut.start
        stream.seek(at)
        number = 1 if cut is None else cut.row
        while cut is None or at < cut.stop:
            line, length = _line(stream)
            if not length:
                return
            if line is None:
                problem = f"is longer than {MAX_ROW >> 20} MiB"
                yield Record(file=document.name, row=number, problem=problem)
            elif content := line.strip():
                yield record(document.name, number, content)
            at, number = at + length, number + 1


def record(file: str, row: int, content: bytes) -> Record:
    """One row from its JSON."""
    try:
        return Record(file=file, row=row, values=values.row(content))
    except Unreadable as error:
        return Record(file=file, row=row, problem=str(error))


def count(document: Document) -> int | None:
    """Not known before the file is read."""
    return None


def _line(stream: BinaryIO) -> tuple[bytes | None, int]:
    """The next line and its length; of one that is too long only the length."""
    line = stream.readline(MAX_ROW + 1)
    if len(line) <= MAX_ROW:
        return line, len(line)
    length = len(line)
    while not line.endswith(b"\n") and (line := stream.readline(BLOCK)):
        length += len(line)
    return None, length
