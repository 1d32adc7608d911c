"""The page of an experiment in MLflow: its note, its kind, and the columns of its table of runs."""

from adapt.names import tag
from adapt.tracking import presentation
from adapt.tracking.store import Store


def describe(store: Store) -> None:
    """Give the experiment what its page shows, but for what somebody has written there."""
    identity = store.experiment_id
    there = store.client.get_experiment(identity).tags
    for key, text in presentation.experiment_tags(identity, store.config.model).items():
        if key not in there:
            store.client.set_experiment_tag(identity, key, tag(text))
