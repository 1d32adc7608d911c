"""All that MLflow knows of one run and its surroundings, in one record.

Nothing else is read, so that a report can be made of any run of a server, from anywhere. Of a
retraining that ended early, what its stages have recorded stands in for what it could not record.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.metrics.headline import ARMS
from adapt.names import one_line
from adapt.params import InputError
from adapt.report.pictures import FILE_LIMIT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LAST = "last"
SIGNALS = ("mass", "amc", "focus", "responsiveness", "drift", "fired")
TRAINING = (
    *("loss", "vag/margins", "rewards/accuracies"),
    *("sft/loss", "chosen/displacement", "attn/mass_late_early"),
)
CURVES = (
    *(f"curves/{signal}/{arm}" for signal in SIGNALS for arm in ARMS),
    *(f"train/{name}" for name in TRAINING),
)
"""The curves that a report can show."""
TABLE_LIMIT = 8 << 20  # bytes of a table of answers
PICTURES = 40  # files that are fetched

Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The run of a stage below a retraining; `how` is "ran" or "cached", "" where nobody said."""

    name: str
    id: str
    status: str
    seconds: float | None
    how: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class Version:
    """The version of a registered model that came out, with the aliases it has now."""

    model: str
    number: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A data set of the run: how many rows, and the hash that DVC has for it."""

    name: str
    digest: str
    rows: int | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run. `answers` are rows of texts by column; `pictures` PNG files by name.

    `address` is where the UI of its server is, "" for a store that is a file.
    """

    id: str
    name: str
    status: str
    experiment: str
    started: datetime | None
    ended: datetime | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: Mapping[str, Curve]
    answers: Sequence[Mapping[str, str]]
    pictures: Mapping[str, bytes]
    splits: Sequence[Split]
    stages: Sequence[Stage]
    parent: str
    version: Version | None
    address: str


def find(client: "MlflowClient", experiments: Sequence[str], wanted: str) -> "Run":
    """The run with this id or name, or the newest retraining for "last".

    Of several with one name it is the newest. `InputError` where there is none.
    """
    from mlflow.exceptions import MlflowException

    def newest(query: str) -> "Run | None":
        order = ["attributes.start_time DESC"]
        found = client.search_runs(list(experiments), query, max_results=1, order_by=order)
        return found[0] if found else None

    if wanted == LAST:
        run = newest("tags.`adapt.kind` = 'retraining'")
        if run is None:
            raise InputError("no retraining is recorded yet; `make run` makes one")
        return run
    quote = '"' if "'" in wanted else "'"
    try:
        if run := newest(f"attributes.run_name = {quote}{wanted}{quote}"):
            return run
        return client.get_run(wanted)
    except MlflowException:
        name = one_line(wanted, 100)
        raise InputError(f"{name}: no run has this id or name; `{LAST}` is the newest") from None


def read(client: "MlflowClient", run: "Run", address: str, model: str) -> Record:
    """The whole record of a run; `model` is the registered model whose versions it made."""
    children = _children(client, run)
    # What a retraining lacks that was cut short, its stages may have.
    sources = [run, *reversed(children)]
    tags = run.data.tags
    metrics: dict[str, float] = {}
    for source in reversed(sources):
        metrics |= source.data.metrics
    with tempfile.TemporaryDirectory(prefix="adapt-report-") as scratch:
        files = dict(_files(client, sources, Path(scratch)))
    parent = tags.get("mlflow.parentRunId", "")
    return Record(
        id=run.info.run_id,
        name=run.info.run_name or "",
        status=run.info.status,
        experiment=str(run.info.experiment_id),
        started=_time(run.info.start_time),
        ended=_time(run.info.end_time),
        tags=tags,
        params=run.data.params,
        metrics=metrics,
        curves=_curves(client, sources),
        answers=_answers(files),
        pictures={name: data for name, data in files.items() if name.endswith(".png")},
        splits=_splits(run),
        stages=[_stage(child, tags) for child in children],
        parent=parent,
        version=_version(client, run, model),
        address=address if address.startswith("http") else "",
    )


def _children(client: "MlflowClient", run: "Run") -> list["Run"]:
    """The newest run of each stage, in the order in which they began."""
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    order = ["attributes.start_time ASC"]
    found = client.search_runs([run.info.experiment_id], query, max_results=200, order_by=order)
    newest = {child.data.tags.get("adapt.stage", child.info.run_id): child for child in found}
    return list(newest.values())


def _stage(child: "Run", tags: Mapping[str, str]) -> Stage:
    info, name = child.info, child.data.tags.get("adapt.stage") or child.info.run_name or ""
    how = tags.get(f"adapt.{name}", "")
    known = info.end_time is not None and child.data.tags.get("adapt.cached") != "true"
    seconds = (info.end_time - info.start_time) / 1000 if known else None
    return Stage(
        name=name,
        id=info.run_id,
        status=info.status,
        seconds=seconds if how != "cached" else None,
        how=how,
        hash=child.data.tags.get("adapt.dvc_stage_hash", ""),
    )


def _curves(client: "MlflowClient", sources: Sequence["Run"]) -> dict[str, Curve]:
    """Each curve of the first source that has it, by step; a point that was sent twice is one."""
    found = {}
    for key in CURVES:
        owner = next((run for run in sources if key in run.data.metrics), None)
        if owner is None:
            continue
        history = client.get_metric_history(owner.info.run_id, key)
        points = {int(point.step): float(point.value) for point in history}
        if len(points) > 1:
            found[key] = tuple(sorted(points.items()))
    return found


def _files(
    client: "MlflowClient", sources: Sequence["Run"], scratch: Path
) -> Iterator[tuple[str, bytes]]:
    """Pictures and the table of answers of the first source that has any."""
    for source in sources:
        listed = client.list_artifacts(source.info.run_id)
        wanted = [one.path for one in listed if not one.is_dir and _is_shown(one.path, one)]
        for name in wanted[:PICTURES]:
            path = client.download_artifacts(source.info.run_id, name, str(scratch))
            yield name, Path(path).read_bytes()
        if wanted:
            return


def _is_shown(name: str, listed: Any) -> bool:
    limit = {".png": FILE_LIMIT, ".json": TABLE_LIMIT}.get(Path(name).suffix, 0)
    is_table = name.startswith("responses_first_") or name.endswith(".png")
    return is_table and (listed.file_size or 0) <= limit


def _answers(files: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Rows of the table of answers; none where there is no table that can be read."""
    data = next((data for name, data in files.items() if name.endswith(".json")), b"{}")
    try:
        table = json.loads(data)
        columns, rows = map(str, table["columns"]), table["data"]
        names = list(columns)
        return [dict(zip(names, map(str, row), strict=True)) for row in rows]
    except (ValueError, KeyError, TypeError):
        return []


def _splits(run: "Run") -> list[Split]:
    splits = []
    for one in run.inputs.dataset_inputs if run.inputs else ():
        try:
            rows = json.loads(one.dataset.profile or "{}").get("rows")
        except (ValueError, AttributeError):
            rows = None  # not ours
        splits.append(Split(name=one.dataset.name, digest=one.dataset.digest, rows=rows))
    return splits


def _version(client: "MlflowClient", run: "Run", model: str) -> Version | None:
    """The version that the run made or, where its weights were known, the one that it names."""
    from mlflow.exceptions import MlflowException

    number = run.data.tags.get("adapt.model_version", "")
    model = run.data.tags.get("adapt.model", model)
    if not number or not model:
        return None
    try:
        version = client.get_model_version(model, number)
        aliases = client.get_registered_model(model).aliases
    except MlflowException:
        return Version(model=model, number=number, aliases=(), tags={})
    own = tuple(alias for alias, of in aliases.items() if str(of) == number)
    return Version(model=model, number=number, aliases=own, tags=version.tags)


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
