"""Workspaces for tests: a copy of this project in a git repository of its own, with settings that
take seconds.

Nothing of the machine's state gets in or out: MLflow store, Prefect home and DVC's caches are
inside the copy.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support import limits

ROOT = Path(__file__).resolve().parents[2]

SMOKE: dict[str, Any] = {
    "scenes": {"train_images": 120, "validation_images": 12, "test_images": 24},
    "base": {
        "scratch": {
            "vision_steps": 12,
            "vision_batch": 16,
            "language_steps": 12,
            "language_batch": 8,
            "width": 16,
            "heads": 2,
            "vision_layers": 1,
            "text_layers": 2,
        }
    },
    "pairs": {"images": 24, "samples": 3, "min_gap": 0.01, "chosen": "any"},
    "train": {"workers": 0, "batch_pairs": 4, "steps": 4, "checkpoint_every": 2},
    "max_new_tokens": 12,
    "evaluate": {"bootstrap": 100, "panels": 1},
    "anchor": {"noise_images": 2},
}
"""Small enough for a retraining in well under a minute; the model it makes is useless."""


def copy(to: Path, settings: Mapping[str, Any] = SMOKE) -> Path:
    """Copy what git tracks or would track, commit it in a new repository, and change params.yaml by
    `settings`.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("results/", "dvc.lock")):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    override(to / "params.yaml", settings)
    repository(to)
    return to


def repository(root: Path) -> None:
    """Make `root` a git repository with everything committed."""
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        [*who, "commit", "--quiet", "--message=workspace"],
    ):
        subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


def override(path: Path, settings: Mapping[str, Any]) -> None:
    """Change values in a YAML file of sections; a key that the file does not have is an error of
    the test.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    _override(content, settings)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _override(content: dict[str, Any], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        assert key in content, key
        if isinstance(value, Mapping):
            _override(content[key], value)
        else:
            content[key] = value


def environment(root: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command in `root` sees: nothing that points to this machine's services or to another
    workspace's state.
    """
    foreign = ("PREFECT_", "MLFLOW_", "RAY_", "ADAPT_", "DVC_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    # The package under test is the copy, also when the original is installed.
    return (
        env
        | {"PATH": path, "PYTHONPATH": str(root), "ADAPT_STATE": str(root / ".state")}
        | dict(extra or {})
    )


def output(words: Sequence[str], env: Mapping[str, str], root: Path, limit: float) -> str:
    """Output of a program, both streams in one; it must succeed."""
    done = subprocess.run(
        words,
        cwd=root,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=limit,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def command(root: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    """Output of `python -m ...` in a workspace; it must succeed."""
    python = [sys.executable, "-m", *words]
    return output(python, environment(root, env), root, limits.RETRAINING_S)


def processes(root: Path) -> list[str]:
    """Command lines of living processes that work in `root` or name it; a test asserts that none is
    left.
    """
    lines = []
    for process in found(root):
        with suppress(psutil.NoSuchProcess):
            lines.append(" ".join(process.cmdline()))
    return lines


def found(root: Path) -> list[psutil.Process]:
    """Those processes, the oldest first."""
    here = []
    for process in psutil.process_iter():
        try:
            words, folder = process.cmdline(), Path(process.cwd())
            named = any(str(root) in word for word in words) or folder.is_relative_to(root)
            if named and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                here.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return sorted(here, key=lambda process: process.create_time())


def all_end(root: Path, seconds: float = limits.STEP_S) -> None:
    """No process stays that works in `root`; the one that sends runs to MLflow takes seconds."""
    limits.until(lambda: not processes(root), "end of all processes", seconds)
