"""The first bytes of a text file: a byte order mark is left out, what is no UTF-8 is refused."""

import codecs
from typing import BinaryIO

from adapt.data.readers.record import Document
from adapt.params import InputError

_OTHERS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "compressed (gzip)",
    b"BZh": "compressed (bzip2)",
    b"\xfd7zXZ": "compressed (xz)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a parquet file",
    b"ARROW1": "an Arrow file",
}


def text_start(document: Document, stream: BinaryIO) -> int:
    """Where the text of a file begins, behind its byte order mark; `InputError` for no UTF-8."""
    stream.seek(0)
    first = stream.read(8)
    for mark, kind in _OTHERS.items():
        if first.startswith(mark):
            advice = "save it as UTF-8" if kind.startswith("UTF") else "unpack or rename it"
            raise InputError(f"{document.where()}: is {kind}; {advice}")
    if b"\0" in first:
        raise InputError(f"{document.where()}: is no text in UTF-8 (it has zero bytes)")
    return len(codecs.BOM_UTF8) if first.startswith(codecs.BOM_UTF8) else 0
