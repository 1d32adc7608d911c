"""A training that is cut off, at its end or by a damaged or unwritable checkpoint: no step is done
twice that need not be, and nothing has to be deleted by hand.
"""

import hashlib
import json
import resource
import threading
from pathlib import Path

import pytest
import yaml

from adapt.models.load import save
from adapt.pairs.table import write_pairs
from adapt.params import InputError
from adapt.preference import claim, manifest
from adapt.preference.checkpoints import SNAPSHOT, rescue
from adapt.preference.fit import fit
from adapt.preference.settings import Config
from tests.support import limits, tiny_world
from tests.support.faults import fault
from tests.support.preference_rows import origin, pairs, settings

TINY = settings(steps=2, checkpoint_every=1, w_vag=0.0, w_attn=0.0, batch_pairs=2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save(tiny_world.model(), tiny_world.processor(), folder / "base")
    write_pairs(folder / "pairs.parquet", pairs(4), origin())
    return folder


class Runs:
    """Trainings of one workspace, each into a folder of its own; `steps` are those of the last."""

    def __init__(self, inputs: Path, root: Path) -> None:
        self.inputs, self.root, self.state = inputs, root, root / ".state/train"
        self.steps: list[int] = []
        self._count = 0

    def train(self, config: Config = TINY, log=lambda step: None) -> Path:
        self._count += 1
        out, self.steps = self.root / f"out{self._count}", []
        out.mkdir(parents=True)

        def follow(step: int, metrics: object) -> None:
            self.steps.append(step)
            log(step)

        base, table = self.inputs / "base", self.inputs / "pairs.parquet"
        fit(config, base, table, out, self.state, follow, self.root)
        return out

    def kept(self) -> list[str]:
        """Folders of trainings that are kept."""
        return sorted(path.parent.name for path in self.state.glob(f"*/{claim.ABOUT}"))


@pytest.fixture
def runs(inputs, tmp_path) -> Runs:
    return Runs(inputs, tmp_path)


def recorded(root: Path, out: Path) -> None:
    """What DVC does in the workspace `root` after the stage has ended."""
    md5 = hashlib.md5((out / "history.csv").read_bytes()).hexdigest()
    outs = [{"path": "results/train/history.csv", "md5": md5}]
    known = {"stages": {"train": {"cmd": "train", "outs": outs}}}
    (root / "dvc.lock").write_text(yaml.safe_dump(known))


def stop_at(number: int):
    def log(step: int) -> None:
        if step == number:
            raise KeyboardInterrupt

    return log


def weights(out: Path) -> bytes:
    return (out / "model/model.safetensors").read_bytes()


@fault(
    "The train stage is killed after its last step, before DVC has recorded the result",
    keeps="the result, which takes its space once",
    says="train: the result of <time> is there; DVC does not know it yet",
    then="hands it over without a step; once DVC knows it, it is deleted",
)
def test_a_result_that_dvc_does_not_know_is_handed_over_again(runs, capsys):
    first = runs.train()
    assert runs.steps == [1, 2]
    second = runs.train()
    assert runs.steps == [] and weights(second) == weights(first)
    assert "is there; DVC does not know it yet" in capsys.readouterr().err
    kept = (runs.state / runs.kept()[0] / "final/model/model.safetensors").stat()
    assert kept.st_nlink == 3 and kept.st_ino == (second / "model/model.safetensors").stat().st_ino
    recorded(runs.root, second)
    claim.sweep(runs.state, runs.root)
    assert runs.kept() == []


def begun(root: Path, name: str, code: str = "1") -> Path:
    """The folder of a training of the workspace `root` that has a checkpoint and a result."""
    with claim.claimed(root / ".state", name, root, code) as training:
        for part in ("checkpoint", "final"):
            (training.folder / part).mkdir(exist_ok=True)
        return training.folder


def lock(root: Path, text: str) -> None:
    root.mkdir(exist_ok=True)
    (root / "dvc.lock").write_text(f"stages: {{train: {{cmd: {text}}}}}")


@fault(
    "A training is cut off, and another one is done before it is gone on with",
    keeps="the checkpoint, until DVC has recorded the other one",
    then="deletes what is out of date",
)
def test_a_training_that_was_given_up_is_swept(tmp_path):
    lock(tmp_path, "before")
    folder = begun(tmp_path, "train-1")
    claim.sweep(tmp_path / ".state", tmp_path)
    assert folder.exists()
    lock(tmp_path, "other")
    with claim.claimed(tmp_path / ".state", "train-1", tmp_path, "1"):
        lock(tmp_path, "third")
        claim.sweep(tmp_path / ".state", tmp_path)
        assert folder.exists(), "somebody trains"
    claim.sweep(tmp_path / ".state", tmp_path)
    assert not folder.exists()


def test_what_belongs_to_another_workspace_is_left_to_it_while_it_is_there(tmp_path):
    lock(tmp_path / "one", "before")
    folder = begun(tmp_path / "one", "train-1")
    lock(tmp_path / "two", "other")
    claim.sweep(tmp_path / "one/.state", tmp_path / "two")
    assert folder.exists()
    (tmp_path / "one").rename(tmp_path / "moved")
    claim.sweep(tmp_path / "moved/.state", tmp_path / "moved")
    assert (tmp_path / "moved/.state/train-1").exists(), "moved with its state folder"
    with claim.claimed(tmp_path / "shared", "train-1", tmp_path / "gone", "1") as training:
        pass
    claim.sweep(tmp_path / "shared", tmp_path / "two")
    assert not training.folder.exists(), "its workspace is gone"


def test_a_training_that_is_asked_for_again_on_purpose_trains(tmp_path):
    """`dvc repro --force`: DVC's lock is the same before and after, with the curve in it."""
    (tmp_path / "history.csv").write_text("step,loss\n1,0.5\n")
    recorded(tmp_path, tmp_path)
    folder = begun(tmp_path, "train-1")
    (folder / "final/history.csv").write_text("step,loss\n1,0.4\n")
    claim.sweep(tmp_path / ".state", tmp_path)
    assert folder.exists(), "DVC knows another result of before"
    (folder / "final/history.csv").write_text("step,loss\n1,0.5\n")
    claim.sweep(tmp_path / ".state", tmp_path)
    assert not folder.exists()


def test_a_result_of_other_code_goes_and_a_checkpoint_stays(tmp_path):
    folder = begun(tmp_path, "train-1", code="1")
    with claim.claimed(tmp_path / ".state", "train-1", tmp_path, "2") as training:
        assert not training.final.exists() and (folder / "checkpoint").exists()


def test_a_note_that_cannot_be_read_is_no_reason_to_stop(tmp_path):
    for number, text in enumerate(("", "[", "[1]", '{"workspace": 3}', "[" * 9999, "\0")):
        (begun(tmp_path, f"train-{number}") / claim.ABOUT).write_text(text)
    claim.sweep(tmp_path / ".state", tmp_path)
    assert begun(tmp_path, "train-0").exists()


@fault(
    "A checkpoint is damaged: cut, changed, or a file of it lost",
    keeps="the damaged one, aside; Ray's one before it",
    says="train: <folder> is damaged (<file> is not what was written); put aside as <name>",
    then="goes on from the one before, or from the start, and ends with the same model",
)
def test_a_damaged_checkpoint_is_put_aside(runs, capsys):
    with pytest.raises(KeyboardInterrupt):
        runs.train(log=stop_at(2))
    (folder,) = runs.state.glob("train-*/checkpoint")
    (folder / "optimizer.pt").write_bytes((folder / "optimizer.pt").read_bytes()[:1000])
    out = runs.train()
    said = capsys.readouterr().err
    assert f"train: {folder} is damaged (optimizer.pt is not what was written); put aside" in said
    assert runs.steps == [1, 2] and (folder.parent / ".checkpoint.damaged").is_dir()
    assert (out / "model/model.safetensors").exists()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / "a").write_bytes(b"12"), "a is not what was written"),
        (lambda f: (f / "a").write_bytes(b"x" * 10), "a is not what was written"),
        (lambda f: (f / "sub/b").unlink(), "b is missing"),
        (lambda f: (f / "manifest-1.json").unlink(), "manifest-1.json is missing"),
        (lambda f: (f / "manifest-0.json").unlink(), "manifest-0.json is missing"),
        (lambda f: (f / "manifest-0.json").write_text("{"), "its list of files cannot be read"),
        (lambda f: (f / "manifest-1.json").write_text("[]"), "its list of files cannot be read"),
        (lambda f: None, ""),
    ],
)
def test_what_is_wrong_with_a_checkpoint(tmp_path, harm, says):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"1234567890")
    manifest.write(tmp_path, 0, 2)
    (tmp_path / "sub/b").write_bytes(bytes(range(256)) * 2**14)
    manifest.write(tmp_path, 1, 2)
    harm(tmp_path)
    assert manifest.problem(tmp_path) == says


@fault(
    "Ray is killed while it writes its list of checkpoints",
    keeps="the newest whole checkpoint",
    then="goes on from it",
)
def test_rays_list_that_cannot_be_read_costs_no_whole_checkpoint(tmp_path):
    run, to = tmp_path / "run", tmp_path / "checkpoint"
    for number in (1, 2, 3):
        folder = run / f"checkpoint_{number}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(number))
        for rank in (0, 1):
            manifest.write(folder, rank, 2)
    listed = {"checkpoint_results": [{"checkpoint_dir_name": f"checkpoint_{n}"} for n in (2, 3)]}
    (run / SNAPSHOT).write_text(json.dumps(listed))
    rescue(run, to)
    assert run.exists() and not to.exists(), "nothing to rescue"
    (run / SNAPSHOT).write_text(json.dumps(listed)[:30])
    (run / "checkpoint_3" / f"{manifest.NAME}-1.json").unlink()  # the second worker's share
    rescue(run, to)
    assert (to / "weights").read_text() == "2" and not run.exists()


@fault(
    "The disk is full while a checkpoint is written",
    keeps="the checkpoint before",
    says="<folder>: the disk is full, so a checkpoint could not be written; the one before is "
    "kept; free some space and run again, to go on from there",
    then="goes on from the checkpoint before",
)
def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(runs):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int) -> None:
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    try:
        with pytest.raises(InputError, match="the disk is full, so a checkpoint could not be wri"):
            runs.train(log=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in runs.state.glob("train-*/*/")] == ["checkpoint"]
    runs.train()
    assert runs.steps == [2]


@fault(
    "Two people start the same training at once, with one state folder",
    keeps="one training; both have its result",
    says="train: another process trains with the same data, settings and seed; waiting for it, "
    "to share its result",
    then="needs nobody to delete anything",
)
def test_two_equal_trainings_at_once_are_one(runs, capsys):
    waits, results = threading.Event(), []
    other = Runs(runs.inputs, runs.root / "second")
    other.state = runs.state

    def hold(step: int) -> None:
        waits.wait(limits.STEP_S)

    first = threading.Thread(target=lambda: results.append(runs.train(log=hold)))
    first.start()
    limits.until(lambda: runs.steps, "first step")
    second = threading.Thread(target=lambda: results.append(other.train()))
    second.start()
    said = ""

    def is_told() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "waiting for it" in said

    limits.until(is_told, "sentence")
    waits.set()
    first.join()
    second.join()
    assert runs.steps == [1, 2] and other.steps == [] and "to share its result" in said
    assert weights(results[0]) == weights(results[1])


def test_a_training_that_lacks_processes_is_not_taken_for_one_that_waits(tmp_path, capsys):
    """`fork` raises the error of a lock that another process has."""
    with (
        pytest.raises(BlockingIOError, match="Resource temporarily"),
        claim.claimed(tmp_path / ".state", "train-1", tmp_path, "1"),
    ):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    assert "waiting" not in capsys.readouterr().err
