"""The SLURM script, with SLURM's commands standing in for a cluster of two nodes on loopback."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import limits
from tests.support.closure import ROOT
from tests.support.ray_head import without_ray

SCRIPT = ROOT / "infra" / "slurm" / "train.sbatch"
# What `sbatch` takes in a script (its manual), as far as it is used or left to be chosen.
OPTIONS = {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "mem", "time", "output"}
OPTIONS |= {"gpus-per-node"}
# `srun` runs the command on the nodes it names; here both are this machine.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/bash\necho first; echo second\n"
HOSTNAME = "#!/bin/bash\necho 127.0.0.1\n"
DVC = """#!{python}
import ray, sys, time
ray.init(log_to_driver=False)
for _ in range(600):
    there = sum(one["Alive"] for one in ray.nodes())
    if there == 2:
        break
    time.sleep(0.2)
print("asked", sys.argv[1:], "nodes", there, flush=True)
"""


def test_the_options_are_sbatchs() -> None:
    given = re.findall(r"^##?SBATCH --([a-z-]+)=\S", SCRIPT.read_text(), flags=re.MULTILINE)
    assert set(given) == OPTIONS and len(given) == len(OPTIONS)


@pytest.mark.slow
def test_both_nodes_are_there_and_nothing_is_left(tmp_path: Path) -> None:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    stand_ins = {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME}
    stand_ins["dvc"] = DVC.format(python=sys.executable)
    for name, content in stand_ins.items():
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    for name in ("ray", "python"):
        (programs / name).symlink_to(Path(sys.executable).parent / name)
    # A short folder: sockets have names of 107 bytes at most.
    short = Path("/tmp") / f"slurm-{os.getpid()}"
    env = without_ray(
        SLURM_JOB_ID=str(os.getpid()),
        SLURM_JOB_NODELIST="node[1-2]",
        SLURM_CPUS_PER_TASK="1",
        RAY_TMPDIR=str(short),
        RAY_raylet_start_wait_time_s="120",
    )
    short.mkdir()
    try:
        done = subprocess.run(
            ["bash", str(SCRIPT)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=limits.COMMAND_S,
        )
        assert "asked ['repro', '--single-item', 'train'] nodes 2" in done.stdout, done.stderr
        assert done.returncode == 0, done.stderr
        limits.until(lambda: not _left(short), "end of Ray", limits.ORPHANS_S)
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _left(folder: Path) -> list[psutil.Process]:
    """Processes of the Ray that was started in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_TMPDIR") == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found
