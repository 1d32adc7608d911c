"""What is said where the registry cannot be asked: one line, whichever storage it is behind."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from adapt import names
from adapt.addresses import shown
from adapt.params import InputError
from adapt.tracking.store import Store, uri

P = ParamSpec("P")
R = TypeVar("R")

# What MLflow calls a server or a database that does not answer; all else is an answer. The third:
# a database that it cannot write, or that is full.
SILENT = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "BAD_REQUEST")


class RegistryAway(InputError):
    """The registry does not answer: nothing was decided, and it can be asked again later."""


def asks(
    function: Callable[Concatenate[Store, P], R],
) -> Callable[Concatenate[Store, P], R]:
    """The function, with `RegistryAway` for the many ways in which a registry does not answer."""

    @functools.wraps(function)
    def asking(store: Store, *words: P.args, **named: P.kwargs) -> R:
        from mlflow.exceptions import MlflowException

        _open(store)
        try:
            return function(store, *words, **named)
        except MlflowException as error:
            if error.error_code not in SILENT:
                raise
            reason = names.one_line(shown(str(error.message).partition("\n")[0]), 200)
        # Also where the connection broke in the middle: the ledger tells what was written.
        problem = f"the registry {shown(uri(store.root))} cannot be asked ({reason})"
        advice = "when it answers again, `python -m flows.promote status` tells what was decided"
        raise RegistryAway(f"{problem}; {advice}") from None

    return asking


def _open(store: Store) -> None:
    try:
        store.client  # noqa: B018 (it is opened at the first question)
    except InputError as error:
        raise RegistryAway(str(error)) from None
