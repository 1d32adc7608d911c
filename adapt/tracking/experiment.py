"""The page of an experiment in MLflow: its note, its kind, and the columns of its table of runs."""

import json

from adapt.metrics.headline import ARMS, HEADLINES
from adapt.names import tag
from adapt.tracking.presentation import (
    NOTE,
    RETRAININGS,
    link,
    model_page,
    paragraphs,
    retrainings_page,
)
from adapt.tracking.races import again
from adapt.tracking.store import Store

KIND, VIEW = "mlflow.experimentKind", "mlflow.sharedViewState"


def describe(store: Store) -> None:
    """Give the experiment what its page shows, but for what somebody has written there."""
    identity = store.experiment_id
    there = store.client.get_experiment(identity).tags
    for key, text in tags(identity, store.config.model).items():
        if key not in there:
            # Another process may have begun to describe it at the same moment.
            again(store.client.set_experiment_tag, identity, key, tag(text))


def tags(experiment: str, model: str) -> dict[str, str]:
    """Tags of an experiment: its kind, a description, and a table of retrainings alone.

    MLflow keeps the columns that somebody chose in that person's browser. What a link can bring
    along is a view that the experiment has as a tag.
    """
    every = link("Retrainings, the main figures first", retrainings_page(experiment))
    note = paragraphs(
        f"{every}, of the model {link(model, model_page(model))}.",  # all that is seen at first
        "Choose two and press Compare for their curves and pictures side by side. `python -m "
        "adapt.report RUN RUN2` makes one file of the comparison, which can be mailed.",
        "The run of a retraining has the runs of its stages as children.",
    )
    view = json.dumps(retrainings_view(), separators=(",", ":"))
    return {NOTE: note, KIND: "custom_model_development", f"{VIEW}.{RETRAININGS}": view}


def retrainings_view() -> dict[str, object]:
    """The table of retrainings, as MLflow's page understands it: which runs, which columns."""
    figures = [
        f"metrics.`before_after/{number.key}_{ARMS[arm]}`"
        for number in sorted(HEADLINES, key=lambda number: number.key != "hal")
        for arm in ("base", "tuned")
    ]
    widths = {
        "tags.`adapt.ending`": 110,
        "tags.`adapt.model_version`": 150,
        **dict.fromkeys(figures, 190),
        "tags.`mlflow.source.git.commit`": 120,
        "attributes.`Dataset`": 250,
    }
    columns = list(widths)
    return {
        "searchFilter": "tags.`adapt.kind` = 'retraining'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", "attributes.`Created`", *columns],
        "columnWidths": {"attributes.`Run Name`": 250, **widths},
        "runListHidden": False,
    }
