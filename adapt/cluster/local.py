"""The Ray that work runs in: the cluster that this process belongs to, or a local one.

A local one is this process's alone. It listens on the loopback interface only, wants a token that
nobody else has, keeps its files in a folder that nobody else can read, and ends with this process:
by itself, or, when this process is killed, through Ray's own reaper and a shell that waits for the
end of a pipe and then removes the folder.
"""

import os
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from adapt import environment
from adapt.files import held, sweep_folders
from adapt.params import InputError

PREFIX = "adapt-ray-"
SOCKET_PATH = 107  # bytes that the kernel takes for the path of a socket
# What Ray puts behind our folder, at the longest.
SESSION = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.4194304"
SHORT = Path("/tmp")
JOB = "ADAPT_RAY_JOB"  # in a job of ours on a cluster: its folder on the storage
MARK = "ADAPT_RAY_FOLDER"  # in the environment of all processes of a local Ray
# A shell's. When nobody can write to its input any more, Ray's processes have 6 s to end: agents
# whose control service is gone, or whose logs are, would wait for minutes.
END = """
cat > /dev/null
left() { grep -lsF -e "$0" /proc/[0-9]*/environ; }
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    [ -n "$(left)" ] || break
    sleep 0.2
done
for file in $(left); do
    process=${file#/proc/}
    kill -9 "${process%/environ}"
done
rm -rf -- "$0"
"""
_TOKEN = secrets.token_hex(32)  # one for all: Ray reads it once in a process


def is_sent() -> bool:
    """Whether this process is a job that `adapt.cluster.submit` has sent to a cluster."""
    return JOB in os.environ


@contextmanager
def ray_here(
    workers: int, variables: Callable[[], Mapping[str, str]] | None = None, **more: Any
) -> Iterator[None]:
    """The Ray that this process runs in (RAY_ADDRESS), or a local one that ends with the block."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        with local_ray(workers, variables, **more):
            yield
        return
    with _running(address=address, log_to_driver=True):
        yield


@contextmanager
def local_ray(
    workers: int, variables: Callable[[], Mapping[str, str]] | None = None, **more: Any
) -> Iterator[None]:
    """A local Ray that ends with the block.

    It has `variables` in its environment, which are asked for when its folder is there, and is told
    `more`.
    """
    import ray

    with ExitStack() as stack:
        close_token_file()  # of another Ray, or an earlier one
        folder = stack.enter_context(session_folder())
        stack.callback(_read_variables)  # once they are again what they were
        stack.enter_context(environment_with({MARK: str(folder), **private()}))
        stack.enter_context(environment_with(variables() if variables else {}))
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # imported before `private`
        _read_variables()
        stack.enter_context(_running(**_alone(workers, folder) | more))
        yield


def _read_variables() -> None:
    """Ray reads its variables once in a process, and keeps the token, or that there was none."""
    import ray

    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _running(**options: Any) -> Iterator[None]:
    """Ray, as `ray.init` is told, until the end of the block."""
    import ray

    with _own_handlers(), ExitStack() as stack:
        stack.callback(ray.shutdown)
        with _own_handlers():  # ray.init puts its own in the place of SIGTERM's
            ray.init(**options)
        yield


def _alone(workers: int, folder: Path) -> dict[str, Any]:
    """What `ray.init` is told to start a Ray of our own."""
    return {
        # "local" explicitly: an address file left over would otherwise be joined.
        "address": "local",
        "_temp_dir": str(folder / "ray"),
        "num_cpus": max(workers, environment.cpus()),
        "include_dashboard": True,  # without it Ray Train's cleaner complains once a second
        "dashboard_host": "127.0.0.1",
        "object_store_memory": 256 * 1024**2,
        "logging_level": "ERROR",
    }


def private() -> dict[str, str]:
    """The environment in which a local Ray and its workers are out of others' reach."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return {
        # Ray's switch for systems that ask before a program listens: with it, the address of the
        # node is the loopback interface's, and so all its processes listen there.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # The workers' own connections, for gradients.
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        # Instead of ~/.ray/auth_token, which Ray writes for everybody to read.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _TOKEN,
    }


def close_token_file() -> Path:
    """Ray's token in the home folder, which it writes for everybody to read: now for its owner."""
    token = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        if token.stat(follow_symlinks=False).st_mode & 0o077:
            token.chmod(0o600)
    return token


@contextmanager
def session_folder() -> Iterator[Path]:
    """A private folder for Ray's sessions, short enough for its sockets; gone at the end.

    A job's TMPDIR on a cluster is often too long for them. Raises InputError where no short folder
    can be written.
    """
    own = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    is_short = len(f"{own}/{PREFIX}12345678/{SESSION}".encode()) <= SOCKET_PATH
    place = own if is_short else SHORT
    sweep_folders(place, PREFIX)  # of those that were killed together with their shell
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))  # 0700
    except OSError as error:
        longest = SOCKET_PATH - len(f"/{PREFIX}12345678/{SESSION}")
        problem = f"{own} is too long for Ray's sockets, and {place} is {error.strerror}"
        problem = f"{own}: {error.strerror}" if is_short else problem
        raise InputError(f"TMPDIR: {problem}; set it to at most {longest} characters") from None
    with held(folder), _ended(folder), ExitStack() as stack:
        if not is_short:
            # Its processes make sockets in TMPDIR too: they get it under a short name.
            (folder / "tmp").symlink_to(tempfile.gettempdir())
            stack.enter_context(environment_with({"TMPDIR": str(folder / "tmp")}))
        yield folder


def private_folder() -> Path | None:
    """The folder of the local Ray that this process works for, which ends with that; or None."""
    folder = os.environ.get(MARK, "")
    return Path(folder) if folder and Path(folder).is_dir() else None


@contextmanager
def _ended(folder: Path) -> Iterator[None]:
    """End what was started with `folder` as its mark, and remove that.

    At the end of the block, or of this process, however that comes.
    """
    shell = subprocess.Popen(
        ["/bin/sh", "-c", END, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us alone
        cwd="/",
    )
    try:
        yield
    finally:
        shell.communicate()


@contextmanager
def environment_with(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for this process and its children; what they were comes back at the end."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Signal handlers are after the block what they were before it."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
