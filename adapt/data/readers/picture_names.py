"""Pictures that rows name: found below the source or the folder `data.pictures`, and nowhere else.

A name is looked up, in this order,
    1. in the folder `data.pictures`, if that is set,
    2. beside the file that has the row,
    3. in the source's folder,
    4. in a folder of pictures (`FOLDERS`) beside the file, then in one of the source's folder.
The first file that is there counts. Whatever a name says (.., an absolute path, a link), its file
has to lie in the source's folder or in `data.pictures`; links inside of them are followed. Nothing
is ever fetched from an address.
"""

import base64
import binascii
import difflib
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from adapt.data.readers.local import Local
from adapt.data.readers.record import MAX_PICTURE, Unreadable
from adapt.data.readers.remote import Remote
from adapt.params import shown

FOLDERS = ("images", "image", "pictures", "media", "imgs")
MAX_BYTES = MAX_PICTURE
_LISTED = 10_000  # names that are searched for one like the name that is missing
_LONGEST = 4096  # characters of a name
_ADDRESS = re.compile(r"(https?|ftp|file|s3|gs|hf):|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Finder:
    """Reads pictures by name from a place, and before it from the folder `extra`."""

    place: Local | Remote
    extra: Local | None = None

    def read(self, name: str, beside: str) -> bytes:
        """The bytes of the picture that a row of the file `beside` names; else `Unreadable`."""
        if name.startswith("data:"):
            return decoded(name)
        require_name(name)
        leads_out = False
        for place, path in self._candidates(name, beside):
            if not place.holds(path):
                leads_out = True
            elif (content := place.content(path, MAX_BYTES)) is not None:
                return content
        if leads_out:
            raise Unreadable(f"{shown(name)} leads out of the source's folder")
        raise Unreadable(f"{shown(name)} is not there{self._hint(name, beside)}")

    def _candidates(self, name: str, beside: str) -> Iterator[tuple[Local | Remote, str]]:
        folders = [posixpath.dirname(beside), ""]
        folders += [posixpath.join(folder, media) for folder in folders for media in FOLDERS]
        # A name may have come from a system that writes letters and their accents apart.
        forms = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
        for form in dict.fromkeys(forms):
            if self.extra is not None:
                yield self.extra, form
            for folder in dict.fromkeys(folders):
                yield self.place, posixpath.join(folder, form)

    def _hint(self, name: str, beside: str) -> str:
        """The nearest name in the folders that were searched."""
        wanted, known = posixpath.basename(name), set[str]()
        for place, path in self._candidates(name, beside):
            folder = posixpath.dirname(path)
            if isinstance(place, Local) and place.holds(folder):
                known.update(_names(place.root / folder))
        same = [one for one in sorted(known) if one.casefold() == wanted.casefold()]
        near = same or difflib.get_close_matches(wanted, sorted(known), 1, 0.8)
        return f"; did you mean {shown(near[0])}?" if near else "; data.pictures names its folder"


def require_name(name: str) -> None:
    """`Unreadable` for an address, a path of Windows, and control characters."""
    if not name.strip():
        raise Unreadable("is empty, not the name of a picture")
    if _ADDRESS.match(name):
        advice = "pictures are not fetched, download them and name their folder in data.pictures"
        raise Unreadable(f"{shown(name)} is an address; {advice}")
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        raise Unreadable(f"{shown(name)} is a path of Windows; write it relative, and with /")
    if len(name) > _LONGEST:
        raise Unreadable(f"{shown(name)} has {len(name)} characters, too many for a name")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise Unreadable(f"{shown(name)} has a control character")


def decoded(address: str) -> bytes:
    """The bytes in a data: address.

    >>> decoded("data:image/png;base64,aGVsbG8=")
    b'hello'
    """
    head, comma, text = address.partition(",")
    if not comma or not head.endswith(";base64"):
        raise Unreadable(f"{shown(address)} is no picture in base64")
    if len(text) > MAX_BYTES * 4 // 3 + 4:
        raise Unreadable(f"the picture in {shown(head)} has more than {MAX_BYTES >> 20} MiB")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable(f"the picture in {shown(head)} is no base64") from None


def _names(folder: os.PathLike[str]) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in islice(found, _LISTED)]
    except OSError:
        return []
