"""Processes that stay in the background: started in their own group, remembered in a file, found
again and ended.

A process id alone does not say which process it is, because the system hands it out again; the time
at which the process was started goes with it.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from adapt import environment
from adapt.params import InputError
from flows.process import alive, end

PATIENCE = 180.0
"""Seconds a service gets to answer; Prefect's first start makes its tables and takes up to 30 s on
a busy machine.
"""
GRACE = 30.0
"""Seconds to end: a worker that is stopped lets its retraining end its stage first."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process to keep: how it is started, and how one sees that it works."""

    name: str
    command: tuple[str, ...]
    address: str
    port: int | None
    variable: str
    answers: Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Running:
    """What the pid file says. `born` tells the process from a later one with the same id."""

    pid: int
    born: float
    address: str


def launch(root: Path, service: Service, env: Mapping[str, str]) -> None:
    """Start one service in the background, in a process group of its own."""
    kept_in = folder(root)
    kept_in.mkdir(parents=True, exist_ok=True)
    with (kept_in / f"{service.name}.log").open("wb") as log:
        child = subprocess.Popen(
            service.command,
            cwd=root,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    kept = Running(
        pid=child.pid, born=psutil.Process(child.pid).create_time(), address=service.address
    )
    (kept_in / f"{service.name}.json").write_text(json.dumps(asdict(kept)) + "\n", encoding="utf-8")


def wait(root: Path, service: Service) -> None:
    """Return when `service` answers; `InputError` with its last words when it ends before, or does
    not answer.
    """
    began = said = time.monotonic()
    log = folder(root) / f"{service.name}.log"
    while not service.answers():
        now = time.monotonic()
        if running(root, service.name) is None:
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [
                "it said nothing"
            ]
            raise InputError(
                f"{service.name} ended at once: {words[-1].strip()} (all of it: {log})"
            )
        if now - began > PATIENCE:
            raise InputError(f"{service.name} does not answer after {PATIENCE:.0f} s; see {log}")
        if now - said > 5:
            said = now
            print(f"{service.name}: starting, {now - began:.0f} s", flush=True)
        time.sleep(0.3)


def running(root: Path, name: str) -> Running | None:
    """The process of a service, if the one that we started still runs; not another one that has got
    its id since.
    """
    try:
        kept = Running(**json.loads((folder(root) / f"{name}.json").read_text(encoding="utf-8")))
        process = psutil.Process(kept.pid)
    except (FileNotFoundError, json.JSONDecodeError, TypeError, psutil.NoSuchProcess):
        return None
    return kept if alive(process) and abs(process.create_time() - kept.born) < 1 else None


def known(root: Path) -> list[str]:
    """The names of services that were started and not stopped, whether they still run or not."""
    return sorted(path.stem for path in folder(root).glob("*.json"))


def stop(root: Path, name: str) -> bool:
    """End a service with everything it has started, and forget it; False when it did not run any
    more.
    """
    found = running(root, name)
    if found:
        end(found.pid, GRACE)
    (folder(root) / f"{name}.json").unlink(missing_ok=True)
    return found is not None


def folder(root: Path) -> Path:
    """Where process ids and logs are."""
    return environment.state_dir(root) / "services"
