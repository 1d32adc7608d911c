"""Marks: a process that moves the champion's alias says so first; no one takes it for a person.

Before it touches the alias it leaves on the ledger's model which versions the alias may have
because of it, and takes that away when ledger and alias agree. Should it die in between, the mark
explains what it has left behind, and is taken away by whoever has repaired that.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from adapt import environment
from adapt.registry import entries
from adapt.tracking.races import again

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "adapt.moving."
LASTS_S = 60.0  # a mark from another machine is taken for a dead process's after this long


@dataclass(frozen=True)
class Mark:
    """The `versions` ("" for none) that the alias may have because of the process that it names."""

    versions: tuple[str, ...] = ()
    at: float = 0.0
    machine: str = ""
    process: int = 0
    began: int = 0

    @staticmethod
    def parsed(text: str) -> "Mark":
        """From a tag; one that is not ours accounts for nothing."""
        try:
            found = json.loads(text)
            versions = tuple(map(str, found["versions"]))
            numbers = {key: int(found[key]) for key in ("process", "began")}
            return Mark(versions, float(found["at"]), str(found["machine"]), **numbers)
        except (ValueError, KeyError, TypeError):
            return Mark()

    @property
    def is_dead(self) -> bool:
        """Whether its process has ended; of another machine's, whether it had time enough."""
        if self.machine != environment.machine():
            return abs(time.time() - self.at) > LASTS_S
        return environment.began(self.process) != self.began


@contextmanager
def mark(client: "MlflowClient", model: str, *versions: str) -> Iterator[None]:
    """Leave a mark while the block runs; it stays where the block fails or the process ends."""
    from mlflow.exceptions import MlflowException

    number = os.getpid()
    began = environment.began(number) or 0
    own = Mark(versions, time.time(), environment.machine(), number, began)
    name, key = entries.name_of(model), f"{KEY}{uuid.uuid4().hex}"
    try:
        again(client.set_registered_model_tag, name, key, json.dumps(asdict(own)))
    except MlflowException as error:
        if error.error_code != entries.MISSING:
            raise
        entries.begin(client, model)
        again(client.set_registered_model_tag, name, key, json.dumps(asdict(own)))
    yield
    again(client.delete_registered_model_tag, name, key)


def read(tags: Mapping[str, str]) -> dict[str, Mark]:
    """The marks among the tags of a ledger's model, by their keys."""
    return {key: Mark.parsed(text) for key, text in tags.items() if key.startswith(KEY)}


def forget_the_dead(client: "MlflowClient", model: str, marks: Mapping[str, Mark]) -> None:
    """Take away the marks of processes that are gone, once ledger and alias agree."""
    for key, one in marks.items():
        if one.is_dead:
            again(client.delete_registered_model_tag, entries.name_of(model), key)
