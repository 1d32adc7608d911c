"""Files of the user's that a stage on the cluster reads, outside of `results/`, and their names.

What is read of them is shared by content (`storage`), and lies in the job's folder under names that
begin below what all of them lie in. The job's settings hold these names; whatever it says or writes
gets the user's names back here. So where that folder lies is no part of the work: the names below
it are, and what the files hold.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt.cluster import storage
from adapt.data.outside import Outside

FOLDER = "outside-of-results"
_NAMES = re.compile(rf"{FOLDER}/(\d+)(/?)")


class Luggage:
    """What a stage takes along; `sections` of params.yaml with the stage's own, `stage`."""

    def __init__(self, stage: str, outside: Sequence[Outside]) -> None:
        self._stage = stage
        self._trunks = [_Trunk(number, one) for number, one in enumerate(outside)]

    def packed(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        """The settings with the names that the job knows."""
        content: dict[str, Any] = json.loads(json.dumps(sections))
        for trunk in self._trunks:
            *above, last = self._stage, *trunk.outside.key
            section: Any = content
            for name in above:
                section = section[name]
            section[last] = trunk.place
        return content

    def shared(self, exchange: str) -> dict[str, str]:
        """Put all of it on the storage: URI by the folder below the job's, "" for an empty one."""
        return {
            place: storage.put(files, label, exchange) if files else ""
            for trunk in self._trunks
            for place, label, files in trunk.parts()
        }

    def unpacked(self, text: str, quoted: Callable[[str], str] = str) -> str:
        """A text of the job's with the user's names."""

        def name(found: re.Match[str]) -> str:
            number = int(found[1])
            known = number < len(self._trunks)
            return quoted(self._trunks[number].name(found[2])) if known else found[0]

        return _NAMES.sub(name, text)

    def unpack(self, out: Path) -> None:
        """The user's names in what the job has written about its work."""
        for path in sorted(out.glob("*.json")) if self._trunks else ():
            text = path.read_text(encoding="utf-8")
            if (named := self.unpacked(text, _in_json)) != text:
                path.write_text(named, encoding="utf-8")


class _Trunk:
    """One key's files, and the folder that has all of them."""

    def __init__(self, number: int, outside: Outside) -> None:
        self.outside = outside
        path, parents = _absolute(outside.path), {_absolute(file).parent for file in outside.files}
        self._root = Path(os.path.commonpath([path, *parents])) if parents else path.parent
        inner = path.relative_to(self._root).parts
        self._folder = f"{FOLDER}/{number}"
        # A folder's slash at the end stays, as it stands in the settings.
        end = "/" if inner and outside.path.endswith("/") else ""
        self.place = "/".join([self._folder, *inner]) + end
        above = [outside.path, *map(str, Path(outside.path).parents)][: len(inner) + 1][-1]
        self._named = above if _absolute(above) == self._root else str(self._root)

    def name(self, slash: str) -> str:
        """What stands for the folder, with the slash behind it."""
        if not slash:
            return self._named
        named = str(Path(self._named))
        return "" if named == "." else f"{named.rstrip('/')}/"

    def parts(self) -> Iterator[tuple[str, str, dict[str, Path]]]:
        """Place, label and files of what lies right in the folder, and of each folder in it.

        By folders, so that three files of questions about the same pictures share these.
        """
        parts: dict[str, dict[str, Path]] = {}
        if not self.outside.files:  # a folder that is named has to be there
            yield self.place.rstrip("/"), "", {}
        for file in self.outside.files:
            *above, last = _absolute(file).relative_to(self._root).parts
            top, *inner = above or [""]
            parts.setdefault(top, {})["/".join([*inner, last])] = file
        for top, files in parts.items():
            label = top or (next(iter(files)) if len(files) == 1 else self._root.name)
            yield f"{self._folder}/{top}".rstrip("/"), label, files


def _absolute(path: str | Path) -> Path:
    """Without a step upwards in it; links stay, for files are read by their names."""
    return Path(os.path.abspath(path))


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
