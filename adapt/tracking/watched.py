"""The run in MLflow that shows how a served version's answers go on: a point for every window.

One run for a version, found by its tag `adapt.watch`, named as the version and open for as long as
that serves. It is written by the watch, which has just asked the registry, and so needs no journal.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from adapt import names
from adapt.tracking.store import Store

TAG = "adapt.watch"
COUNT = "watch/alarm"  # of every window: 0 or 1
_LARGEST = 1000  # metrics in one request


def record(
    store: Store, version: str, metrics: Mapping[str, float], files: list[Path], about: str
) -> tuple[str, int]:
    """Add a window to the run of a version; returns the run's id and the window's number, from 1.

    `metrics` has `watch/alarm`; `files` take the place of those of the window before, and `about`,
    Markdown, of the run's description.
    """
    from mlflow.entities import Metric

    run_id, client = _run(store, version), store.client
    step, now = len(client.get_metric_history(run_id, COUNT)) + 1, int(time.time() * 1000)
    points = [Metric(key, float(value), now, step) for key, value in metrics.items()]
    client.log_batch(run_id, metrics=points[:_LARGEST])
    for path in files:
        client.log_artifact(run_id, str(path))
    client.set_tag(run_id, "mlflow.note.content", names.tag(about))
    return run_id, step


def _run(store: Store, version: str) -> str:
    """The run of a version, made now if there is none."""
    tag = names.tag(f"{store.config.model}/{version}")
    quoted = tag.replace("'", "")
    query, experiment = f"tags.`{TAG}` = '{quoted}'", store.experiment_id
    if found := store.client.search_runs([experiment], query, max_results=1):
        return str(found[0].info.run_id)
    shown = names.one_line(f"watch of version {version}")
    tags = {TAG: tag, "adapt.kind": "watch", "adapt.model_version": names.tag(version)}
    made = store.client.create_run(experiment, tags=tags, run_name=shown)
    return str(made.info.run_id)
