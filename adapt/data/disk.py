"""What a full or read-only disk raises, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapt import command
from adapt.params import InputError


@contextmanager
def told(place: Path) -> Iterator[None]:
    """Turn an OSError of the block into an `InputError` that names the file, or `place`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or place}: {command.advice(error)}") from None
