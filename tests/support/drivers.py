"""Programs that tests start and must not leave behind, and what the folder of a training shows."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapt.preference.checkpoints import SNAPSHOT


@contextmanager
def mortal(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which does not outlive the block."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def registered(root: Path) -> int:
    """The step of the last checkpoint that Ray knows of the training in `root`, 0 for none."""
    steps = [0]
    for snapshot in root.glob(f"state/train-*/train-*/{SNAPSHOT}"):
        with suppress(OSError, ValueError):  # it is just being written
            for one in json.loads(snapshot.read_text())["checkpoint_results"]:
                state = snapshot.parent / one["checkpoint_dir_name"] / "trainer_state.json"
                steps.append(json.loads(state.read_text())["global_step"])
    return max(steps)
