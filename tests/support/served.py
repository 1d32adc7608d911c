"""The quick workspace with its services running, and a small server that messages are sent to."""

import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.support import limits, ports, quick, workspace


@dataclass
class Inbox:
    """What was posted to a server of our own."""

    address: str
    messages: list[Any] = field(default_factory=list)
    authorized: list[str | None] = field(default_factory=list)

    def wait(self, words: str) -> dict[str, Any]:
        """The first message with these words in its text."""
        found = lambda: [m for m in self.messages if words in m["text"]]  # noqa: E731
        return dict(limits.until(found, f"message with {words!r}")[0])


@contextmanager
def inbox() -> Iterator[Inbox]:
    """A server on a free port of loopback that takes JSON, as a chat service does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            box.messages.append(json.loads(body))
            box.authorized.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        box = Inbox(f"http://127.0.0.1:{server.server_port}/hook?token=hunter2")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Served:
    """A workspace with its services running."""

    root: Path
    env: dict[str, str]

    def command(self, *words: str) -> str:
        """Output of `python -m ...`, which must succeed."""
        python = [sys.executable, "-m", *words]
        return workspace.output(python, self.env, self.root, limits.COMMAND_S)

    def prefect(self, path: str, body: object = None) -> Any:
        """Ask Prefect's API, as its page does; without a body by GET."""
        address = f"http://127.0.0.1:{self.env['ADAPT_PREFECT_PORT']}/api/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        return limits.until(lambda: _answer(request), f"answer of {address}")[0]

    def start(self, deployment: str, parameters: object) -> str:
        """Start a run of a deployment, as the button on its page does; returns its id."""
        found = self.prefect(f"deployments/name/{deployment}")["id"]
        run = self.prefect(f"deployments/{found}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def state(self, run: str, *types: str) -> dict[str, Any]:
        """The state of a run once it is one of these types."""

        def state() -> Any:
            now = self.prefect(f"flow_runs/{run}")["state"]
            return now if now["type"] in types else None

        return dict(limits.until(state, f"state {types} of the run", limits.COMMAND_S))

    def log(self) -> str:
        """What all runs have logged."""
        lines = self.prefect("logs/filter", {"sort": "TIMESTAMP_ASC"})
        return "\n".join(line["message"] for line in lines)


def _answer(request: urllib.request.Request) -> list[Any]:
    """What a server answers; nothing while it is too busy to, which Prefect's client waits for."""
    try:
        with urllib.request.urlopen(request, timeout=limits.STEP_S) as response:
            return [json.loads(response.read() or "null")]
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return []


@contextmanager
def served(root: Path, extra: Mapping[str, str], settings: Mapping[str, Any]) -> Iterator[Served]:
    """The services of a quick workspace in `root`, with infra/ as shipped but without schedules.

    `extra` is more of the environment, `settings` are changes of params.yaml.
    """
    quick.make(root)
    workspace.override(root / "params.yaml", settings)
    for name in ("flows", "adapt"):
        (root / name).symlink_to(workspace.ROOT / name)
    (root / "infra").mkdir()
    for path in (workspace.ROOT / "infra").glob("*.yaml"):
        (root / "infra" / path.name).write_text(path.read_text())
    path = root / "infra" / "prefect.yaml"
    content = yaml.safe_load(path.read_text())
    for deployment in content["deployments"]:
        deployment["schedules"] = []
    path.write_text(yaml.safe_dump(content))
    names = ("ADAPT_PREFECT_PORT", "ADAPT_MLFLOW_PORT")
    given = dict(zip(names, map(str, ports.free(2)), strict=True))
    here = Served(root, quick.environment(root) | given | dict(extra))
    try:
        here.command("flows.serve", "start")
        yield here
    finally:
        here.command("flows.serve", "stop")
