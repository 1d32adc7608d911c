"""The Ray that work runs in: the cluster that this process belongs to, or a local one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adapt import environment
from adapt.params import InputError

SOCKET_PATH = 107  # bytes that the kernel takes for the path of a socket
# What Ray puts behind its folder, at the longest.
SESSION = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.4194304"
SHORT = Path("/tmp")


@contextmanager
def ray_here(workers: int) -> Iterator[None]:
    """The Ray that this process runs in (RAY_ADDRESS), or a local one that ends with the block."""
    import ray

    with ExitStack() as stack:
        if address := os.environ.get("RAY_ADDRESS"):
            ray.init(address=address, log_to_driver=True)
        else:
            # "local" explicitly: an address file left over would otherwise be joined.
            ray.init(
                address="local",
                _temp_dir=stack.enter_context(session_folder()),
                num_cpus=max(workers, environment.cpus()),
                include_dashboard=True,  # without it Ray Train's cleaner complains once a second
                dashboard_host="127.0.0.1",
                object_store_memory=256 * 1024**2,
                logging_level="ERROR",
            )
        stack.callback(ray.shutdown)
        yield


@contextmanager
def session_folder() -> Iterator[str | None]:
    """A folder for Ray's sessions where its own choice is too long for its sockets; else None.

    A job's TMPDIR on a cluster is often longer than that. Raises InputError where no short folder
    can be written.
    """
    own = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(f"{own}/ray/{SESSION}".encode()) <= SOCKET_PATH:
        yield None
        return
    try:
        folder = Path(tempfile.mkdtemp(prefix="ray-", dir=SHORT))
    except OSError as error:
        longest = SOCKET_PATH - len(f"/ray/{SESSION}")
        problem = f"{own} is too long for Ray's sockets, and {SHORT} is {error.strerror}"
        raise InputError(f"TMPDIR: {problem}; set it to at most {longest} characters") from None
    # Its processes make sockets in TMPDIR too: they get it under a short name.
    (folder / "tmp").symlink_to(tempfile.gettempdir())
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder / "tmp")
    try:
        yield str(folder)
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)
