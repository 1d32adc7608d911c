"""A folder on object storage or the hub, read over the network by fsspec's drivers."""

import io
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from adapt.data.readers.entries import DEPTH, Counts, Entry, is_hidden, require_size
from adapt.data.readers.record import BLOCK, OutOfReach
from adapt.files import storage_errors
from adapt.params import InputError, plain

_SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"),
    "HF_TOKEN",
)
_LONGEST = 200  # characters of what a driver says
_MARKS = ("ETag", "etag", "blob_id", "md5Hash", "content_md5", "LastModified", "created")


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A folder at an address that fsspec reads, such as s3://bucket/prefix; `only` as in `Local`.

    Its driver takes endpoint and credentials from the environment; the address holds none.
    """

    url: str
    only: str = ""

    def where(self, name: str = "") -> str:
        """The address as a text that is safe to print."""
        return plain(f"{self.url}/{name}" if name else self.url)

    def entries(self, counts: Counts) -> list[Entry]:
        """What the storage lists; its marks are ETags, or what else the driver says of a file."""
        with reached(self.where(self.only)):
            fs, root = _filesystem(self.url)
            fs.invalidate_cache()  # a process may ask night after night
            if self.only:
                found = {f"{root}/{self.only}": fs.info(f"{root}/{self.only}")}
            else:
                found = fs.find(root, maxdepth=DEPTH, detail=True)
        if not found:
            raise InputError(f"{self.where()}: not found, or empty")
        entries = []
        for path, info in sorted(found.items()):
            mark = next((str(info[key]) for key in _MARKS if info.get(key)), "")
            name = path.removeprefix(root).lstrip("/")
            if counts(name) and not is_hidden(name):
                entries.append(Entry(name=name, size=info["size"] or 0, mark=mark))
        return entries

    def open(self, name: str) -> BinaryIO:
        """The content, fetched as it is read."""
        with reached(self.where(name)):
            fs, root = _filesystem(self.url)
            # Drivers' own files have no readline with a limit.
            return io.BufferedReader(fs.open(f"{root}/{name}", "rb"), BLOCK)

    def holds(self, name: str) -> bool:
        """Whether a name stays below this address."""
        path = posixpath.normpath(name)
        return path != ".." and not path.startswith(("/", "../"))

    def content(self, name: str, limit: int) -> bytes | None:
        """The bytes of a file that `holds` allows, or None; `Unreadable` above `limit`."""
        with reached(self.where(name)):
            fs, root = _filesystem(self.url)
            path = f"{root}/{posixpath.normpath(name)}"
            try:
                info = fs.info(path)
            except FileNotFoundError:
                return None
            if info["type"] != "file":
                return None
            require_size(info["size"] or 0, limit, name)
            return bytes(fs.cat_file(path))


@contextmanager
def reached(where: str) -> Iterator[None]:
    """Turn trouble with a storage into one line: no driver, no access, no network, no such file."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        ours = where.startswith("s3:")
        advice = "pip install -e '.[s3]'" if ours else without_secrets(error)
        raise OutOfReach(f"{where}: its driver is not installed; {advice}") from None
    except storage_errors() as error:
        raise OutOfReach(f"{where}: cannot be read ({without_secrets(error)})") from None


def without_secrets(error: Exception) -> str:
    """The first line of what a driver says, without keys and signed addresses."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    line = re.sub(r"\?[\w-]+=\S*", "", line)
    for name in _SECRETS:
        if secret := os.environ.get(name):
            line = line.replace(secret, "***")
    return plain(line[:_LONGEST])


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    return url_to_fs(url)
