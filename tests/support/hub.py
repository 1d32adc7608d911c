"""A hub of data sets on this machine, as far as `huggingface_hub` asks for reading one."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@contextmanager
def hub(name: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub with one data set, whose branch main is at `COMMIT`; what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, query = unquote(urlsplit(self.path).path), urlsplit(self.path).query
            asked.append(f"{self.command} {path}")
            if re.fullmatch(rf"/api/datasets/{name}(/revision/(main|{COMMIT}))?", path):
                siblings = [{"rfilename": file} for file in files]
                self.answer({"id": name, "sha": COMMIT, "siblings": siblings})
            elif path.startswith(f"/api/datasets/{name}/tree/{COMMIT}"):
                below = path.split(COMMIT)[1].strip("/")
                recursive = "recursive=true" in query.lower()
                self.answer(entries(files, f"{below}/" if below else "", recursive))
            elif path.startswith(f"/datasets/{name}/resolve/{COMMIT}/"):
                self.send_file(files.get(path.split(f"{COMMIT}/")[1]))
            elif path.startswith(f"/api/datasets/{name}/revision/"):
                self.refuse(404, "RevisionNotFound")
            elif path.startswith("/api/datasets/team/gated"):
                self.refuse(403, "GatedRepo")
            else:
                self.refuse(404, "RepoNotFound")

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(f"POST {self.path}")
            wanted = body["paths"] if isinstance(body["paths"], list) else [body["paths"]]
            found = entries(files, "", recursive=True)
            self.answer([entry for entry in found if entry["path"] in wanted])

        def answer(self, content: Any) -> None:
            self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def refuse(self, status: int, code: str) -> None:
            self.send(status, b"", {"X-Error-Code": code})

        def send_file(self, content: bytes | None) -> None:
            if content is None:
                self.refuse(404, "EntryNotFound")
                return
            about = {"ETag": f'"{hash(content)}"', "X-Repo-Commit": COMMIT}
            if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(span[1]), int(span[2] or len(content) - 1)
                self.send(206, content[first : last + 1], about)
            else:
                self.send(200, content, about)

        def send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


def entries(files: Mapping[str, bytes], below: str, recursive: bool = False) -> list[Any]:
    """Files and folders of a folder, as the hub lists them."""
    found: dict[str, Any] = {}
    for name, content in files.items():
        rest = name.removeprefix(below)
        if not name.startswith(below):
            continue
        if "/" in rest and not recursive:
            path = below + rest.split("/")[0]
            found[path] = {"type": "directory", "path": path, "oid": "0"}
        else:
            about = {"path": name, "size": len(content), "oid": f"{hash(content):x}"}
            found[name] = {"type": "file", **about}
    return list(found.values())
