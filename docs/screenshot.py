"""Pictures of the MLflow UI with runs side by side: the comparison page, and the charts of the same
runs.

    python docs/screenshot.py --tracking-uri sqlite:////abs/mlflow.db RUN_ID RUN_ID --out
    docs/comparison.png

writes `docs/comparison.png` (tables), `-pictures.png` (the same page with a picture that the runs
share selected) and `-charts.png` (the charts page). A server is started on a free loopback port for
a store that is a database, and stopped again whatever happens; the browser is Debian's `chromium`,
without a window, driven over its debugging protocol.
"""

import argparse
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from adapt import environment

START_LIMIT = 120  # seconds; a server needs 5 to 10 on a quiet machine
PAGE_LIMIT = 60
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    # A mouse that points nowhere: without one, every chart lays its toolbar over the curves.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)
# The page as a user has it who has closed the assistant at its right.
CLOSED_ASSISTANT = "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')"


@contextmanager
def child(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen]:
    """A process in a group of its own, all of which is gone when the block ends."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def server(tracking_uri: str, scratch: Path) -> Iterator[str]:
    """Base address of a UI over the store: that of a running server, or of one that lives as long
    as the block.
    """
    if tracking_uri.startswith("http"):
        yield tracking_uri.rstrip("/")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        tracking_uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--default-artifact-root",
        str(scratch),
    ]
    log = scratch / "server.log"
    with child(command, log) as process:
        address = f"http://127.0.0.1:{port}"
        _wait(address, process, log)
        yield address


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    raise SystemExit(f"screenshot: no MLflow server at {address}:\n{log.read_text()[-2000:]}")


class Page:
    """One browser tab."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect(address, max_size=None)
        self._number = 0
        self.call("Page.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=CLOSED_ASSISTANT)

    def call(self, method: str, **parameters: object) -> dict:
        """One command of the debugging protocol, and its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=PAGE_LIMIT))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise SystemExit(f"screenshot: {method}: {answer['error']['message']}")
                return answer["result"]

    def ask(self, script: str) -> object:
        """Value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get(
            "value"
        )

    def wait(self, script: str) -> None:
        """Until the expression is true, and a moment longer for what is still being drawn."""
        end = time.monotonic() + PAGE_LIMIT
        while not self.ask(script):
            if time.monotonic() > end:
                raise SystemExit(f"screenshot: the page never showed: {script}")
            time.sleep(0.2)
        time.sleep(2)

    def open(self, address: str, shows: str, width: int, height: int) -> None:
        """Go to `address` in a window of that size and wait for the text `shows`."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.wait(f"document.body && document.body.innerText.includes({json.dumps(shows)})")

    def show(self, text: str, then: str = "") -> None:
        """Scroll to the element whose whole text is `text`, and do something with it."""
        element = f"[...document.querySelectorAll('*')].findLast(e => e.textContent.trim() === {json.dumps(text)})"
        self.wait(f"!!{element}")
        self.ask(f"{element}.scrollIntoView(); {element}{then}; 0")
        time.sleep(3)

    def click(self, text: str) -> None:
        """Click the element whose whole text is `text`."""
        self.show(text, ".click()")

    def search_charts(self, words: str) -> None:
        """Type into the charts page's search box, which takes a regular expression."""
        box = "document.querySelector('input[placeholder=\"Search metric charts\"]')"
        self.wait(f"!!{box}")
        self.ask(f"{box}.focus()")
        self.call("Input.insertText", text=words)
        time.sleep(8)  # charts are drawn one after the other once they are in sight

    def save(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        )
        print(path)


@contextmanager
def browser(scratch: Path) -> Iterator[Page]:
    """A tab of a fresh browser that is gone when the block ends."""
    program = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if program is None:
        raise SystemExit("screenshot: no chromium found; `apt-get install chromium`")
    profile = Path(tempfile.mkdtemp(dir=scratch))
    log = scratch / "browser.log"
    with child([program, *FLAGS, f"--user-data-dir={profile}", "about:blank"], log) as process:
        port_file, end = profile / "DevToolsActivePort", time.monotonic() + PAGE_LIMIT
        while not port_file.exists() or not port_file.read_text().strip():
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit(f"screenshot: chromium did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            tab = next(tab for tab in json.load(answer) if tab["type"] == "page")
        yield Page(tab["webSocketDebuggerUrl"])


def take(
    page: Page, base: str, runs: Sequence[str], experiment: str, picture: str, out: Path
) -> None:
    """All pictures; `picture` is an artifact that the runs share."""
    listed, within = quote(json.dumps(list(runs))), quote(json.dumps([experiment]))
    comparison = f"{base}/#/compare-runs?runs={listed}&experiments={within}"
    page.open(comparison, "Artifacts", 1700, 2200)
    page.open(
        comparison, "Artifacts", 1700, 2200
    )  # the assistant stays closed from the second time on
    page.save(out)
    page.open(comparison, "Artifacts", 1900, 560)
    page.click(picture)
    page.show("Artifacts")
    page.save(out.with_name(f"{out.stem}-pictures.png"))
    only = quote("attributes.run_id IN ({})".format(", ".join(f"'{run}'" for run in runs)))
    charts = f"{base}/#/experiments/{experiment}/runs?compareRunsMode=CHART&searchFilter={only}"
    page.open(charts, "Run Name", 1900, 1950)
    page.search_charts("before_after/(hal|cover|mass)|curves/mass/(base|tuned)$|train/loss$")
    page.save(out.with_name(f"{out.stem}-charts.png"))


def main() -> None:
    """The command line; see the module docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tracking-uri", required=True, help="address of the MLflow store, a database or a server"
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="PNG to write; the others go beside it"
    )
    parser.add_argument(
        "--picture", default="before_after.png", help="artifact to show (default: %(default)s)"
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_ID")
    given = parser.parse_args()
    environment.prepare(Path.cwd())
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        experiment = MlflowClient(given.tracking_uri).get_run(given.runs[0]).info.experiment_id
    except MlflowException as error:
        raise SystemExit(f"screenshot: {error}") from None
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        server(given.tracking_uri, Path(folder)) as base,
        browser(Path(folder)) as page,
    ):
        take(page, base, given.runs, experiment, given.picture, given.out)


if __name__ == "__main__":
    main()
