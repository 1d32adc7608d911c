"""What cannot be asked now, a registry above all: nobody has made a mistake."""

from collections.abc import Iterator
from contextlib import contextmanager

from adapt import addresses
from adapt.params import InputError
from adapt.registry.away import RegistryAway
from adapt.tracking.runs import Unreachable
from adapt.tracking.store import Store, uri

LATER = "the stages are up to date, the next retraining asks the gate"
LONGEST = 200  # characters of a reason


class Away(InputError):
    """Something on another machine does not answer."""


@contextmanager
def asking(store: Store, what: str = "about the champion") -> Iterator[None]:
    """Around questions to the registry: what its client raises then becomes `RegistryAway`."""
    try:
        _ = store.client
    except InputError as error:  # says which address, and why
        raise RegistryAway(str(error)) from None
    # Heavy, and imported by the client already.
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Unreachable as error:
        raise RegistryAway(str(error)) from None
    except (MlflowException, SQLAlchemyError, RequestException) as error:
        address = addresses.shown(uri(store.root))
        raise RegistryAway(f"{address} cannot be asked {what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Its first line, without addresses of documentation that follow it."""
    lines = str(error).strip().splitlines()
    return addresses.shown(lines[0])[:LONGEST] if lines else type(error).__name__
