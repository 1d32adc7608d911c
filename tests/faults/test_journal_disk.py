"""The disk of the journal is full, or cannot be written at all: the work goes on."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from adapt.tracking import journal, runs
from adapt.tracking.store import Store
from tests.support import limits, recording, tracked, workspace
from tests.support.faults import fault

# A stage whose disk is full from step 21 to its end. HOW makes it so, and is undone at the end.
SCRIPT = """
import os, resource, sys
from pathlib import Path
from adapt.params import Settings
from adapt.tracking import journal, runs
from adapt.tracking.store import Store, TrackingConfig

class Config(Settings):
    beta: float

root, how = Path.cwd(), sys.argv[1]
store = Store(root, TrackingConfig(experiment="adapt", model="adapt"))
with runs.stage_run(store, "train", Config(beta=0.5)) as run:
    for step in range(1, 21):
        run.log_step(step, {"loss": step / 100})
    if how == "full":
        filler = (root / ".state" / "filler").open("wb", buffering=0)
        for size in (4096, 1):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError as error:
                assert error.errno == 28
    else:
        size = (run.journal.folder / journal.ENTRIES).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for step in range(21, 2001):
        run.log_step(step, {"loss": step / 100})
    run.log_results(root / "results" / "train")
print("the stage has ended")
if how == "full":
    # The disk goes with this process: what was written there is brought out of it first.
    filler.close()
    os.unlink(root / ".state" / "filler")
    import shutil
    shutil.copytree(root / ".state" / "tracking", root / "saved")
"""
MOUNT = 'mount -t tmpfs -o size=1m tmpfs .state && exec "$0" "$@"'


def run_script(store: Store, how: str, *before: str) -> subprocess.CompletedProcess[str]:
    """The stage above, in a process that may not start a sender."""
    recording.leave(store.root, range(1, 2001))
    script = store.root / "stage.py"
    script.write_text(textwrap.dedent(SCRIPT))
    env = workspace.environment(store.root, {"PYTHONPATH": str(workspace.ROOT)})
    command = [*before, sys.executable, str(script), how]
    return subprocess.run(
        command,
        cwd=store.root,
        env=env,
        capture_output=True,
        text=True,
        timeout=limits.COMMAND_S,
        check=False,
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


def require_whole(store: Store) -> None:
    """The run has ended well and has every step, although its journal could not hold them."""
    assert tracked.sent(store) == []
    (run,) = recording.found(store)
    assert run.info.status == "FINISHED" and run.data.metrics["train/pairs"] == 2
    assert recording.curve(store, run) == list(range(1, 2001))


@fault(
    "the disk of the state folder is full from the middle of a training to its end",
    keeps="the training, its result, how its run has ended; the history brings all steps",
    says="adapt: ... cannot be written (No space left on device); the work goes on, and MLflow may",
    then="it is recorded when there is room",
)
def test_a_full_disk(store: Store) -> None:
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mounted = shutil.which("unshare") and subprocess.run(
        [*unshare, MOUNT, "true"], cwd=store.root, capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    done = run_script(store, "full", *unshare, MOUNT)
    assert (done.returncode, done.stdout) == (0, "the stage has ended\n"), done.stderr
    assert done.stderr.count("\n") == done.stderr.count("No space left on device") == 1
    for folder in (store.root / "saved").iterdir():
        if (folder / journal.ENTRIES).exists():
            shutil.copytree(folder, journal.home(store.root) / folder.name)
    require_whole(store)


@fault(
    "no file may grow beyond a limit (a quota) while a training is recorded",
    keeps="the training, its result, how its run has ended; the history brings all steps",
    says="adapt: ... cannot be written (File too large); the work goes on, and MLflow may lack",
)
def test_files_that_may_not_grow(store: Store) -> None:
    done = run_script(store, "limit")
    assert (done.returncode, done.stdout) == (0, "the stage has ended\n"), done.stderr
    assert done.stderr.count("\n") == done.stderr.count("File too large") == 1
    require_whole(store)


@fault(
    "the state folder cannot be written at all when a stage begins",
    keeps="the stage and its results",
    says="adapt: ... cannot be written (Not a directory); the work goes on, and MLflow may lack",
    then="runs are recorded again when it can be written",
)
def test_a_state_folder_that_cannot_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.root / "file").write_text("")
    monkeypatch.setenv("ADAPT_STATE", str(store.root / "file"))
    tracked.results(store.root)
    parent = runs.start_retraining(store, "tonight", {})
    monkeypatch.setenv("ADAPT_PARENT_RUN", parent)
    with runs.stage_run(store, "train", recording.CONFIG) as run:
        recording.log(run, range(1, 100))
        run.log_results(store.root / "results" / "train")
    runs.finish_retraining(store, parent, tracked.STAGES, {})
    monkeypatch.delenv("ADAPT_STATE")
    with pytest.raises(runs.Unreachable, match="has no run"):
        runs.recorded(store, parent)
    (told,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (Not a directory); the work goes on" in told
