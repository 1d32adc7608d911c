"""What a DVC that was killed leaves in its file of locks, where DVC itself does not take it away.

DVC notes who reads and writes what in `.dvc/tmp/rwlock`, by the ids of processes, and drops the
notes of processes that are gone. Three things it does not see, and then waits for a person: an id
that another process has by now, as after a container's restart; a dead process that nobody has
waited for, as in a container without an init; and a file that is cut off, since its writer was
killed or the disk was full.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from adapt.environment import is_alive
from adapt.files import whole_file


def mend(root: Path) -> list[str]:
    """Take away what nobody holds any more, under DVC's own guard; returns a sentence for each."""
    path = root / ".dvc" / "tmp" / "rwlock"
    if not path.exists():
        return []
    from dvc.lock import LockError, make_lock

    try:
        with make_lock(f"{path}.lock", tmp_dir=str(path.parent)):
            return _mended(path)
    except (LockError, OSError):  # a DVC command writes it now; or it cannot be written at all
        return []


def _mended(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        writers, readers = dict(content.get("write", {})), dict(content.get("read", {}))
    except (ValueError, AttributeError, TypeError):
        path.unlink()
        return [f"{path} was cut off, and is made anew"]
    left = {name: note for name, note in writers.items() if is_held(note)}
    others = {name: [note for note in notes if is_held(note)] for name, notes in readers.items()}
    kept = {"write": left, "read": {name: notes for name, notes in others.items() if notes}}
    if kept == {"write": writers, "read": readers}:
        return []
    with whole_file(path) as partial:
        partial.write_text(json.dumps(kept), encoding="utf-8")
    return [f"{path} named a process that has ended"]


def is_held(note: Mapping[str, Any]) -> bool:
    """Whether the process that a note names may still be the one that wrote it.

    DVC notes its arguments; a process of that number that has others is another one, one without
    any is dead. What is gone altogether is left for DVC to say so.
    """
    words = str(note.get("cmd", "")).split()[1:]
    try:
        process = psutil.Process(int(note["pid"]))
        if not is_alive(process):
            return False
        alive = process.cmdline()
    except (psutil.Error, KeyError, ValueError):
        return True
    return " ".join(alive).endswith(" ".join(words)) if words else True
