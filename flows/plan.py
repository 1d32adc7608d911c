"""What a retraining would do, found out without doing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt import addresses, launch, params
from adapt.environment import BUSY_TRIES
from adapt.params import InputError
from adapt.registry import registry
from adapt.tracking import lineage
from adapt.tracking.store import Store, uri
from flows import dvc_lock, outside, tasks
from flows.away import asking


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All `stages`, those that may be `due`, those `forced` whatever DVC finds; each in order.

    `left` would be due too, and is not asked for. `notes` are sentences about what lies outside.
    """

    config: Mapping[str, Any]
    store: Store
    stages: tuple[str, ...]
    due: tuple[str, ...]
    forced: tuple[str, ...]
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def make(root: Path, force: bool, only: Sequence[str] = (), tries: int = BUSY_TRIES) -> Plan:
    """Check the configuration, then ask DVC and the registry what is out of date.

    `only` names stages: no others are due but those that they need. DVC is asked `tries` times
    while another command of it works here, then `Blocked` says which.
    """
    config = configuration(root)
    store = Store(root, config["tracking"])
    mended = dvc_lock.mend(root)
    needs = tasks.order(root)
    asked = wanted(needs, only)
    look = outside.look(store, config)
    forced = tuple(s for s in needs if s in look.changed or (force and s in (only or needs)))
    reasons = [f"{stage}: {why}" for stage, why in look.changed.items()]
    pending = tasks.pending(root, forced, tries)
    return Plan(
        config=config,
        store=store,
        stages=tuple(needs),
        due=tuple(stage for stage in pending if stage in asked),
        forced=tuple(stage for stage in forced if stage in asked),
        left=tuple(stage for stage in pending if stage not in asked),
        notes=(*mended, *reasons, *look.away),
    )


def wanted(needs: Mapping[str, set[str]], only: Sequence[str]) -> set[str]:
    """The stages of `only` and all that they need; every stage where it names none.

    >>> sorted(wanted({"data": set(), "base": {"data"}, "train": {"base"}}, ["base"]))
    ['base', 'data']
    """
    for name in only:
        if name not in needs:
            raise InputError(f"stages: unknown stage {name}; {params.hint(name, needs)}")
    found = set(only or needs)
    for stage in reversed(list(needs)):
        if stage in found:
            found |= needs[stage]
    return found


def configuration(root: Path) -> dict[str, Any]:
    """The checked settings of every section of params.yaml."""
    if not (root / "dvc.yaml").is_file():
        raise InputError(f"{root}: no dvc.yaml here; run from the project's root")
    return launch.configs(params.read(root / "params.yaml"))


def question(store: Store, config: Mapping[str, Any], promote: bool) -> dict[str, Any]:
    """What the decision about promotion depends on: the same question need not be asked twice.

    `RegistryAway` where the registry cannot say who is champion.
    """
    address, noted = addresses.shown(uri(store.root)), outside.benchmarks
    weights = lineage.output_hash(store.root, registry.MODEL)
    with asking(store):
        stands = registry.shown_state(store)
    return {
        "evaluate": lineage.stage_hash(store.root, "evaluate"),
        "model": weights,
        "rules": config["gate"].model_dump(),
        "benchmarks": {
            stage: {label: entry[kind] for label, entry in noted(store.root, stage).items()}
            for stage, kind in outside.RECORDED.items()
        },
        "promote": promote,
        "registry": address if address.startswith("http") else "in this workspace",
        "name": store.config.model,
        "champion": stands.champion,
        "said": stands.said(weights),
    }
