"""Answers by actors: what a killed actor, a killed stage and Ctrl-C cost; nothing runs on."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from adapt.cluster import local
from adapt.stages import answer
from tests.faults.test_local_ray import marked
from tests.faults.test_ray_training_ended import family, open_to_others
from tests.stages.conftest import written
from tests.support import fanned, limits
from tests.support.drivers import mortal
from tests.support.faults import fault
from tests.support.ray_head import without_ray

pytestmark = pytest.mark.slow

ACTORS = 2
LOST = "answer: an actor was lost"


@pytest.fixture(autouse=True)
def no_other_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("results"), speaks=True)


@pytest.fixture(scope="module")
def want(results: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process answers."""
    root = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPT_STATE", str(root / "state"))
        (root / "out").mkdir()
        answer.run(fanned.CONFIG, results, root / "out", lambda step, points: None)
    return files(root / "out")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


@fault(
    "An actor is killed while it answers (`answer.actors`)",
    keeps="every answer but those of the batch that it was at",
    says=f"{LOST} (...); another one takes over its batch",
    then="is not needed: another actor starts, and the tables are those of an undisturbed stage",
)
def test_a_killed_actor_costs_one_batch(results, want, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv(fanned.DIES_AT, "20")
    notes, out = folder(tmp_path / "notes"), folder(tmp_path / "out")
    fanned.run(results, out, notes, ACTORS)
    assert (notes / "died").exists() and capfd.readouterr().err.count(LOST) == 1
    begun = Counter(fanned.noted(notes))
    assert sorted(begun.values())[-2:] == [1, 2], "one batch, once more"
    assert files(out) == want


class Stage:
    """The stage as a command, as often as it is started."""

    def __init__(self, results: Path, root: Path, actors: int) -> None:
        self.results, self.root, self.actors, self.runs = results, root, actors, 0
        paths = {"PYTHONPATH": str(Path(__file__).parents[2]), "ADAPT_STATE": str(root / "state")}
        self.env = without_ray(**paths)

    def start(self) -> tuple[subprocess.Popen[bytes], Path]:
        """The process, in a group of its own, and where its actors note what they begin."""
        self.runs += 1
        notes = folder(self.root / f"notes-{self.runs}")
        out = self.root / "out"
        shutil.rmtree(out, ignore_errors=True)
        words = [str(self.results), str(folder(out)), str(notes), str(self.actors)]
        with (self.root / "log.txt").open("wb") as log:
            command = [sys.executable, "-m", "tests.support.fanned", *words]
            return subprocess.Popen(
                command, env=self.env, cwd=self.root, stdout=log, stderr=log, start_new_session=True
            ), notes

    def said(self) -> str:
        return (self.root / "log.txt").read_text()


@fault(
    "Stage `answer` with actors is stopped (Ctrl-C) and, started again, killed half-way",
    keeps="every batch that was done; nothing runs on and no folder stays, 30 s later",
    says="adapt answer: stopped",
    then="goes on: it makes one batch an actor again at most, and ends with the same tables",
)
@pytest.mark.timeout(limits.WHOLE_TEST_S)
@pytest.mark.parametrize("actors", [1, ACTORS])
def test_a_stopped_or_killed_stage_goes_on(results, want, tmp_path, actors):
    stage, begun = Stage(results, tmp_path, actors), []
    total = 2 * 3 * 8 + 2 * 2 * 2  # of each model: three passes over 16 pictures, two of two parts
    for share, end in ((0.25, signal.SIGINT), (0.5, signal.SIGKILL)):
        process, notes = stage.start()
        with mortal(process):
            enough = share * total - sum(map(len, begun))

            def is_there(notes=notes, enough=enough, process=process) -> bool:
                assert process.poll() is None, stage.said()[-3000:]
                return len(fanned.noted(notes)) >= enough

            limits.until(is_there, "work of the actors", limits.COMMAND_S)
            processes = family(process)
            assert open_to_others(processes) == []
            (mark,) = {one.environ().get(local.MARK) for one in processes} - {None}
            # Ctrl-C reaches the whole group of a terminal; a kill one process.
            send = os.killpg if end == signal.SIGINT else os.kill
            send(process.pid, end)
            code = process.wait(limits.STEP_S)
        assert code == (130 if end == signal.SIGINT else -signal.SIGKILL), stage.said()[-3000:]
        if end == signal.SIGINT:
            assert stage.said().rstrip().splitlines()[-1] == "adapt answer: stopped"
        limits.until(lambda mark=mark: not marked(mark), "end of Ray", limits.ORPHANS_S)
        gone = Path(mark)
        limits.until(lambda gone=gone: not gone.exists(), "removal of its folder", limits.ORPHANS_S)
        begun.append(fanned.noted(notes))
    process, notes = stage.start()
    assert process.wait(limits.COMMAND_S) == 0, stage.said()[-3000:]
    begun.append(fanned.noted(notes))
    assert files(tmp_path / "out") == want
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        assert len({*begun[earlier]} & {*begun[later]}) <= actors, "one batch an actor"
    assert len({*begun[0], *begun[1], *begun[2]}) == total
    assert sum(map(len, begun)) <= total + 2 * actors
