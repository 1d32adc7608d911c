"""A model's folder on the nodes where actors open it: there already, or brought once per node.

A node that has the folder under the same path, of the same content, reads it there: this machine,
and every node that mounts its disk. Any other gets the files through Ray's object store, piece by
piece, into a folder of Ray's session, which the first process of a node fills and the others of it
find. A storage that nodes reach takes the place of `pieces` where there is one.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adapt import environment
from adapt.cluster.storage import digest, files_of
from adapt.files import locked
from adapt.names import below
from adapt.params import InputError

PIECE = 64 << 20  # bytes of a file that go through the object store at once
Pieces = Mapping[str, Sequence[Any]]  # of each file, by its name in the folder


@dataclass(frozen=True)
class Folder:
    """A folder on the node `node`, named by what is in it."""

    path: Path
    node: str

    @classmethod
    def of(cls, path: Path) -> "Folder":
        """One of this node; InputError where there is none."""
        if not path.is_dir():
            raise InputError(f"{path}: not found")
        return cls(path.resolve(), _node())

    @cached_property
    def content(self) -> str:
        """The digest of its files, which takes a while: only another node asks for it."""
        return digest(files_of(self.path))

    def pieces(self) -> Pieces:
        """Its files in the object store, for `filled`; they are there as long as these live."""
        import ray

        found: dict[str, list[Any]] = {}
        for name, path in files_of(self.path).items():
            with path.open("rb") as file:
                found[name] = [ray.put(part) for part in iter(lambda: file.read(PIECE), b"")]
        return found


def here(path: Path, node: str, content: str | None) -> Path | None:
    """The folder as this node has it; None where it does not.

    `content` None: nobody has worked it out, which only the node that has the folder need not.
    """
    if node == _node():
        return path
    for one in (path, _brought(content) if content else path):
        if content and one.is_dir() and digest(files_of(one)) == content:
            return one
    return None


def filled(content: str, pieces: Pieces) -> Path:
    """A folder of this node with the files of these pieces; the first who asks makes it."""
    import ray

    target = _brought(content)
    with locked(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            partial = target.with_name(f"{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            for name, parts in pieces.items():
                path = below(partial, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    for part in parts:
                        file.write(ray.get(part))
            partial.rename(target)
    return target


def _brought(content: str) -> Path:
    """Where this node keeps what was brought: it goes with Ray's session."""
    from ray._private import worker

    return Path(worker._global_node.get_session_dir_path()) / "adapt-models" / content


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


class Actor:
    """A process of its own with what an opener has made of a folder."""

    def __init__(self, cpus: int) -> None:
        # A cluster's workers have not inherited them. One bar is enough: that of the whole pass.
        for name, value in {**environment.SWITCHES, "TQDM_DISABLE": "1"}.items():
            os.environ.setdefault(name, value)
        self._cpus, self._opened = cpus, None

    def open(
        self,
        folder: tuple[Path, str, str | None],
        pieces: Pieces | None,
        opener: Callable[[Path], Any],
    ) -> bool:
        """Open the model of a folder (path, node, content); False where it is not on this node."""
        import torch

        torch.set_num_threads(self._cpus)
        path, node, content = folder
        found = here(path, node, content) if pieces is None else filled(content or "", pieces)
        if found is not None:
            self._opened = None  # two models may not fit
            self._opened = opener(found)
        return found is not None

    def work(self, method: str, arguments: Sequence[Any]) -> Any:
        """What a method of the opened thing returns."""
        return getattr(self._opened, method)(*arguments)
