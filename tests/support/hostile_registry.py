"""An MLflow server that answers what it is told to: names, sizes, contents and silences by hand."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass
class Registry:
    """What it answers; `files` by folder, `contents` by name."""

    uri: str = ""
    version: Any = "1"
    origin: str = "mlflow-artifacts:/m"
    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    raw: dict[str, bytes] = field(default_factory=dict)  # path of a request: its whole answer
    asked: list[str] = field(default_factory=list)

    def holds(self, contents: Mapping[str, bytes]) -> None:
        """A model of these files in one folder, listed as they are."""
        self.contents = dict(contents)
        self.files = {
            "": [{"path": n, "is_dir": False, "file_size": len(c)} for n, c in contents.items()]
        }


@contextmanager
def registry() -> Iterator[Registry]:
    """One that listens on loopback until the block ends."""
    answers, stopped = Registry(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            path, query = unquote(address.path), parse_qs(address.query)
            answers.asked.append(path)
            if path in answers.raw:
                self._send(answers.raw[path])
            elif path.endswith(("registered-models/alias", "model-versions/get")):
                self._json({"model_version": {"name": "adapt", "version": answers.version}})
            elif path.endswith("registered-models/get"):
                self._json({"registered_model": {"name": "adapt"}})
            elif path.endswith("model-versions/get-download-uri"):
                self._json({"artifact_uri": answers.origin})
            elif path == ARTIFACTS:
                above = query.get("path", [""])[0].removeprefix("m").removeprefix("/")
                self._json({"files": answers.files.get(above, [])})
            elif path.startswith(f"{ARTIFACTS}/m/"):
                self._file(path.removeprefix(f"{ARTIFACTS}/m/"))
            else:
                self.send_error(404)

        def _json(self, content: Any) -> None:
            self._send(json.dumps(content).encode())

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _file(self, name: str) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                self.wfile.write(answers.contents.get(name, b""))
                self.wfile.flush()
                while name in answers.endless and not stopped.is_set():
                    self.wfile.write(bytes(1 << 16))
                if name in answers.silent:
                    stopped.wait(120)
            except OSError:
                pass  # the reader has had enough

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    answers.uri = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
    try:
        yield answers
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
