"""A person's decisions as Prefect flows, which have a form in its UI (`flows.promote.hand`).

Prefect's own server knows no users: whoever fills in the form signs with `who`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from adapt.params import InputError
from adapt.registry.away import RegistryAway
from adapt.tracking.store import Store
from flows.promote import hand
from flows.promote.__main__ import opened
from flows.promote.announced import carried_out


@flow(name="approve", flow_run_name="approve {version}", validate_parameters=True)
def approve(version: int, why: str = "", who: str = "") -> State[Any]:
    """Make a version that passed the gate the champion."""
    return _ended(lambda store: hand.approve(store, str(version), _signed(who), why))


@flow(name="reject", flow_run_name="reject {version}", validate_parameters=True)
def reject(version: int, why: str, who: str = "") -> State[Any]:
    """Keep a version, and all of equal weights, from being promoted."""
    return _ended(lambda store: hand.reject(store, str(version), _signed(who), why))


@flow(name="rollback", flow_run_name="rollback", validate_parameters=True)
def rollback(why: str, to: int | None = None, who: str = "") -> State[Any]:
    """Make an earlier champion the champion again: the last one, or version `to`."""
    target = None if to is None else str(to)
    return _ended(lambda store: hand.rollback(store, target, _signed(who), why))


def _signed(who: str) -> str:
    """The name from the form, or else the run of the form."""
    return who.strip() or f"somebody on Prefect's page (flow run {flow_run.name})"


def _ended(decide: Callable[[Store], str]) -> State[Any]:
    """The sentence as the run's state; a user's mistake has a name and no traceback."""
    try:
        return Completed(message=carried_out(opened(Path.cwd()), decide))
    except RegistryAway as error:
        return Failed(name="RegistryAway", message=str(error))
    except InputError as error:
        return Failed(name="InputError", message=str(error))
