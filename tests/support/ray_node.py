"""One more node of a Ray head's cluster, on this machine: a raylet of its own, which can be lost.

with ray_head(cpus=1) as head, joined(head, cpus=1) as node:
    node.lose()
"""

import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from tests.support import limits, ports
from tests.support.ray_head import RayHead

NODE = "ADAPT_TEST_RAY_NODE"
# Not the head's: a driver on this machine would take any raylet of its own address for its node.
ADDRESS = "127.0.0.2"
PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "node-manager-port",
    "object-manager-port",
)


@dataclass(frozen=True, kw_only=True)
class RayNode:
    """A node that has joined; its processes, the workers' too, carry its mark."""

    mark: str

    def processes(self) -> list[psutil.Process]:
        """All that run."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(NODE) == self.mark:
                    found.append(process)
        return found

    def lose(self) -> None:
        """Kill them all at once, as a power cut does."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


def address(head: RayHead) -> str:
    """Where drivers and nodes find the cluster (RAY_ADDRESS), once its own raylet is there."""

    def told() -> re.Match[str] | None:
        return re.search(r"ray start --address='([^']+)'", (head.folder / "head.log").read_text())

    return limits.until(told, "head", limits.SERVER_START_S).group(1)


@contextmanager
def joined(head: RayHead, cpus: int) -> Iterator[RayNode]:
    """Start a node of so many CPUs; at the end its processes are gone."""
    node = RayNode(mark=uuid.uuid4().hex)
    gcs = address(head)
    of_head = next(each for each in head.processes() if "gcs_server" in each.name())
    environment = {**of_head.environ(), NODE: node.mark}
    words = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
        *(f"--address={gcs}", f"--node-ip-address={ADDRESS}", f"--num-cpus={cpus}"),
        *("--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"),
        *(f"--{name}={port}" for name, port in zip(PORTS, ports.free(len(PORTS)), strict=True)),
        f"--object-store-memory={100 * 2**20}",
    ]
    with (head.folder / f"node-{node.mark}.log").open("wb") as log:
        starter = subprocess.Popen(
            words,
            env=environment,
            cwd=head.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield node
    finally:
        while left := node.processes():
            node.lose()
            psutil.wait_procs(left, timeout=1.0)
        starter.wait(limits.STEP_S)
