"""What a retraining would do, found out without doing it, and the lock that keeps two apart."""

import json
import os
import re
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
from flows import tasks


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
    moved = alias_moved(store, config["base"].source)
    forced = stages if force else ("base",) if moved else ()
    due, notes = tuple(tasks.pending(root, forced)), (f"base: {moved}",) if moved else ()
    return Plan(config=config, store=store, stages=stages, due=due, forced=forced, notes=notes)


def configuration(root: Path) -> dict[str, Any]:
    """The checked settings of every section of params.yaml."""
    if not (root / "dvc.yaml").is_file():
        raise InputError(f"{root}: no dvc.yaml here; run from the project's root")
    return launch.configs(params.read(root / "params.yaml"))


def alias_moved(store: Store, source: str) -> str:
    """Why stage `base` is out of date where DVC cannot see it: the alias of its source has moved.

    Empty when it is not, when the source is no alias, or nothing is behind it (the stage says so).
    """
    alias = re.fullmatch(r"models:/([^/@']+)@([\w.-]+)", source)
    if not alias:
        return ""
    current = registry.version_behind(store, alias[1], alias[2])
    used = base_version(store.root, alias[1])
    if current is None or current == used:
        return ""
    origin = f"version {used}" if used else "something else"
    return f"{source} is version {current}, results/base was made from {origin}"


def base_version(root: Path, model: str) -> str:
    """The version of `model` that results/base came from; "" when from elsewhere."""
    path = root / "results" / "base" / "source.json"
    if not path.exists():
        return ""
    made = json.loads(path.read_text(encoding="utf-8"))
    is_model = re.match(rf"models:/{re.escape(model)}[@/]", made["source"])
    return str(made.get("version") or "") if is_model else ""


def question(store: Store, config: Mapping[str, Any], promote: bool) -> dict[str, Any]:
    """What the decision about promotion depends on: the same question need not be asked twice."""
    address = without_credentials(uri(store.root))
    return {
        "evaluate": lineage.stage_hash(store.root, "evaluate"),
        "model": lineage.output_hash(store.root, registry.MODEL),
        "rules": config["gate"].model_dump(),
        "promote": promote,
        "registry": address if address.startswith("http") else "in this workspace",
        "name": store.config.model,
        "champion": registry.champion(store),
    }
