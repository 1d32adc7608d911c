"""What goes into an MLflow run: tags, parameters, and what a stage left in `results/<stage>/`.

The same names are used in the run of a stage and in the run of the whole retraining:
`test/<arm>/<metric>` for what `evaluate` found, `<stage>/<metric>` for the others,
`curves/<signal>/<arm>` for attention-degradation curves (the step is the token's position). The
part before the last slash becomes a section of charts in the UI, in alphabetical order; so a
retraining has its main numbers a second time as `before_after/...`, where tables and charts begin.

`files` and `files_of_retraining` are for those who write a journal, and import no MLflow;
`RunWriter` is for the sender. All that it writes may be written again: a point, a picture
or a table is there once.
"""

import csv
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.metrics.headline import ARMS, HEADLINES
from adapt.names import file_name, tag
from adapt.tracking.curves import Curves, Point
from adapt.tracking.lineage import SPLITS

if TYPE_CHECKING:
    from mlflow import MlflowClient

Texts = Mapping[str, str]
Parts = Iterator[tuple[str, Callable[[], None]]]
TABLE_ROWS = 200
TABLE = f"responses_first_{TABLE_ROWS}.json"
NUMBERS = ("metrics.json", "history.csv")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
TABLES = ("steering.csv",)  # files that are shown as they are
SHOWN = (*NUMBERS, *TABLES, "curves.csv", "judged.parquet", "figures/*.png", "panels/*.png")


def prefix(stage: str) -> str:
    """What the metric names of a stage begin with."""
    return "test/" if stage == "evaluate" else f"{stage}/"


def files(folder: Path) -> dict[str, Path]:
    """What a stage left in its `folder` of what is shown in MLflow, by path below it."""
    found = (path for pattern in SHOWN for path in sorted(folder.glob(pattern)))
    return {path.relative_to(folder).as_posix(): path for path in found if path.is_file()}


def files_of_retraining(results: Path) -> dict[str, Path]:
    """What is shown with a whole retraining, by path below `results`."""
    shown = {"train": NUMBERS, "answer": TABLES}
    stages = {
        stage: {name: path for name, path in files(results / stage).items() if name in names}
        for stage, names in shown.items()
    }
    stages["evaluate"] = files(results / "evaluate")
    return {f"{stage}/{name}": path for stage, of in stages.items() for name, path in of.items()}


@dataclass(frozen=True)
class RunWriter:
    """Writes into the run `run_id`, which began at `start` (ms since 1970).

    `send` gives points to `curves`, less those that MLflow refuses.
    """

    client: "MlflowClient"
    run_id: str
    curves: Curves
    start: int
    send: Callable[[list[Point]], None]

    def tag(self, tags: Iterable[tuple[str, str]]) -> None:
        """Set tags, at most 100."""
        from mlflow.entities import RunTag

        given = [RunTag(key, tag(text)) for key, text in tags]
        self.client.log_batch(self.run_id, tags=given)

    def parameters(self, values: Iterable[tuple[str, str]]) -> None:
        """Log parameters under their whole names, at most 100."""
        from mlflow.entities import Param

        given = [Param(key, tag(text)) for key, text in values]
        self.client.log_batch(self.run_id, params=given)

    def metrics(self, values: Mapping[str, float], time: int) -> None:
        """Log single values, in the order of `values`, unless the run has a curve of that name."""
        known = self.curves.known(values)
        new = {key: value for key, value in values.items() if not known[key]}
        self.send([Point(key, 0, float(value), time) for key, value in new.items()])

    def inputs(self, splits: Sequence[Mapping[str, Any]]) -> None:
        """Log what `lineage.datasets` found as MLflow's datasets."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for split in splits:
            source = json.dumps({"uri": split["uri"]})
            profile = json.dumps({"rows": split["rows"]})
            dataset = Dataset(split["name"], split["digest"], "local", source, profile=profile)
            tags = [InputTag("mlflow.data.context", SPLITS[split["name"]])]
            inputs.append(DatasetInput(dataset, tags=tags))
        self.client.log_inputs(self.run_id, datasets=inputs)

    # ---- folders of results: parts, each with a name, that succeed or fail on their own ---------

    def stage(self, stage: str, folder: Path) -> Parts:
        """All that a stage left in its `folder`; what it does not write is left out."""
        yield "history.csv", partial(self._history, stage, folder)
        yield "metrics.json", partial(self._metrics, stage, folder)
        yield "curves.csv", partial(self._curves, folder / "curves.csv", of_words=True)
        yield from self._images(folder, grid=True)
        yield from self._tables(folder)
        yield "judged.parquet", partial(self._answers, folder / "judged.parquet")

    def retraining(self, results: Path) -> Parts:
        """What `train` and `evaluate` left under `results`, of the curves the main ones.

        Of stage `answer` how the models are steered.
        """
        evaluated = results / "evaluate"
        # First, because the UI's comparison plots what was logged first.
        yield "before_after", partial(self._headline, evaluated)
        for stage in ("train", "evaluate"):
            folder = results / stage
            yield f"{stage}/history.csv", partial(self._history, stage, folder)
            yield f"{stage}/metrics.json", partial(self._metrics, stage, folder)
        yield "curves.csv", partial(self._curves, evaluated / "curves.csv", of_words=False)
        yield from self._images(evaluated, grid=False)
        yield from self._tables(results / "answer")
        yield "judged.parquet", partial(self._answers, evaluated / "judged.parquet")

    def artifacts(self, folder: Path) -> Parts:
        """Files as they are, at the top."""
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            yield path.name, partial(self.client.log_artifact, self.run_id, str(path))

    def _tables(self, folder: Path) -> Parts:
        for path in (folder / name for name in TABLES):
            if path.exists():
                yield path.name, partial(self.client.log_artifact, self.run_id, str(path))

    def _history(self, stage: str, folder: Path) -> None:
        """`history.csv`: the steps that the run does not have yet.

        Those are from before the run, which went on from a checkpoint, or were lost on their way.
        """
        begin = prefix(stage)
        points = [
            Point(begin + name, int(row["step"]), value, self.start)
            for row in _rows(folder / "history.csv")
            for name, value in _numbers(row)
            if name != "step"
        ]
        self.send(points)

    def _metrics(self, stage: str, folder: Path) -> None:
        """`metrics.json` but for its curves: a point more would bend them."""
        values = {prefix(stage) + name: value for name, value in _metrics(folder).items()}
        self.metrics(values, self.start)

    def _headline(self, evaluated: Path) -> None:
        self.metrics(_headline(_metrics(evaluated)), self.start)

    def _curves(self, path: Path, *, of_words: bool) -> None:
        """Curves of every signal and arm; with `of_words`, of object words alone, too."""
        points = []
        for row in sorted(_rows(path), key=lambda row: int(row["position"])):
            if row["split"] == "all" or of_words:
                words = "" if row["split"] == "all" else f"_{row['split']}"
                name, value = f"{row['signal']}/{row['arm']}{words}", float(row["mean"] or math.nan)
                points.append(Point(f"curves/{name}", int(row["position"]), value, self.start))
        self.send(points)

    def _images(self, folder: Path, *, grid: bool) -> Parts:
        """`figures/` and `panels/` as files, with `grid` also in the grid of the UI's charts page.

        Files lie at the top, panels as `panel_<id>.png`: the UI's comparison page lists no folders.
        No grid for a retraining: it prints all parameters of a run, a screenful, over each image.
        """
        for path in sorted([*folder.glob("figures/*.png"), *folder.glob("panels/*.png")]):
            yield f"{path.parent.name}/{path.name}", partial(self._image, path, grid)

    def _image(self, path: Path, grid: bool) -> None:
        from PIL import Image

        # A panel's name was made by `file_name`, which would change it once more.
        stem = path.stem if _NAME.fullmatch(path.stem) else file_name(path.stem)
        name = f"panel_{stem}.png" if path.parent.name == "panels" else f"{stem}.png"
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        self.client.log_image(self.run_id, image, artifact_file=name)
        if not grid:
            return
        key = f"{path.parent.name}/{stem}"
        # MLflow gives each picture of the grid a name of its own, and would show it twice.
        mark = f"images/{key.replace('/', '~')}+step+"
        there = self.client.list_artifacts(self.run_id, "images")
        if not any(file.path.startswith(mark) and "+compressed" in file.path for file in there):
            self.client.log_image(self.run_id, image, key=key, step=0)

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
        data = shown.astype(object).fillna("")
        # Not `log_table`, which adds the rows to a table that is there.
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, TABLE)
            data.to_json(file, orient="split", index=False)
            self.client.log_artifact(self.run_id, str(file))
        known = json.dumps([{"path": TABLE, "type": "table"}])
        self.client.set_tag(self.run_id, "mlflow.loggedArtifacts", known)


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
        except (TypeError, ValueError):
            continue  # an empty cell, or a row that is cut off


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
