"""Processes that decide about one registry, as retrainings and people on several machines do.

They come from a server that has MLflow imported once; each opens the registry itself.
"""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from adapt.params import InputError
from adapt.registry import entries
from adapt.tracking.store import Store
from flows.promote import hand
from tests.support import tracked, versions


def store(root: Path, registry: str) -> Store:
    """A workspace that uses the registry at this address."""
    os.environ["MLFLOW_TRACKING_URI"] = registry
    os.environ.pop("ADAPT_STATE", None)
    return Store(root, tracked.CONFIG)


def together(what: Callable[..., None], each: Sequence[tuple[Any, ...]]) -> list[BaseProcess]:
    """A process for each tuple of arguments, all started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "mlflow.store.db.utils", __name__])
    found = [context.Process(target=what, args=one, daemon=True) for one in each]
    for process in found:
        process.start()
    return found


def alternate(root: Path, registry: str, seed: int, times: int) -> None:
    """Decide `times` times, in turn as the gate does and as a person does who rolls back."""
    mine, choice = store(root, registry), random.Random(seed)
    versions_there = [str(one.version) for one in entries.versions(mine.client, "adapt")]
    while times:
        try:
            if choice.random() < 0.5:
                hand.rollback(mine, None, f"person {seed}", "for a test")
            else:
                versions.decided(mine, "promoted", choice.choice(versions_there))
        except InputError as error:  # somebody was faster, or there is nothing to go back to
            assert "somebody decided" in str(error) or "no earlier champion" in str(error)
        times -= 1


def killed_before_the_alias(root: Path, registry: str, version: str) -> None:
    """Promote a version, and die when the entry is written and nothing else."""
    append = entries.append

    def append_and_die(*words: Any) -> None:
        append(*words)
        os.kill(os.getpid(), signal.SIGKILL)

    entries.append = append_and_die
    versions.decided(store(root, registry), "promoted", version)


def killed_at_the_alias(root: Path, registry: str, version: str) -> None:
    """Promote a version, and die right after its alias was set."""
    mine = store(root, registry)
    client = type(mine.client)
    move = client.set_registered_model_alias

    def move_and_die(*words: Any) -> None:
        move(*words)
        if words[2] == "champion":
            os.kill(os.getpid(), signal.SIGKILL)

    client.set_registered_model_alias = move_and_die
    versions.decided(mine, "promoted", version)


def registered(root: Path, registry: str, folder: Path, weights: str) -> None:
    """Register a folder for a run of one's own."""
    from adapt.registry import registry as versioned

    mine = store(root, registry)
    run_id = str(mine.client.create_run(mine.experiment_id).info.run_id)
    versioned.register(mine, folder, run_id, {"dvc.model": weights})
