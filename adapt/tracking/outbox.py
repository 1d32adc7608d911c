"""One journal on its way into MLflow: what it says is done there, each thing once.

Every step may be repeated, since a sender can die between doing it and noting it in `sent.json`:
the run is looked up by its tag `adapt.journal` before it is made, a curve's steps before they are
added (`adapt.tracking.curves`), files replace themselves.

The entries of a journal, by `kind`:

    run       name, store, experiment, parent, tags, params, pid, host     always the first
    tags      tags, and `of`: the journal of another run that they are for
    metrics   values
    datasets  datasets, see `lineage.datasets`
    child     stage, of: the run that a stage of this retraining has had; for people who read it
    end       status, tags

Folders of files are named `stage.<stage>`, `retraining` or `artifacts.<name>`.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from adapt.files import whole_file
from adapt.names import tag
from adapt.tracking import journal, lines
from adapt.tracking.curves import BATCH, Curves, Point
from adapt.tracking.refusals import Gone, Refusals, errors
from adapt.tracking.results import Parts, RunWriter
from adapt.tracking.store import TAG, Store, run_of

LIMIT = 100  # parameters or tags in one request, MLflow's limit
T = TypeVar("T")


@dataclass
class Outbox:
    """The journal in `folder`; `open` gives the store of an experiment, `find` MLflow's id of the
    run of another journal.
    """

    folder: Path
    open: Callable[[str], Store]
    find: Callable[[str, Store], str | None]
    refusals: Refusals = field(init=False)
    noted: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.noted = {"offsets": {}, "done": [], **journal.sent(self.folder)}
        self.refusals = Refusals(self.folder, self._answers)

    def send(self) -> bool:
        """Send all that is there; whether the run has ended and its journal is gone.

        Raises `Away` where MLflow does not answer: what is left is sent the next time.
        """
        # 1. Before reading: what nobody holds any more is not added to while we read.
        is_held = journal.is_held(self.folder)
        try:
            end = self._entries()
            self._points()
            self._files()
            # 2. Close what has ended, and what nobody can end any more.
            if is_held:
                return False
            self._close(end or self._unsaid())
        except Gone as gone:
            if is_held:
                return False
            self.refusals.drop(str(gone))
        finally:
            self._note()
        self._remove()
        return True

    @cached_property
    def about(self) -> dict[str, Any]:
        """The first entry, which says what the run is."""
        first = lines.read(self.folder / journal.ENTRIES)
        record = first[0].record if first else None
        if record is None or record["kind"] != "run":
            raise Gone("its first line is damaged")
        return record

    @cached_property
    def store(self) -> Store:
        """Where its run is, or will be."""
        return self.open(self.about["experiment"])

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, which is made where it is not there yet."""
        if "run_id" not in self.noted:
            self.noted["run_id"] = run_of(self.store, self.folder.name) or self._made()
            self._note()
        return str(self.noted["run_id"])

    @cached_property
    def writer(self) -> RunWriter:
        """What writes into the run."""
        client = self.store.client
        curves, start = Curves(client, self.run_id), self.about["time"]
        return RunWriter(client, self.run_id, curves, start, self._send_points)

    def _made(self) -> str:
        tags, above = {TAG: self.folder.name}, self.about["parent"]
        if above and (parent := self.find(above, self.store)):
            tags |= {"mlflow.parentRunId": parent}
        name, start = self.about["name"], self.about["time"]
        experiment = self.store.experiment_id
        run = self.store.client.create_run(
            experiment, start_time=start, tags=tags, run_name=tag(name, 250)
        )
        return str(run.info.run_id)

    # ---- what the journal says ------------------------------------------------------------------

    def _entries(self) -> dict[str, Any] | None:
        """Do what the entries say; returns the last one, if the run has ended."""
        path, end = self.folder / journal.ENTRIES, self.noted.get("end")
        while found := lines.read(path, self._offset(path)):
            for line in found:
                if line.record is None:
                    self.refusals.aside("an entry", "the line is damaged")
                elif line.record["kind"] == "end":
                    end = self.noted["end"] = line.record
                else:
                    self._entry(line.record)
                self.noted["offsets"][path.name] = line.end
        return end

    def _entry(self, entry: dict[str, Any]) -> None:
        kind = entry["kind"]
        if kind == "run":
            self._each("a parameter", list(entry["params"].items()), self.writer.parameters, LIMIT)
        if kind in ("run", "tags"):
            self._tags(entry["tags"], entry.get("of", ""))
        elif kind == "metrics":
            values = list(entry["values"].items())
            self._each("a metric", values, lambda m: self.writer.metrics(dict(m), entry["time"]))
        elif kind == "datasets":
            self.refusals.attempt("the datasets", lambda: self.writer.inputs(entry["datasets"]))

    def _tags(self, tags: dict[str, str], of: str = "") -> None:
        """Set tags on the run, or on the one of another journal, where that is known."""
        writer = self.writer
        if of:
            other = self.find(of, self.store)
            if other is None:
                return
            writer = replace(writer, run_id=other)
        given = [(key, text) for key, text in tags.items() if text]
        self._each("a tag", given, writer.tag, LIMIT)

    def _points(self) -> None:
        """Send live points; a file that is sent goes, unless somebody still writes to it."""
        paths = sorted((self.folder / journal.POINTS).glob("*"))
        writers = [path.name.partition("-")[0] for path in paths]
        for path, writer, following in zip(paths, writers, [*writers, ""][1:], strict=True):
            while found := lines.read(path, self._offset(path)):
                records = [line.record for line in found if line.record is not None]
                if len(records) < len(found):
                    self.refusals.aside("points of curves", "a line is damaged")
                points = [
                    Point(key, one["step"], value, one["time"])
                    for one in records
                    for key, value in one["values"].items()
                ]
                self._send_points(points)
                self.noted["offsets"][path.name] = found[-1].end
                self._note()
            if writer == following:
                path.unlink()
                self.noted["offsets"].pop(path.name, None)

    def _files(self) -> None:
        """Send what the run has left, part for part."""
        for folder in sorted((self.folder / journal.FILES).glob("[!.]*")):
            for name, part in self._parts(folder):
                key = f"{folder.name}/{name}"
                if key not in self.noted["done"]:
                    self.refusals.attempt(key, part)
                    self.noted["done"].append(key)
                    self._note()

    def _parts(self, folder: Path) -> Parts:
        kind, _, name = folder.name.partition(".")
        if kind == "stage":
            return self.writer.stage(name, folder)
        is_whole = kind == "retraining"
        return self.writer.retraining(folder) if is_whole else self.writer.artifacts(folder)

    def _unsaid(self) -> dict[str, Any]:
        """How a run has ended whose holder could not say it."""
        known = {"time": journal.last_written(self.folder), "tags": {}}
        if status := journal.status_left(self.folder):  # there was no room for an entry
            return {**known, "status": status}
        who = f"the process that had it (pid {self.about['pid']} on {self.about['host']})"
        return {**known, "status": "KILLED", "tags": {"adapt.error": f"{who} was killed"}}

    def _close(self, end: dict[str, Any]) -> None:
        self._tags(end["tags"])
        time = max(end["time"], self.about["time"])  # a clock may have been put back
        close = self.store.client.set_terminated
        self.refusals.attempt("its end", lambda: close(self.run_id, end["status"], end_time=time))

    # ---- how it is sent -------------------------------------------------------------------------

    def _each(
        self, what: str, items: Sequence[T], send: Callable[[Sequence[T]], None], size: int = BATCH
    ) -> None:
        """Send items by `size`; where MLflow refuses some, all others arrive."""
        for start in range(0, len(items), size):
            self.refusals.attempt_each(what, items[start : start + size], send)

    def _send_points(self, points: list[Point]) -> None:
        """Give points to their curves, but for those that MLflow refuses."""
        self._each("a point", points, self.writer.curves.send)

    def _answers(self) -> bool:
        """Whether MLflow takes something for this run, so that a refusal was meant for that alone.

        Raises `Gone` where somebody has deleted the run.
        """
        client = self.store.client
        try:
            client.set_tag(self.run_id, TAG, self.folder.name)
            return True
        except errors():
            pass
        try:
            stage = client.get_run(self.run_id).info.lifecycle_stage
        except errors() as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                return False
            stage = "deleted"
        if stage == "deleted":
            raise Gone("its run was deleted in MLflow")
        return False

    def _offset(self, path: Path) -> int:
        return int(self.noted["offsets"].get(path.name, 0))

    def _note(self) -> None:
        """Keep how far it is; where that fails, what is asked again is known to MLflow."""
        if not self.folder.exists():
            return
        try:
            with whole_file(self.folder / journal.SENT) as partial:
                partial.write_text(json.dumps(self.noted), encoding="utf-8")
        except OSError:
            return

    def _remove(self) -> None:
        done = self.folder.with_name(f"{journal.DONE}{self.folder.name}")
        self.folder.rename(done)
        shutil.rmtree(done, ignore_errors=True)
