"""What a finished stage left in `results/<stage>/`, put into an MLflow run so that two retrainings
can be compared.

The same names are used in the run of a stage and in the run of the whole retraining:
`test/<arm>/<metric>` for what `evaluate` measured, `<stage>/<metric>` for the others,
`curves/<signal>/<arm>` for attention-degradation curves (the step is the token's position). The
part before the last slash becomes a section of charts in the UI, in alphabetical order; so a
retraining has its main numbers a second time as `before_after/...`, where tables and charts begin.
"""

import csv
import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapt.metrics.headline import ARMS, HEADLINES
from adapt.tracking.store import BATCH, StepLogger

if TYPE_CHECKING:
    from mlflow import MlflowClient

SPLITS = {"train": "training", "validation": "validation", "test": "testing"}
TABLE_ROWS = 200


def prefix(stage: str) -> str:
    """What the metric names of a stage begin with."""
    return "test/" if stage == "evaluate" else f"{stage}/"


def stage_results(
    store: "MlflowClient", address: str, run_id: str, stage: str, results: Path
) -> None:
    """For the run of one stage: all that its folder `results` holds; what a stage does not write is
    left out.
    """
    history(StepLogger(address, run_id, prefix(stage)), results / "history.csv")
    metrics(store, run_id, stage, results)
    curves(StepLogger(address, run_id, "curves/"), results / "curves.csv", of_words=True)
    pictures(store, run_id, results, grid=True)
    responses(store, run_id, results / "judged.parquet")


def retraining_results(store: "MlflowClient", address: str, run_id: str, results: Path) -> None:
    """For the run of a retraining: what `train` and `evaluate` left under `results`, of the curves
    the main ones.
    """
    headline(store, run_id, results / "evaluate")
    for stage in ("train", "evaluate"):
        history(StepLogger(address, run_id, prefix(stage)), results / stage / "history.csv")
        metrics(store, run_id, stage, results / stage)
    curves(
        StepLogger(address, run_id, "curves/"), results / "evaluate" / "curves.csv", of_words=False
    )
    pictures(store, run_id, results / "evaluate", grid=False)
    responses(store, run_id, results / "evaluate" / "judged.parquet")


def history(log: StepLogger, path: Path) -> None:
    """The numeric columns of a stage's `history.csv` as curves over `step`; points logged while it
    ran are kept.
    """
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            log.extend(
                [(int(row.pop("step")), dict(_numbers(row))) for row in csv.DictReader(file)]
            )


def _numbers(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for key, text in row.items():
        try:
            yield key, float(text)
        except ValueError:
            continue  # an empty cell, or a column of words such as the phase


def metrics(store: "MlflowClient", run_id: str, stage: str, results: Path) -> None:
    """`metrics.json` as single values, but for those that the run has as curves: a point more would
    bend them.
    """
    curves = set(store.get_run(run_id).data.metrics)
    values = {prefix(stage) + name: value for name, value in _measured(results).items()}
    _single(store, run_id, {key: value for key, value in values.items() if key not in curves})


def headline(store: "MlflowClient", run_id: str, results: Path) -> None:
    """The few numbers a retraining is judged by; Hal first, because the UI's comparison plots what
    was logged first.
    """
    measured = _measured(results)
    values = {}
    for number in sorted(HEADLINES, key=lambda number: number.key != "hal"):
        for arm in ("tuned", "base"):
            if f"{arm}/{number.key}" in measured:
                name = f"before_after/{number.key}_{ARMS[arm]}"
                values[name] = measured[f"{arm}/{number.key}"]
    _single(store, run_id, values)


def _measured(results: Path) -> dict[str, float]:
    path = results / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _single(store: "MlflowClient", run_id: str, values: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    listed = [Metric(key, float(value), now, 0) for key, value in values.items()]
    for start in range(0, len(listed), BATCH):
        store.log_batch(run_id, metrics=listed[start : start + BATCH])


def curves(log: StepLogger, path: Path, *, of_words: bool) -> None:
    """`curves.csv` of `evaluate`, one curve per signal and arm; with `of_words`, more of them for
    object words only.
    """
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["position"]))
    points = []
    for row in rows:
        if row["split"] == "all" or of_words:
            name = f"{row['signal']}/{row['arm']}" + (
                "" if row["split"] == "all" else f"_{row['split']}"
            )
            points.append((int(row["position"]), {name: float(row["mean"] or math.nan)}))
    log.extend(points)


def pictures(store: "MlflowClient", run_id: str, results: Path, *, grid: bool) -> None:
    """`figures/` and `panels/` as files, and with `grid` also in the image grid of the UI's charts
    page.

    The files lie at the top, panels as `panel_<id>.png`: the UI's comparison page lists no folders.
    The grid is for the runs of stages: it prints all parameters of a run over each of its pictures,
    for a retraining more than a screenful.
    """
    from PIL import Image

    for path in sorted([*(results / "figures").glob("*.png"), *(results / "panels").glob("*.png")]):
        stem = re.sub(
            r"[^A-Za-z0-9_.-]", "_", path.stem
        )  # an example's id may have what MLflow refuses
        name = f"panel_{stem}.png" if path.parent.name == "panels" else f"{stem}.png"
        with Image.open(path) as image:
            picture = image.convert("RGB")
        store.log_image(run_id, picture, artifact_file=name)
        if grid:
            store.log_image(run_id, picture, key=f"{path.parent.name}/{stem}", step=0)


def responses(store: "MlflowClient", run_id: str, path: Path) -> None:
    """The first questions of `judged.parquet` as a table: one row per question, one column of
    answers per arm.

    Shortened, because the UI loads a table whole; the file's name says how many rows it has at
    most, and the whole table stays in `results/evaluate/`, under DVC.
    """
    if not path.exists():
        return
    import pandas as pd

    table = pd.read_parquet(path)
    wide = table.pivot(index="id", columns="arm", values="marked")
    about = (
        table.drop_duplicates("id")
        .set_index("id")[["kind", "question", "reference"]]
        .head(TABLE_ROWS)
    )
    shown = about.join(wide[[arm for arm in ARMS if arm in wide]]).reset_index()
    store.log_table(
        run_id,
        data=shown.astype(object).fillna(""),
        artifact_file=f"responses_first_{TABLE_ROWS}.json",
    )


def lock(root: Path) -> dict[str, Any]:
    """The stages of `dvc.lock`, by name; empty before the first reproduction."""
    path = root / "dvc.lock"
    return (
        (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages", {})
        if path.exists()
        else {}
    )


def stage_hash(root: Path, stage: str) -> str:
    """One hash of what DVC recorded of a stage (command, dependencies, parameters, results); ""
    when it has not run.
    """
    entry = lock(root).get(stage)
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest() if entry else ""


def output_hash(root: Path, path: str) -> str:
    """The md5 that `dvc.lock` has for a stage's output; "" when there is none."""
    outs = (out for entry in lock(root).values() for out in entry.get("outs", []))
    return next((str(out["md5"]) for out in outs if out["path"] == path), "")


def datasets(
    store: "MlflowClient", run_id: str, root: Path, splits: str = "results/data/splits"
) -> None:
    """Lineage: the three splits as MLflow datasets, with the hash under which DVC keeps their
    folder as digest.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = output_hash(root, splits)
    inputs = []
    for name, context in SPLITS.items():
        path = root / splits / f"{name}.parquet"
        if path.exists() and digest:
            source, profile = (
                json.dumps({"uri": f"{splits}/{path.name}"}),
                json.dumps({"rows": _rows(path)}),
            )
            dataset = Dataset(name, digest, "local", source, profile=profile)
            inputs.append(DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)]))
    store.log_inputs(run_id, datasets=inputs)


def _rows(path: Path) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(path).num_rows)
