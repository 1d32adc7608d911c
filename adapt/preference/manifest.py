"""What a checkpoint or a result consists of, so that a damaged one is known before it is loaded.

Every process that writes a share of one leaves a list of its files with it, with the size of each
and a digest of its first and last mebibyte: a disk that was full, a copy that broke off and a file
that was changed show, at a cost that does not grow with the model. A bit that turns over in the
middle of the weights does not show.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

NAME = "manifest"
END = 2**20  # bytes at either end that are looked at
LARGEST = 2**24  # bytes of a list


def is_manifest(path: Path) -> bool:
    """Whether a file is such a list."""
    return path.name.startswith(f"{NAME}-") and path.suffix == ".json"


def write(folder: Path, rank: int = 0, ranks: int = 1) -> None:
    """List what `folder` has, as the share of one of `ranks` processes."""
    files = {
        path.relative_to(folder).as_posix(): _looks(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_manifest(path)
    }
    content = json.dumps({"ranks": ranks, "files": files})
    (folder / f"{NAME}-{rank}.json").write_text(content, encoding="utf-8")


def problem(folder: Path) -> str:
    """What is wrong with a folder of which all shares were written; "" for a whole one."""
    try:
        first = _read(folder, 0)
        for rank in range(first["ranks"]):
            for name, looks in _read(folder, rank)["files"].items():
                if _looks(folder / name) != looks:
                    return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "its list of files cannot be read"
    return ""


def _read(folder: Path, rank: int) -> Any:
    with (folder / f"{NAME}-{rank}.json").open(encoding="utf-8") as file:
        return json.loads(file.read(LARGEST))


def _looks(path: Path) -> list[int | str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        total = hashlib.sha256(file.read(END))
        if size > END:
            file.seek(max(END, size - END))
            total.update(file.read(END))
    return [size, total.hexdigest()]
