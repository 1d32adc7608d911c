"""What a full or read-only disk raises, in one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapt.params import InputError


@contextmanager
def told(place: Path) -> Iterator[None]:
    """Turn an OSError of the block into an `InputError` that names the file, or `place`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"{error.filename or place}: {reason}") from None
