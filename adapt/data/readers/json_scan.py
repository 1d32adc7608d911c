"""A first look at JSON of any size: where each value of a list or an object begins and ends.

Only strings and brackets are told apart, byte by byte, so that memory holds one value at a time and
a value that is no valid JSON does not keep the next one from being found.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from adapt.data.readers.record import BLOCK, MAX_ROW

_MARK = re.compile(rb'["\[\]{},]')
_OPENING, _CLOSING, _COMMA, _QUOTE, _ESCAPE = b"[{", b"]}", ord(","), ord('"'), ord("\\")


class Scanner:
    """Finds the values of the list or object that is open at byte `offset` of a file.

    `start` and `stop` are the bytes of the value that was found last, `closed` whether the list or
    object has ended. Values are kept for `content` where `keep` is set.
    """

    def __init__(self, stream: BinaryIO, offset: int, keep: bool = True) -> None:
        stream.seek(offset)
        self.start = self.stop = offset
        self.closed = False
        self._stream, self._keep = stream, keep
        self._buffer, self._origin = bytearray(), offset  # of the file, from byte `origin`
        self._at = 0  # the next byte of the buffer
        self._in_string = False

    def values(self) -> Iterator[None]:
        """Stop at each value; what lies between two commas may be blank."""
        depth = 0
        while (mark := self._next()) is not None:
            if mark in _OPENING:
                depth += 1
            elif mark in _CLOSING and depth:
                depth -= 1
            elif depth == 0:  # a comma, or the end
                self.stop = self._position() - 1
                self.closed = mark != _COMMA
                yield
                self.start = self._position()
                if self.closed:
                    return
        self.stop = self._position()
        yield

    def content(self) -> bytes | None:
        """The bytes of the value that was found last; None for more than `MAX_ROW`."""
        first = self.start - self._origin
        return bytes(self._buffer[first : self.stop - self._origin]) if first >= 0 else None

    def _position(self) -> int:
        return self._origin + self._at

    def _next(self) -> int | None:
        """The next bracket or comma outside of strings; None at the end of the file."""
        while True:
            if self._in_string:
                if not self._string_ends() and not self._more():
                    return None
            elif (found := _MARK.search(self._buffer, self._at)) is None:
                self._at = len(self._buffer)
                if not self._more():
                    return None
            else:
                self._at = found.end()
                mark = self._buffer[self._at - 1]
                if mark != _QUOTE:
                    return mark
                self._in_string = True

    def _string_ends(self) -> bool:
        """Go on behind the end of the string, or as far as the buffer has it."""
        end = self._buffer.find(b'"', self._at)
        escapes = last = end if end >= 0 else len(self._buffer)
        while escapes > self._at and self._buffer[escapes - 1] == _ESCAPE:
            escapes -= 1
        if end < 0:
            self._at = last - (last - escapes) % 2  # what a last backslash escapes is not read yet
            return False
        self._at = last + 1
        self._in_string = (last - escapes) % 2 == 1  # an escaped quote is part of the string
        return True

    def _more(self) -> bool:
        """Read on, and forget what nobody will ask for."""
        first = self.start - self._origin
        if not self._keep or first < 0 or self._at - first > MAX_ROW:
            first = self._at
        del self._buffer[:first]
        self._origin += first
        self._at -= first
        block = self._stream.read(BLOCK)
        self._buffer += block
        return bool(block)
