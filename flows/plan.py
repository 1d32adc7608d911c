"""What a retraining would do, found out without doing it, and the lock that keeps two apart."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt import environment, launch, params
from adapt.files import locked
from adapt.params import InputError
from adapt.tracking import lineage, registry
from adapt.tracking.store import Store, uri, without_credentials
from flows import outside, tasks


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One retraining of a workspace at a time; `InputError` names the process that has it."""
    path = environment.state_dir(root) / "retrain.lock"
    with ExitStack() as stack:
        try:
            file = stack.enter_context(locked(path, wait=False))
        except BlockingIOError:
            holder = path.read_text(encoding="utf-8").strip() or "unknown"
            problem = f"another retraining is running here (process {holder}); wait until it ends"
            raise InputError(f"{root}: {problem}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All `stages`, those that may be `due`, those `forced` whatever DVC finds; each in order."""

    config: Mapping[str, Any]
    store: Store
    stages: tuple[str, ...]
    due: tuple[str, ...]
    forced: tuple[str, ...]
    notes: tuple[str, ...]


def make(root: Path, force: bool) -> Plan:
    """Check the configuration, then ask DVC and the registry what is out of date."""
    config = configuration(root)
    store = Store(root, config["tracking"])
    stages = tuple(tasks.order(root))
    outdated = outside.changed(store, config)
    forced = stages if force else tuple(stage for stage in stages if stage in outdated)
    notes = tuple(f"{stage}: {why}" for stage, why in outdated.items())
    due = tuple(tasks.pending(root, forced))
    return Plan(config=config, store=store, stages=stages, due=due, forced=forced, notes=notes)


def configuration(root: Path) -> dict[str, Any]:
    """The checked settings of every section of params.yaml."""
    if not (root / "dvc.yaml").is_file():
        raise InputError(f"{root}: no dvc.yaml here; run from the project's root")
    return launch.configs(params.read(root / "params.yaml"))


def question(store: Store, config: Mapping[str, Any], promote: bool) -> dict[str, Any]:
    """What the decision about promotion depends on: the same question need not be asked twice."""
    address, noted = without_credentials(uri(store.root)), outside.benchmarks
    return {
        "evaluate": lineage.stage_hash(store.root, "evaluate"),
        "model": lineage.output_hash(store.root, registry.MODEL),
        "rules": config["gate"].model_dump(),
        "benchmarks": {
            stage: {label: entry[kind] for label, entry in noted(store.root, stage).items()}
            for stage, kind in outside.RECORDED.items()
        },
        "promote": promote,
        "registry": address if address.startswith("http") else "in this workspace",
        "name": store.config.model,
        "champion": registry.champion(store),
    }
