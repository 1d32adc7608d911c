"""Ray Serve on this machine, in the foreground: started, told about, and ended without a trace."""

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from adapt.addresses import is_loopback
from adapt.cluster.local import environment_with, private_folder, ray_here
from adapt.params import InputError, require
from adapt.serving import guard, meters
from adapt.serving.settings import MIB, ServeConfig
from adapt.serving.source import source_of
from adapt.watching.settings import WatchConfig

SHORTEST_KEY = 16
KEEP_ALIVE_S = 30
LOOK_S = 2.0  # how often the replicas are asked what they serve
STORE = 256 * MIB  # of Ray, in memory: bodies pass through it
# Of Ray Serve, read when it is imported.
SWITCHES = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "adapt.serving.guard:callbacks",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_ENABLE_HA_PROXY": "0",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    "RAY_worker_niceness": "0",  # else all other work of the machine goes before an answer
}


def shown(config: ServeConfig) -> str:
    """The address of the server."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{config.port}"


def taken_key(config: ServeConfig) -> str:
    """The key of the environment, which is taken out of it: what is started sees its SHA-256.

    `InputError` for an address that others reach, without one.
    """
    key = os.environ.pop(guard.KEY, "").strip()
    is_here = is_loopback(shown(config))
    problem = f"{config.host} is reached from elsewhere; set {guard.KEY} in the environment"
    require(is_here or bool(key), "serve.host", problem)
    problem = f"expected at least {SHORTEST_KEY} letters, digits and signs of ASCII"
    is_good = len(key) >= SHORTEST_KEY and key.isascii() and key.isprintable() and " " not in key
    require(not key or is_good, guard.KEY, f"{problem}, such as {secrets.token_urlsafe(24)}")
    return key


@contextmanager
def served(
    config: ServeConfig, name: str, source: str, root: Path, key: str, watch: WatchConfig
) -> Iterator[Any]:
    """A server that answers while the block lasts; yields Ray's handle of it.

    `InputError` where its port is taken, or there is no model that it could serve.
    """
    source_of(source, root)  # said before anything is started
    _require_free(config)
    rules = guard.Rules.of(config.limits, key)
    variables = {**SWITCHES, guard.VARIABLE: rules.model_dump_json()}
    workers = max(1, round(config.replicas * config.cpus + 0.5))
    more = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": STORE}
    ending = ExitStack()  # what lasts until Ray has ended
    with ending, environment_with(variables), ray_here(workers, variables=_shared, **more):
        from ray import serve

        from adapt.serving.replica import application

        _require_gpus(config)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        quiet = {"enable_access_log": False, "log_level": "WARNING"}
        http = {"host": config.host, "port": config.port, "keep_alive_timeout_s": KEEP_ALIVE_S}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=quiet)
        try:
            app = application(config, name, source, root, watch)
            yield _required(serve.run(app, name="adapt", route_prefix="/", logging_config=quiet))
        finally:
            ending.enter_context(_silence())
            serve.shutdown()


@contextmanager
def _silence() -> Iterator[None]:
    """Ray says nothing: of a regular end, that a task failed and is retried without end."""
    from ray._private import worker

    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = True


def _shared() -> dict[str, str]:
    """Where replicas add up their meters: in the folder that ends with the server."""
    folder = private_folder()
    if folder is None:
        return {}
    (folder / "meters").mkdir()
    return {meters.SHARED: str(folder / "meters")}


def _required(handle: Any) -> Any:
    """The handle, if there is a model behind it."""
    found = handle.standing.remote().result()
    if not found["serves"]:
        raise InputError(found["trouble"])
    return handle


def _require_gpus(config: ServeConfig) -> None:
    """Ray would wait for ever for a GPU that is not there."""
    import ray

    wanted, there = config.replicas * config.gpus, ray.cluster_resources().get("GPU", 0.0)
    problem = f"{config.replicas} replicas want {wanted:g} GPUs, and there are {there:g}"
    require(wanted <= there, "serve.gpus", problem)


def _require_free(config: ServeConfig) -> None:
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        socket.create_server((config.host, config.port), family=family).close()
    except OSError as error:
        reason = f"{config.host}:{config.port} cannot be listened at ({error.strerror})"
        raise InputError(f"serve.port: {reason}; stop what uses it, or give --port") from None


def follow(handle: Any, told: Callable[[str], None]) -> None:
    """Tell, until the process is ended, what becomes of the model that is served."""
    before = handle.standing.remote().result()
    while True:
        time.sleep(LOOK_S)
        with suppress(TimeoutError):
            now = handle.standing.remote().result(timeout_s=30)
            if now["trouble"] and now["trouble"] != before["trouble"]:
                told(f"version {before['version']} goes on: {now['trouble']}")
            if now["version"] != before["version"]:
                told(f"version {now['version']} answers now, {before['version']} before")
            before = now
