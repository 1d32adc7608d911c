"""A transfer of runs and registered models from one MLflow store to another, by its client.

A server gives runs ids of its own, so ids that tags name (of a parent, of the run that made a
version) are changed with them. Every run is looked up before it is made, by the id that it had, and
is open until it is whole: a transfer that was cut short is repeated and goes on. Versions keep
their numbers, which people, aliases and the ledger go by.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapt import addresses
from adapt.params import InputError
from adapt.tracking.versions import ORIGIN, Versions, fetched, renamed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

UNDER_WAY = "it was under way when the runs were moved"
# MLflow's limits of one answer, and of a request.
PAGE, LIMITS = 1000, {"tags": 100, "params": 100, "metrics": 1000}


@dataclass
class Transfer:
    """From `source` to `target`, whose new experiments keep their files in `artifacts`."""

    source: "MlflowClient"
    target: "MlflowClient"
    artifacts: str | None = None
    _ids: dict[str, str] = field(default_factory=dict, init=False)
    _points: int = field(default=0, init=False)
    _files: int = field(default=0, init=False)

    def all(self) -> list[str]:
        """Everything but what was deleted; what was done, in sentences."""
        # 1. All runs get their new ids first: a run may name one that was made after it.
        runs = [
            (run, self._run(run, experiment, given))
            for experiment, given in self._experiments()
            for run in _runs(self.source, experiment)
        ]
        self._ids = {run.info.run_id: new.info.run_id for run, new in runs}
        # 2. What is in them; those that are closed came whole with an earlier transfer.
        for run, new in runs:
            if new.info.status == "RUNNING":
                self._fill(run, new.info.run_id)
        # 3. Registered models, whose versions belong to runs.
        versions = Versions(self.source, self.target, self._ids).all()
        counts = f"{len(runs)} runs and {versions} versions of models"
        new = f"new are {self._points} points of curves and {self._files} files"
        return [f"{counts} are in {addresses.shown(self.target.tracking_uri)}; {new}"]

    # ---- runs -----------------------------------------------------------------------------------

    def _experiments(self) -> Iterator[tuple[str, str]]:
        """The ids of each experiment here and there, where it is made if it is missing."""
        for one in self.source.search_experiments():
            there = self.target.get_experiment_by_name(one.name)
            if there and there.lifecycle_stage != "active":
                raise InputError(f"move: experiment {one.name} was deleted there; restore it")
            given = there.experiment_id if there else None
            given = given or self.target.create_experiment(one.name, self.artifacts)
            for key, value in one.tags.items():
                self.target.set_experiment_tag(given, key, value)
            yield one.experiment_id, given

    def _run(self, run: "Run", experiment: str, given: str) -> "Run":
        """The run in the new store: the one that an earlier transfer has made, or a new one."""
        known = _runs(self.target, given, f"tags.`{ORIGIN}` = '{run.info.run_id}'")
        if found := next(known, None):
            return found
        tags = {**run.data.tags, ORIGIN: run.info.run_id}
        info = run.info
        return self.target.create_run(given, info.start_time, tags, info.run_name)

    def _fill(self, run: "Run", new: str) -> None:
        """Everything of a run, and only then its end; repeated, MLflow keeps each thing once."""
        from mlflow.entities import Param, RunTag

        # 1. Values. A tag that names another run names it by its new id.
        # What says where it is from was set at its making; one from an earlier move is not that.
        kept = {key: text for key, text in run.data.tags.items() if key != ORIGIN}
        tags = [RunTag(key, renamed(text, self._ids)) for key, text in kept.items()]
        params = [Param(key, text) for key, text in run.data.params.items()]
        points = self._history(run)
        for kind, values in {"tags": tags, "params": params, "metrics": points}.items():
            for start in range(0, len(values), LIMITS[kind]):
                self.target.log_batch(new, **{kind: values[start : start + LIMITS[kind]]})
        if run.inputs and run.inputs.dataset_inputs:
            self.target.log_inputs(new, datasets=run.inputs.dataset_inputs)
        # 2. Files.
        with fetched(self.source, run.info.artifact_uri) as (folder, names):
            if names:
                self.target.log_artifacts(new, str(folder))
        # 3. The end, when all is there.
        self._compare(run.info.run_id, new, points, names)
        status = run.info.status
        if status == "RUNNING":
            self.target.set_tag(new, "adapt.error", UNDER_WAY)
            status = "KILLED"
        self.target.set_terminated(new, status, run.info.end_time)

    def _history(self, run: "Run") -> list["Metric"]:
        """Every point of every curve of a run."""
        from mlflow.entities import Metric

        of = self.source.get_metric_history
        keys = run.data.metrics
        found = (point for key in keys for point in of(run.info.run_id, key))
        return [Metric(p.key, p.value, p.timestamp, p.step) for p in found]

    def _compare(
        self, run: str, new: str, points: Sequence["Metric"], names: Sequence[str]
    ) -> None:
        """`InputError` unless the new run has every point and every file."""
        keys = {point.key for point in points}
        arrived = sum(len(self.target.get_metric_history(new, key)) for key in keys)
        missing = len(set(names) - set(_names(self.target, new)))
        if arrived < len(points) or missing:
            problem = f"{arrived} of {len(points)} points arrived, and all but {missing} files"
            raise InputError(f"move: run {run}: {problem}; move again")
        self._points += len(points)
        self._files += len(names)


def _runs(client: "MlflowClient", experiment: str, query: str = "") -> Iterator["Run"]:
    """The runs of an experiment that are not deleted, the oldest first."""
    token: Any = None
    oldest = ["attributes.start_time ASC"]
    while True:
        page = client.search_runs(
            [experiment], query, max_results=PAGE, order_by=oldest, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _names(client: "MlflowClient", run: str, folder: str | None = None) -> Iterator[str]:
    """The names of all files of a run."""
    for one in client.list_artifacts(run, folder):
        if one.is_dir:
            yield from _names(client, run, one.path)
        else:
            yield str(one.path)
