"""What a stage reads outside of `results/`, because a key of its section names it.

A stage that may run on a cluster says so by `outside(config)`; `adapt.cluster.luggage` takes it
there. Here it is read where it lies.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outside:
    """What one key names: its place in the section, the path as it stands there, what is read.

    Without `files` it is a name that goes into the results, and nothing is read by it.
    """

    key: tuple[str | int, ...]
    path: str
    files: tuple[Path, ...] = ()
