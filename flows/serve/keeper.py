"""supervisord, which restarts what dies and bounds its logs: made to keep our services.

Only this user can open its socket. `flows.serve.guard`, above each service, says what it lacks.
"""

import contextlib
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from configparser import RawConfigParser
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from adapt import environment
from adapt.names import one_line
from adapt.params import InputError
from flows.serve import guard
from flows.serve.services import NAMES, Service

SOCKET_LIMIT = 90  # bytes; the kernel takes 107, and supervisord first appends its process id
ADDRESSES = "addresses"  # a section of the configuration that is ours; supervisord skips it


def processes(root: Path) -> dict[str, dict[str, Any]]:
    """What supervisord says of the services that run (name, pid, ...), and their `address`."""
    try:
        programs = _supervisor(root).getAllProcessInfo()
    except OSError:  # no socket, or nobody listens
        return {}
    live = [one for one in programs if one["statename"] in ("STARTING", "RUNNING")]
    addresses = _configuration(root)[ADDRESSES]
    return {one["name"]: {**one, "address": addresses[one["name"]]} for one in live}


def configure(root: Path, missing: Sequence[Service]) -> None:
    """Write supervisord's configuration for `missing`; what it says of those that run stays."""
    for private in (_path(root).parent, _socket(root).parent):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private.lstat().st_uid != os.getuid():
            raise InputError(f"{private} belongs to another user")
    config = _configuration(root) if processes(root) else RawConfigParser()
    factory = "supervisor.rpcinterface:make_main_rpcinterface"
    settings: dict[str, dict[str, Any]] = {
        "unix_http_server": {"file": _socket(root)},
        "supervisord": {"pidfile": "%(here)s/supervisord.pid"} | _log("logfile", "supervisord"),
        "rpcinterface:supervisor": {"supervisor.rpcinterface_factory": factory},
        ADDRESSES: {service.name: service.address for service in missing},
    }
    config.read_dict(settings | {f"program:{one.name}": _program(one) for one in missing})
    with _path(root).open("w", encoding="utf-8") as file:
        config.write(file)


def _program(service: Service) -> dict[str, str]:
    python = (sys.executable, "-m")
    guarded = [*python, "flows.serve.guard", service.name, *python, *service.command]
    command = shlex.join(guarded)
    return _log("stdout_logfile", service.name) | {
        "command": command.replace("%", "%%"),
        "redirect_stderr": "true",
        # `bring_up` says when, and what has worked once comes back, whatever ended it.
        "autostart": "false",
        "autorestart": "true",
        # Ending earlier than this is a failed start, which is tried three times.
        "startsecs": "20",
        # The worker is stopped first. The guard needs no help with killing.
        "priority": "1" if service.port else "2",
        "stopwaitsecs": str(round(6 * environment.PROCESS_END_S)),
    }


def _log(key: str, name: str) -> dict[str, str]:
    return {key: f"%(here)s/{name}.log", f"{key}_maxbytes": "5MB", f"{key}_backups": "1"}


def bring_up(root: Path, service: Service, env: Mapping[str, str]) -> None:
    """Start a configured service; return when it answers, `InputError` with its last words else."""
    try:
        _supervisor(root).reloadConfig()
    except OSError:
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(_path(root))]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        if done.returncode:
            *_, said = ["it said nothing", *f"{done.stdout}\n{done.stderr}".strip().splitlines()]
            raise InputError(f"supervisord: {said}") from None
    supervisor = _supervisor(root)
    for forget in (supervisor.stopProcess, supervisor.removeProcessGroup):
        with contextlib.suppress(Fault):  # it was not there before, or is between two tries
            forget(service.name)
    supervisor.addProcessGroup(service.name)
    supervisor.clearProcessLogs(service.name)
    supervisor.startProcess(service.name, False)
    _wait(root, service)


def _wait(root: Path, service: Service) -> None:
    started = reported = time.monotonic()
    log = _path(root).with_name(f"{service.name}.log")
    while not service.answers():
        now = time.monotonic()
        if service.name not in processes(root):
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = lines[-1].strip() if lines else "it said nothing"
            raise InputError(f"{service.name} ended at once: {reason} (all of it: {log})")
        if now - started > (limit := environment.SERVICE_START_S):
            raise InputError(f"{service.name} does not answer after {limit:.0f} s; see {log}")
        if now - reported > environment.QUIET_S:
            reported = now
            print(one_line(f"{service.name}: starting, {now - started:.0f} s"), flush=True)
        time.sleep(0.3)


def stop(root: Path, names: Sequence[str] | None = None) -> None:
    """Stop the services (all, or `names`), the worker first; supervisord when none is left."""
    supervisor = _supervisor(root)
    try:
        programs, pid = supervisor.getAllProcessInfo(), supervisor.getPID()
    except OSError:
        # supervisord was killed, and perhaps the guards with it.
        left = [name for name in NAMES if guard.end_predecessor(root, name)]
        if names is None:
            print(
                one_line(f"{', '.join(left)}: what was left is stopped" if left else "nothing runs")
            )
        return
    live = processes(root)
    for name in reversed([program["name"] for program in programs]):
        if names is not None and name not in names:
            continue
        if name == "prefect-worker" and name in live and _has_runs(live[name]["pid"]):
            print(one_line(f"{name}: a retraining is under way and is stopped"), flush=True)
        with contextlib.suppress(Fault):  # it does not run
            supervisor.stopProcess(name)
        guard.end_predecessor(root, name)
        if name in live or names is None:
            print(
                one_line(f"{name}: {'stopped' if name in live else 'did not run any more'}"),
                flush=True,
            )
    if not processes(root):
        supervisor.shutdown()
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(environment.PROCESS_END_S)
        with contextlib.suppress(OSError):  # the state folder is not empty, a temporary one is
            _socket(root).parent.rmdir()


def _has_runs(guard: int) -> bool:
    """Whether there is more below a worker's guard than the worker, so a retraining."""
    try:
        return len(psutil.Process(guard).children(recursive=True)) > 1
    except psutil.NoSuchProcess:
        return False


def _supervisor(root: Path) -> Any:
    transport: Any = SupervisorTransport(serverurl=f"unix://{_socket(root)}")
    return ServerProxy("http://localhost", transport=transport).supervisor


def _configuration(root: Path) -> RawConfigParser:
    config = RawConfigParser()
    config.read(_path(root), encoding="utf-8")
    return config


def _path(root: Path) -> Path:
    return environment.state_dir(root) / "services" / "supervisord.conf"


def _socket(root: Path) -> Path:
    """Beside the configuration, or in the system's temporary folder when that is too deep."""
    path = _path(root).with_suffix(".sock")
    if len(os.fsencode(path)) <= SOCKET_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"adapt-{digest}", path.name)
