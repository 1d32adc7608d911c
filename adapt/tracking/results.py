"""What goes into an MLflow run: tags, parameters, and what a stage left in `results/<stage>/`.

The same names are used in the run of a stage and in the run of the whole retraining:
`test/<arm>/<metric>` for what `evaluate` found, `<stage>/<metric>` for the others,
`curves/<signal>/<arm>` for attention-degradation curves (the step is the token's position). The
part before the last slash becomes a section of charts in the UI, in alphabetical order; so a
retraining has its main numbers a second time as `before_after/...`, where tables and charts begin.
"""

import csv
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.metrics.headline import ARMS, HEADLINES
from adapt.tracking.lineage import output_hash
from adapt.tracking.store import BATCH, StepLogger, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

Texts = Mapping[str, str]
LIMIT = 100  # parameters or tags in one request, MLflow's limit
SPLITS = {"train": "training", "validation": "validation", "test": "testing"}
TABLE_ROWS = 200


def prefix(stage: str) -> str:
    """What the metric names of a stage begin with."""
    return "test/" if stage == "evaluate" else f"{stage}/"


@dataclass(frozen=True)
class RunWriter:
    """Writes into the run `run_id`."""

    client: "MlflowClient"
    run_id: str

    def logger(self, prefix: str) -> StepLogger:
        """A logger of curves whose names begin with `prefix`."""
        return StepLogger(self.client.tracking_uri, self.run_id, prefix)

    def tag(self, tags: Texts) -> None:
        """Set the tags that have a value, without passwords of addresses in them."""
        from mlflow.entities import RunTag

        texts = {key: without_credentials(str(value))[:5000] for key, value in tags.items()}
        given = [RunTag(key, text) for key, text in texts.items() if text]
        self.client.log_batch(self.run_id, tags=given)

    def parameters(self, values: Texts) -> None:
        """Log parameters under their whole names, without passwords."""
        from mlflow.entities import Param

        params = [Param(key, without_credentials(value)) for key, value in values.items()]
        for start in range(0, len(params), LIMIT):
            self.client.log_batch(self.run_id, params=params[start : start + LIMIT])

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log single values, in the order of `values`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(key, float(value), now, 0) for key, value in values.items()]
        for start in range(0, len(points), BATCH):
            self.client.log_batch(self.run_id, metrics=points[start : start + BATCH])

    def end(self, status: str, tags: Texts | None = None) -> None:
        """Close the run as FINISHED, FAILED or KILLED, with last tags."""
        if tags:
            self.tag(tags)
        self.client.set_terminated(self.run_id, status)

    # ---- folders of results ---------------------------------------------------------------------

    def stage(self, stage: str, folder: Path) -> None:
        """All that a stage left in its `folder`; what it does not write is left out."""
        self._history_and_metrics(stage, folder)
        self._curves(folder / "curves.csv", of_words=True)
        self._images(folder, grid=True)
        self._answers(folder / "judged.parquet")

    def retraining(self, results: Path) -> None:
        """What `train` and `evaluate` left under `results`, of the curves the main ones."""
        # First, because the UI's comparison plots what was logged first.
        self.metrics(_headline(_metrics(results / "evaluate")))
        for stage in ("train", "evaluate"):
            self._history_and_metrics(stage, results / stage)
        self._curves(results / "evaluate" / "curves.csv", of_words=False)
        self._images(results / "evaluate", grid=False)
        self._answers(results / "evaluate" / "judged.parquet")

    def _history_and_metrics(self, stage: str, folder: Path) -> None:
        """`history.csv`, and `metrics.json` but for its curves: a point more would bend them."""
        history = [(int(row.pop("step")), row) for row in _rows(folder / "history.csv")]
        self.logger(prefix(stage)).extend((step, dict(_numbers(row))) for step, row in history)
        curves = self.client.get_run(self.run_id).data.metrics
        values = {prefix(stage) + name: value for name, value in _metrics(folder).items()}
        self.metrics({name: value for name, value in values.items() if name not in curves})

    def _curves(self, path: Path, *, of_words: bool) -> None:
        """Curves of every signal and arm; with `of_words`, of object words alone, too."""
        points = []
        for row in sorted(_rows(path), key=lambda row: int(row["position"])):
            if row["split"] == "all" or of_words:
                words = "" if row["split"] == "all" else f"_{row['split']}"
                name = f"{row['signal']}/{row['arm']}{words}"
                points.append((int(row["position"]), {name: float(row["mean"] or math.nan)}))
        self.logger("curves/").extend(points)

    def _images(self, folder: Path, *, grid: bool) -> None:
        """`figures/` and `panels/` as files, with `grid` also in the grid of the UI's charts page.

        Files lie at the top, panels as `panel_<id>.png`: the UI's comparison page lists no folders.
        No grid for a retraining: it prints all parameters of a run, a screenful, over each image.
        """
        from PIL import Image

        for path in sorted([*folder.glob("figures/*.png"), *folder.glob("panels/*.png")]):
            # MLflow refuses what an example's id may have.
            stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)
            name = f"panel_{stem}.png" if path.parent.name == "panels" else f"{stem}.png"
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            self.client.log_image(self.run_id, image, artifact_file=name)
            if grid:
                self.client.log_image(self.run_id, image, key=f"{path.parent.name}/{stem}", step=0)

    def _answers(self, path: Path) -> None:
        """The first questions of `judged.parquet`: a row per question, a column of answers per arm.

        Shortened (its name says how far): the UI loads a table whole. `results/evaluate/` has all.
        """
        if not path.exists():
            return
        import pandas as pd

        table = pd.read_parquet(path)
        by_arm = table.pivot(index="id", columns="arm", values="marked")
        questions = table.drop_duplicates("id").set_index("id")[["kind", "question", "reference"]]
        arms = [arm for arm in ARMS if arm in by_arm]
        shown = questions.head(TABLE_ROWS).join(by_arm[arms]).reset_index()
        data, name = shown.astype(object).fillna(""), f"responses_first_{TABLE_ROWS}.json"
        self.client.log_table(self.run_id, data=data, artifact_file=name)

    def datasets(self, root: Path, splits: str = "results/data/splits") -> None:
        """Lineage: the splits as MLflow datasets; DVC's hash of their folder is the digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from pyarrow import parquet

        digest = output_hash(root, splits)
        inputs = []
        for name, context in SPLITS.items():
            path = root / splits / f"{name}.parquet"
            if path.exists() and digest:
                source = json.dumps({"uri": f"{splits}/{path.name}"})
                profile = json.dumps({"rows": int(parquet.read_metadata(path).num_rows)})
                dataset = Dataset(name, digest, "local", source, profile=profile)
                tags = [InputTag("mlflow.data.context", context)]
                inputs.append(DatasetInput(dataset, tags=tags))
        self.client.log_inputs(self.run_id, datasets=inputs)


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where it is missing."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _numbers(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for key, text in row.items():
        try:
            yield key, float(text)
        except ValueError:
            continue  # an empty cell


def _metrics(folder: Path) -> dict[str, float]:
    path = folder / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """The few numbers by which a retraining is judged, Hal first."""
    return {
        f"before_after/{number.key}_{ARMS[arm]}": metrics[f"{arm}/{number.key}"]
        for number in sorted(HEADLINES, key=lambda number: number.key != "hal")
        for arm in ("tuned", "base")
        if f"{arm}/{number.key}" in metrics
    }
