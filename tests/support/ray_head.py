"""A real Ray head for tests, beside any other Ray on the machine: own ports, own token, own folder,
no process left.

    with ray_head() as head:
        subprocess.run(["dvc", "repro", "train"], env={**os.environ, **head.env}, check=True)

    with ray_head(cpus=1, ip="127.0.0.2") as head, ray_node(head, ip="127.0.0.3") as node:
        ...                             # a second raylet, with folders and a token file of its own

`ray stop` is never used: it ends every Ray of the machine. Ray starts its workers and jobs in
process groups of their own, so what belongs to this head is recognised by a mark that all its
processes inherit through their environment.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from adapt import environment
from tests.support import limits, ports

MARK = "ADAPT_TEST_RAY_HEAD"
NODE_TRIES = 5
START_LIMIT_S = limits.SERVER_START_S
STOP_LIMIT_S = limits.STEP_S


def without_ray(**more: str) -> dict[str, str]:
    """This process's environment without another Ray's variables, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | more


@dataclass(frozen=True, kw_only=True)
class RayNode:
    """A running node: where its folders are, and how to see its processes."""

    folder: Path
    mark: str

    def processes(self) -> list[psutil.Process]:
        """Every living process of this node: Ray's own, its workers, and the jobs it runs."""
        return [
            process for process in psutil.process_iter() if _environ(process).get(MARK) == self.mark
        ]

    def commands(self) -> list[str]:
        """The command lines of `processes`."""
        lines = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                lines.append(" ".join(process.cmdline()))
        return lines

    def lose(self) -> None:
        """Kill them all at once, as a power cut does."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


@dataclass(frozen=True, kw_only=True)
class RayHead(RayNode):
    """A running head: `address` of its Jobs API, `env` that a client needs; nodes join at `gcs`."""

    address: str
    gcs: str
    env: dict[str, str]

    def jobs(self) -> dict[str, str]:
        """The status of every job that it has had, by its name."""
        token = Path(self.env["RAY_AUTH_TOKEN_PATH"]).read_text()
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers=headers)
        with urllib.request.urlopen(request, timeout=limits.STEP_S) as answer:
            found = json.loads(answer.read())
        return {one["submission_id"]: one["status"] for one in found if one["submission_id"]}


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return {}


@contextmanager
def ray_head(
    cpus: int = 2, ip: str = "", variables: Mapping[str, str] | None = None
) -> Iterator[RayHead]:
    """Start a head with a dashboard on loopback; at the end all its processes are gone, and its
    folder too.

    `ip`: of the node, where that is not the machine's; `variables`: more for its environment.
    """
    folder = _folder()
    token = folder / "token"
    token.write_text(uuid.uuid4().hex)
    token.chmod(0o600)
    numbers = ports.free(2 + len(AGENTS))
    dashboard, client, *agents = numbers
    (gcs,) = ports.free()
    address = f"http://127.0.0.1:{dashboard}"
    env = {"RAY_API_SERVER_ADDRESS": address, "RAY_AUTH_TOKEN_PATH": str(token)}
    where = {"address": address, "gcs": f"{ip}:{gcs}"}
    head = RayHead(**where, env=env, folder=folder, mark=uuid.uuid4().hex)
    words = ["--head", f"--port={gcs}", f"--ray-client-server-port={client}"]
    words += ["--include-dashboard=true", "--dashboard-host=127.0.0.1"]
    words += [f"--dashboard-port={dashboard}", *_common(folder, agents, cpus, ip)]
    with _started(head, token, words, variables or {}) as starter:
        _wait_until_ready(starter, head)
        yield head


@contextmanager
def ray_node(
    head: RayHead, ip: str, cpus: int = 1, variables: Mapping[str, str] | None = None
) -> Iterator[RayNode]:
    """Start one more node, which has joined then. All of it is gone at the end, also where it was
    killed in between.
    """
    for _ in range(NODE_TRIES):
        folder = _folder()
        node = RayNode(folder=folder, mark=uuid.uuid4().hex)
        token = shutil.copy2(head.env["RAY_AUTH_TOKEN_PATH"], folder / "token")
        words = [f"--address={head.gcs}", *_common(folder, ports.free(len(AGENTS)), cpus, ip)]
        with _started(node, token, words, variables or {}):
            if _has_joined(node):
                yield node
                return
    raise RuntimeError(f"no second Ray node in {NODE_TRIES} tries")


def _has_joined(node: RayNode) -> bool:
    """Whether it has; a raylet ends when its agents take more than 15 s to start, Ray's own limit
    that nothing changes.
    """
    log, was_there = node.folder / "ray.log", False
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if "Ray runtime started" in log.read_text():
            return True
        is_there = any("/raylet/raylet " in line for line in node.commands())
        if was_there and not is_there:
            return False
        was_there = is_there
        time.sleep(0.5)
    return False


AGENTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


def _folder() -> Path:
    # Not under pytest's tmp_path: the paths of Ray's unix sockets must stay below 108 characters.
    return Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))


def _common(folder: Path, agents: Sequence[int], cpus: int, ip: str) -> list[str]:
    return [
        *(f"--{name}={port}" for name, port in zip(AGENTS, agents, strict=True)),
        *([f"--node-ip-address={ip}"] if ip else []),
        *("--min-worker-port=0", "--max-worker-port=0", f"--num-cpus={cpus}"),
        f"--temp-dir={folder / 'ray'}",
        f"--object-store-memory={100 * 2**20}",
    ]


@contextmanager
def _started(
    node: RayNode, token: Path, words: Sequence[str], variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    with (node.folder / "ray.log").open("wb") as log:
        starter = subprocess.Popen(
            [*command, "--disable-usage-stats", *words],
            env={**_environment(node.folder, token, node.mark), **variables},
            cwd=node.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield starter
    finally:
        _end(starter, node)
        shutil.rmtree(node.folder, ignore_errors=True)


def _environment(folder: Path, token: Path, mark: str) -> dict[str, str]:
    """The environment of a node: no Ray, MLflow or project setting of the caller, the same Python
    first on PATH.
    """
    callers = ("RAY_", "MLFLOW_", "ADAPT_", "DVC_", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(callers)}
    scratch = folder / "tmp"
    scratch.mkdir()
    return {
        **kept,
        **environment.DEFAULTS,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(scratch),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        MARK: mark,
    }


def _wait_until_ready(starter: subprocess.Popen[bytes], head: RayHead) -> None:
    """The Jobs API is served when it refuses a caller without a token."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if starter.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{head.address}/api/jobs/", timeout=2)
        except urllib.error.HTTPError as refusal:
            assert refusal.code == 401, f"Ray's dashboard answers {refusal.code}"
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(
        "the Ray head did not start:\n" + (head.folder / "ray.log").read_text()[-3000:]
    )


def _end(starter: subprocess.Popen[bytes], node: RayNode) -> None:
    """Kill everything that carries the mark, until nothing does; a head itself takes ten seconds
    over a SIGTERM.
    """
    deadline = time.monotonic() + STOP_LIMIT_S
    while left := node.processes():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)
        assert time.monotonic() < deadline, f"Ray processes survive SIGKILL: {left}"
    starter.wait()
