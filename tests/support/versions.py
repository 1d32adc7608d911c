"""A registry with versions of tiny models, and a ledger about them."""

from adapt.registry import settling
from adapt.registry.ledger import Entry, What
from adapt.registry.standing import Standing
from adapt.tracking.store import Store


def made(store: Store, *weights: str) -> list[str]:
    """A version for each hash of weights; no files, since nothing here loads a model."""
    client, name = store.client, store.config.model
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = [{"dvc.model": one} for one in weights]
    found = [
        client.create_model_version(name, "adapt-test:/none", tags=one, await_creation_for=0)
        for one in tags
    ]
    return [str(one.version) for one in found]


def decided(
    store: Store, what: What, of: str, stands: Standing | None = None
) -> tuple[bool, Standing]:
    """What the gate says of a version, decided by how things stand, or stood."""
    stands = stands or settling.settled(store, begin=True)
    entry = Entry(
        what=what,
        of=of,
        against=stands.state.champion,
        to=of if what == "promoted" else "",
        weights=stands.weights(of),
        who="the gate",
        reasons=(f"{what} in a test",),
        seen=stands.state.tail,
    )
    return settling.decide(store, entry)


def reigning(store: Store, *weights: str) -> list[str]:
    """Versions that have been promoted one after another; the last is the champion."""
    found = made(store, *weights)
    for version in found:
        assert decided(store, "promoted", version)[0]
    return found


def aliases(store: Store, model: str = "adapt") -> dict[str, str]:
    """What MLflow's page shows."""
    found = store.client.get_registered_model(model).aliases
    return {alias: str(version) for alias, version in found.items()}
