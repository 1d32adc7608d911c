"""A person's decision, and word of it to others where it has moved the champion."""

import sys
from collections.abc import Callable

from adapt.names import one_line
from adapt.registry import registry
from adapt.tracking.store import Store
from flows.serve import posting

MOVED = "adapt.champion.moved"


def carried_out(store: Store, decide: Callable[[Store], str]) -> str:
    """The sentence of a decision. Without a Prefect server there is nobody to tell."""
    api = posting.api(store.root)
    before = registry.champion(store) if api else None
    sentence = decide(store)
    if api and registry.champion(store) != before:
        try:
            posting.post(api, MOVED, store.root, sentence)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            print(
                one_line(f"promote: done, but Prefect's server was not told: {reason}"),
                file=sys.stderr,
            )
    return sentence
