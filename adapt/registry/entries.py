"""Where the ledger is kept: in the registry, a version of the model `<model>.ledger` is an entry.

MLflow numbers the versions of a model, each number once and none left out, and writes a version
with its tags in one transaction: whoever reads version 7 reads all of it, and 1 to 6 are there.
That is all that an append-only log needs. A deleted version leaves its number behind, so that a
hand in the ledger shows as a gap. An entry has no files: its source is a mere name, of a scheme
that no storage has, which a server takes as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapt import names
from adapt.registry.ledger import Entry
from adapt.tracking.races import again

if TYPE_CHECKING:
    from mlflow import MlflowClient

SOURCE = "adapt-ledger:/entry"
PAGE = 1000  # entries in one request
NEWS = 20  # of them where most are known
EXISTS = ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")
MISSING = "RESOURCE_DOES_NOT_EXIST"
ABOUT = (
    "The decisions about {model}, oldest first; written by the pipeline, not to be edited. "
    "`python -m flows.promote history` shows them as a table."
)


@dataclass(frozen=True)
class Log:
    """The entries in the order of their numbers, and the numbers that were taken out by hand.

    `tail` is the last number that is taken.
    """

    entries: tuple[Entry, ...] = ()
    missing: tuple[int, ...] = ()
    tail: int = 0

    def with_more(self, found: Iterable[Any]) -> "Log":
        """The log with the versions that come after its own."""
        more = {int(one.version): dict(one.tags) for one in found if int(one.version) > self.tail}
        tail = max(more, default=self.tail)
        news = [entry for number in sorted(more) if (entry := Entry.of_tags(number, more[number]))]
        gaps = [number for number in range(self.tail + 1, tail) if number not in more]
        return Log((*self.entries, *news), (*self.missing, *gaps), tail)


def name_of(model: str) -> str:
    """The registered model that keeps the ledger of `model`."""
    return f"{model}.ledger"


def read(client: "MlflowClient", model: str, known: Log | None = None) -> Log:
    """All that is written; empty where there is no ledger.

    Entries never change, so of a log that is `known` only what came after it is asked for.
    """
    if known and known.tail:
        newest = {"max_results": NEWS, "order_by": ["version_number DESC"]}
        page = client.search_model_versions(f"name = '{name_of(model)}'", **newest)
        if any(int(one.version) == known.tail for one in page):
            return known.with_more(page)
    return Log().with_more(versions(client, name_of(model)))


def versions(client: "MlflowClient", model: str) -> list[Any]:
    """The versions of a model, by number. Pages follow the numbers: what is added comes last."""
    found: list[Any] = []
    order, token = ["version_number ASC"], None
    while True:
        query = f"name = '{model}'"
        page = client.search_model_versions(query, PAGE, order_by=order, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda one: int(one.version))


def append(client: "MlflowClient", model: str, entry: Entry) -> None:
    """Write an entry, which gets the next number.

    Where writers were faster, it is sent again. Should the first one have arrived all the same, it
    is the same entry: a ledger counts an `id` once.
    """
    from mlflow.exceptions import MlflowException

    tags = {key: names.tag(text) for key, text in entry.tags().items()}
    known = {"tags": tags, "description": names.tag(describe(entry)), "await_creation_for": 0}
    try:
        again(client.create_model_version, name_of(model), SOURCE, **known)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        begin(client, model)
        again(client.create_model_version, name_of(model), SOURCE, **known)


def begin(client: "MlflowClient", model: str) -> None:
    """Make the ledger where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        about = ABOUT.format(model=model)
        again(client.create_registered_model, name_of(model), description=about)
    except MlflowException as error:
        if error.error_code not in EXISTS:
            raise


def describe(entry: Entry) -> str:
    """The entry in words, as MLflow's page shows it."""
    move = f": champion {entry.against or 'none'} -> {entry.to or 'none'}" if entry.to else ""
    head = f"**{entry.what}** version {entry.of}{move} ({entry.when}, {entry.who})"
    return names.tag("\n".join([head, "", *(f"* {reason}" for reason in entry.reasons)]))
