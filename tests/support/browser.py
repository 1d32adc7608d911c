"""Headless Chromium by its own protocol: one page, what it shows, and what it complains of."""

import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support import limits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--remote-debugging-port=0",
)


class Page:
    """A page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.complaints: list[str] = []
        """What its console was told: blocked scripts, exceptions, failed requests."""
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            reply = json.loads(self._socket.recv(timeout=60))
            if reply.get("id") == self._number:
                return reply.get("result", reply)
            if reply.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(reply["params"]))

    def value(self, expression: str) -> Any:
        """The value of an expression in the page."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        return self.do("Runtime.evaluate", **asked).get("result", {}).get("value")

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in a field for files."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def picture(self) -> bytes:
        """What it looks like, as PNG."""
        return base64.b64decode(self.do("Page.captureScreenshot")["data"])


@contextmanager
def opened(address: str, profile: Path) -> Iterator[Page]:
    """The page at an address; the browser ends with the block."""
    assert CHROMIUM
    where = f"--user-data-dir={profile}"
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([CHROMIUM, *QUIET, where, "about:blank"], **silent)  # type: ignore[call-overload]
    try:
        file = profile / "DevToolsActivePort"
        is_there = lambda: file.exists() and bool(file.read_text().strip())  # noqa: E731
        limits.until(is_there, "browser", limits.SERVER_START_S)
        port = file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as socket:
            page = Page(socket)
            page.do("Page.navigate", url=address)
            limits.until(
                lambda: page.value("document.readyState") == "complete", "page", limits.WHOLE_TEST_S
            )
            yield page
    finally:
        process.terminate()
        process.wait(limits.ORPHANS_S)
