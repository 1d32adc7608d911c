"""Pictures of the MLflow UI: the comparison page, the charts of the same runs, the table of all
retrainings; and of the report about them, by day, by night and on a phone.

    pip install -e '.[docs]' && apt-get install chromium
    python docs/screenshot.py --tracking-uri sqlite:////abs/mlflow.db RUN_ID RUN_ID \
        --out docs/comparison.png

writes `docs/comparison.png` (tables), `-pictures.png` (the same page with a picture that the runs
share selected), `-charts.png` (the charts page), `-table.png` (all retrainings), and `-report.png`,
`-report-dark.png` and `-report-phone.png` (the report about the one or two runs). A server is
started on a free loopback port for a store that is a database, and stopped again whatever happens.
The browser is the system's Chromium, driven by Playwright; CHROMIUM names another program.
"""

import argparse
import json
import os
import shutil
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
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from playwright.sync_api import Locator, Page, sync_playwright

from adapt import environment
from adapt.report import reading
from adapt.report.__main__ import footer
from adapt.report.page import render
from adapt.tracking.presentation import retrainings_page
from flows.process import child_environment, end

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE_LIMIT_MS = 60_000
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    # A mouse that points nowhere: without one, every chart lays its toolbar over the curves.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)
# The page as a user has it who has closed the assistant at its right.
CLOSED_ASSISTANT = "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')"
CHARTS = "before_after/(hal|cover|mass)|curves/mass/(base|tuned)$|train/loss$"


@contextmanager
def server(uri: str) -> Iterator[str]:
    """Base address of a UI over the store: that of a running server, or of one that lives as long
    as the block.
    """
    if uri.startswith("http"):
        yield uri.rstrip("/")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        words = f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1".split()
        store = ["--backend-store-uri", uri, "--default-artifact-root", folder]
        log = Path(folder, "server.log")
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *words, *store],
                env=child_environment({}),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            end(process.pid)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + environment.SERVICE_START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    raise SystemExit(f"screenshot: no MLflow server at {address}:\n{log.read_text()[-2000:]}")


@contextmanager
def browser() -> Iterator[Page]:
    """A tab of a fresh browser without a window, gone when the block ends."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if name and (path := shutil.which(name))), None)
    if program is None:
        raise SystemExit("screenshot: no chromium found; `apt-get install chromium`")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=FLAGS) as chromium,
    ):
        page = chromium.new_page()
        page.set_default_timeout(PAGE_LIMIT_MS)
        page.add_init_script(CLOSED_ASSISTANT)
        yield page


def open_page(page: Page, address: str, shows: str, size: tuple[int, int]) -> None:
    """Go to `address` in a window of `size` and wait for the text `shows`, and a moment for what is
    still being drawn.
    """
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto("about:blank")  # the addresses differ only behind the "#", which loads nothing
    page.goto(address)
    page.get_by_text(shows).first.wait_for()
    page.wait_for_timeout(2000)


def save(shown: Page | Locator, path: Path) -> None:
    """What the window, or a part of it, shows, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown.screenshot(path=path)
    print(path)


def take(
    page: Page, base: str, runs: Sequence[str], experiment: str, picture: str, out: Path
) -> None:
    """All pictures; `picture` is an artifact that the runs share."""
    # 1. The tables of the comparison, in a window that shows the whole page. The assistant stays
    #    closed from the second visit on.
    listed, within = quote(json.dumps(list(runs))), quote(json.dumps([experiment]))
    comparison = f"{base}/#/compare-runs?runs={listed}&experiments={within}"
    open_page(page, comparison, "Artifacts", (1700, 2200))
    open_page(page, comparison, "Artifacts", (1700, 2200))
    save(page, out)
    # 2. The same page with the picture selected, in a window that holds only that.
    open_page(page, comparison, "Artifacts", (1900, 560))
    page.get_by_text(picture, exact=True).last.click()
    heading = page.get_by_text("Artifacts", exact=True).last
    heading.evaluate("element => element.scrollIntoView()")
    page.wait_for_timeout(3000)
    save(page, out.with_name(f"{out.stem}-pictures.png"))
    # 3. The charts of these runs; the search box takes a regular expression, and charts are drawn
    #    one after the other once they are in sight.
    chosen = quote("attributes.run_id IN ({})".format(", ".join(f"'{run}'" for run in runs)))
    charts = f"{base}/#/experiments/{experiment}/runs?compareRunsMode=CHART&searchFilter={chosen}"
    open_page(page, charts, "Run Name", (1900, 1950))
    page.get_by_placeholder("Search metric charts").fill(CHARTS)
    page.wait_for_timeout(8000)
    save(page, out.with_name(f"{out.stem}-charts.png"))


def table(page: Page, base: str, experiment: str, out: Path) -> None:
    """The retrainings of the experiment, in the columns that its own view has."""
    open_page(page, f"{base}/{retrainings_page(experiment)}", "Run Name", (1900, 620))
    save(page, out.with_name(f"{out.stem}-table.png"))


def report(page: Page, client: "MlflowClient", runs: Sequence[str], out: Path) -> None:
    """The report about the runs, as a file that nothing else belongs to."""
    uri = client.tracking_uri
    records = [reading.read(client, client.get_run(run), uri, "") for run in runs[:2]]
    looks: dict[str, tuple[tuple[int, int], Literal["light", "dark"]]] = {
        "report": ((1280, 1500), "light"),
        "report-dark": ((1280, 1500), "dark"),
        "report-phone": ((390, 1500), "light"),
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.html")
        file.write_text(render(records, footer(records[0].address)), encoding="utf-8")
        for name, (size, colours) in looks.items():
            page.emulate_media(color_scheme=colours)
            open_page(page, file.as_uri(), "Before and after", size)
            save(page, out.with_name(f"{out.stem}-{name}.png"))


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
    # Imported here: MLflow reads its switches then.
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(given.tracking_uri)
    try:
        experiment = client.get_run(given.runs[0]).info.experiment_id
    except MlflowException as error:
        raise SystemExit(f"screenshot: {error}") from None
    with environment.terminable(), server(given.tracking_uri) as base, browser() as page:
        take(page, base, given.runs, experiment, given.picture, given.out)
        table(page, base, experiment, given.out)
        report(page, client, given.runs, given.out)


if __name__ == "__main__":
    main()
