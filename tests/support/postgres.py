"""A Postgres server of this machine's own binaries, in a temporary folder and on a free port."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import limits, ports, workspace

PASSWORD = "p/o:s@t'g$r e%s"  # whatever a generator may come up with
# Durable writes would only make the tests slow.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True)
class Postgres:
    """A running server, which asks for passwords."""

    port: int
    binaries: Path

    @property
    def env(self) -> dict[str, str]:
        """What psql, pg_dump and pg_restore need to find it."""
        path = f"{self.binaries}{os.pathsep}{os.environ['PATH']}"
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port)}
        return {"PATH": path, **place, "PGUSER": "postgres", "PGPASSWORD": PASSWORD}

    def ask(self, database: str, query: str, env: Mapping[str, str] | None = None) -> str:
        """The answer to a query, as unadorned text."""
        words = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", query, database]
        return self.run(words, env).strip()

    def run(self, words: list[str], env: Mapping[str, str] | None = None) -> str:
        """Output of a program of Postgres's, or of a script that uses them; it must succeed."""
        given = {**self.env, **(env or {})}
        return workspace.output(words, given, Path.cwd(), limits.COMMAND_S)


def binaries() -> Path:
    """The folder with initdb and postgres; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if which := shutil.which("initdb"):
        found.append(Path(which).resolve())
    if not found:
        pytest.skip("no Postgres here (initdb); Debian's package `postgresql` has it")
    return found[-1].parent


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server while the block runs, of which nothing is left behind it."""
    bins, port = binaries(), ports.free()[0]
    folder = Path(tempfile.mkdtemp(prefix="adapt-postgres-"))
    as_user = _as_user(folder)
    data, own = folder / "data", {"PATH": f"{bins}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C"}
    initdb = ["initdb", "--auth=scram-sha-256", "--username=postgres"]
    options = [f"listen_addresses=127.0.0.1 port={port} unix_socket_directories={folder}"]
    settings = [word for text in (*options[0].split(), *FAST) for word in ("-c", text)]
    try:
        (folder / "password").write_text(PASSWORD)
        initdb += ["--pwfile", str(folder / "password")]
        words = [*as_user, *initdb, "--no-sync", f"--pgdata={data}"]
        subprocess.run(words, env=own, cwd=folder, check=True, capture_output=True)
        command = [*as_user, "postgres", "-D", str(data), *settings]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(command, env=own, cwd=folder, stdout=log, stderr=log)
        started = Postgres(port, bins)
        try:
            limits.until(lambda: _answers(started), "Postgres")
            yield started
        finally:
            server.send_signal(signal.SIGINT)  # Postgres's fast shutdown
            server.wait(limits.STEP_S)
    finally:
        shutil.rmtree(folder)


def _as_user(folder: Path) -> list[str]:
    """Postgres does not run as root: then it is user `postgres`, or `nobody`."""
    if os.getuid():
        return []
    users = {one.pw_name: one for one in pwd.getpwall()}
    user = users.get("postgres") or users["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _answers(server: Postgres) -> bool:
    words = ["pg_isready", "--quiet"]
    return subprocess.run(words, env=server.env, check=False).returncode == 0
