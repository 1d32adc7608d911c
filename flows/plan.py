"""What a retraining would do, found out without doing anything, and the lock that keeps two of them
apart.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt import environment, launch, params
from adapt.params import InputError
from adapt.tracking import registry, results, store
from flows import tasks


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One retraining of a workspace at a time. The kernel drops the lock with the process, however
    it ends.
    """
    path = environment.state_dir(root) / "retrain.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            raise InputError(
                f"{root}: another retraining is running here (process {who}); wait until it ends"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`stages` are all, `due` those that may have to run, `forced` those that run whatever DVC
    finds; all in order.
    """

    config: Mapping[str, Any]
    stages: tuple[str, ...]
    due: tuple[str, ...]
    forced: tuple[str, ...]
    notes: tuple[str, ...]


def make(root: Path, force: bool) -> Plan:
    """Check the configuration, then ask DVC and the registry what is out of date."""
    config = configuration(root)
    stages = tuple(tasks.order(root))
    notes = []
    forced: tuple[str, ...] = stages if force else ()
    moved = alias_moved(root, config["base"].source)
    if moved:
        notes.append(f"base: {moved}")
        forced = forced or ("base",)
    return Plan(
        config=config,
        stages=stages,
        due=tuple(tasks.pending(root, forced)),
        forced=forced,
        notes=tuple(notes),
    )


def configuration(root: Path) -> dict[str, Any]:
    """Every stage's checked `Config` by stage, and the sections `gate` and `tracking`."""
    if not (root / "dvc.yaml").is_file():
        raise InputError(f"{root}: no dvc.yaml here; run from the project's root")
    return launch.configs(params.read(root / "params.yaml"))


def alias_moved(root: Path, source: str) -> str:
    """Why stage `base` is out of date although DVC cannot see it: its source is an alias that has
    moved since.

    Empty when it is not, also for a source that is no alias and when nothing is behind the alias
    (the stage says so).
    """
    alias = re.fullmatch(r"models:/([^/@']+)@([\w.-]+)", source)
    if not alias:
        return ""
    current = version_behind(root, alias[1], alias[2])
    used = base_version(root, alias[1])
    if current is None or current == used:
        return ""
    return f"{source} is version {current}, results/base was made from {f'version {used}' if used else 'something else'}"


def version_behind(root: Path, model: str, alias: str) -> str | None:
    """The version that an alias of a registered model points to."""
    found = store.client(root).search_registered_models(f"name = '{model}'")
    versions = {str(name): str(version) for one in found for name, version in one.aliases.items()}
    return versions.get(alias)


def base_version(root: Path, model: str) -> str:
    """The version of the registered `model` that results/base came from; "" when it came from
    elsewhere.
    """
    path = root / "results" / "base" / "source.json"
    if not path.exists():
        return ""
    made = json.loads(path.read_text(encoding="utf-8"))
    same = re.match(rf"models:/{re.escape(model)}[@/]", made["source"])
    return str(made.get("version") or "") if same else ""


def question(root: Path, config: Mapping[str, Any], promote: bool) -> dict[str, Any]:
    """What the decision about promotion depends on: the same question need not be asked twice."""
    address = store.without_credentials(store.uri(root))
    return {
        "evaluate": results.stage_hash(root, "evaluate"),
        "model": results.output_hash(root, registry.MODEL),
        "rules": config["gate"].model_dump(),
        "promote": promote,
        "registry": address if address.startswith("http") else "in this workspace",
        "name": config["tracking"].model,
        "champion": registry.champion(root, config["tracking"]),
    }
