"""supervisord, which restarts what dies and bounds its logs: made to keep our services, and asked
for them through a unix socket that only this user can open. Each service runs below
`flows.serve.guard`, which says what supervisord cannot do.
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
from adapt.params import InputError
from flows.serve.services import Service

SOCKET_LIMIT = 90  # bytes; the kernel takes 107, and supervisord first appends its process id
LOG_LIMIT = "5MB"  # of each log; one older one is kept
ADDRESSES = "addresses"  # a section of the configuration that is ours; supervisord skips it


def processes(root: Path) -> dict[str, dict[str, Any]]:
    """What supervisord says of the services that run (name, pid, ...), and their `address`."""
    try:
        found = _supervisor(root).getAllProcessInfo()
    except OSError:  # no socket, or nobody listens
        return {}
    addresses = _configuration(root)[ADDRESSES]
    alive = [each for each in found if each["statename"] in ("STARTING", "RUNNING")]
    return {each["name"]: {**each, "address": addresses[each["name"]]} for each in alive}


def configure(root: Path, missing: Sequence[Service]) -> None:
    """Write supervisord's configuration for `missing`; what it says of other services stays."""
    folder, socket = _folder(root), _socket(root)
    for private in (folder, socket.parent):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private.lstat().st_uid != os.getuid():
            raise InputError(f"{private} belongs to another user")
    config = _configuration(root)
    factory = "supervisor.rpcinterface:make_main_rpcinterface"
    pid_file = {"pidfile": str(folder / "supervisord.pid")}
    sections = {
        "unix_http_server": {"file": str(socket)},
        "rpcinterface:supervisor": {"supervisor.rpcinterface_factory": factory},
        "supervisord": _log(folder / "supervisord", "logfile") | pid_file,
        ADDRESSES: {service.name: service.address for service in missing},
        **{f"program:{service.name}": _program(root, service) for service in missing},
    }
    for section, values in sections.items():
        # supervisord replaces what stands behind a percent sign.
        escaped = {key: value.replace("%", "%%") for key, value in values.items()}
        config.read_dict({section: escaped})
    with _path(root).open("w", encoding="utf-8") as file:
        config.write(file)


def _program(root: Path, service: Service) -> dict[str, str]:
    python = (sys.executable, "-m")
    return _log(_folder(root) / service.name, "stdout_logfile") | {
        "command": shlex.join([*python, "flows.serve.guard", *python, *service.command]),
        "directory": str(root),
        "redirect_stderr": "true",
        # `start` says when, and what has worked once comes back whatever ends it.
        "autostart": "false",
        "autorestart": "true",
        # Ending earlier than this is a failed start, which is tried three times.
        "startsecs": "20",
        # The worker is stopped first; the guard needs no help with killing.
        "priority": "1" if service.port else "2",
        "stopwaitsecs": str(round(6 * environment.PROCESS_END_S)),
    }


def _log(path: Path, key: str) -> dict[str, str]:
    return {key: f"{path}.log", f"{key}_maxbytes": LOG_LIMIT, f"{key}_backups": "1"}


def launch(root: Path, service: Service, env: Mapping[str, str]) -> None:
    """Start a service that has been configured, and supervisord before it when it does not run;
    return when it answers. `InputError` with its last words when it ends or stays silent.
    """
    try:
        _supervisor(root).reloadConfig()
    except OSError:
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(_path(root))]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"supervisord: {done.stderr.strip().splitlines()[-1]}") from None
    supervisor = _supervisor(root)
    with contextlib.suppress(Fault):  # it was not there before
        supervisor.removeProcessGroup(service.name)
    supervisor.addProcessGroup(service.name)
    supervisor.clearProcessLogs(service.name)
    supervisor.startProcess(service.name, False)
    _wait(root, service)


def _wait(root: Path, service: Service) -> None:
    started = announced = time.monotonic()
    log = _folder(root) / f"{service.name}.log"
    while not service.answers():
        now = time.monotonic()
        if service.name not in processes(root):
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = lines[-1].strip() if lines else "it said nothing"
            raise InputError(f"{service.name} ended at once: {reason} (all of it: {log})")
        if now - started > environment.SERVICE_START_S:
            limit = f"{environment.SERVICE_START_S:.0f} s"
            raise InputError(f"{service.name} does not answer after {limit}; see {log}")
        if now - announced > environment.QUIET_S:
            announced = now
            print(f"{service.name}: starting, {now - started:.0f} s", flush=True)
        time.sleep(0.3)


def stop(root: Path, names: Sequence[str] | None = None) -> None:
    """Stop the services (all, or those of `names`), the last started first; and supervisord when
    none is left.
    """
    supervisor = _supervisor(root)
    try:
        pid = supervisor.getPID()
    except OSError:
        if names is None:
            print("nothing runs")
        return
    for name in reversed([each["name"] for each in supervisor.getAllProcessInfo()]):
        if names is None or name in names:
            _stop_one(root, name)
    if not processes(root):
        supervisor.shutdown()
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(environment.PROCESS_END_S)


def _stop_one(root: Path, name: str) -> None:
    live = processes(root).get(name)
    # Below the guard there is the worker, and below that each retraining that it has started.
    if live and name == "prefect-worker":
        with contextlib.suppress(psutil.NoSuchProcess):
            if len(psutil.Process(live["pid"]).children(recursive=True)) > 1:
                print(f"{name}: a retraining is under way and is stopped", flush=True)
    with contextlib.suppress(Fault):  # it ended just now
        _supervisor(root).stopProcess(name)
    print(f"{name}: {'stopped' if live else 'did not run any more'}", flush=True)


def _supervisor(root: Path) -> Any:
    transport: Any = SupervisorTransport(serverurl=f"unix://{_socket(root)}")
    return ServerProxy("http://localhost", transport=transport).supervisor


def _configuration(root: Path) -> RawConfigParser:
    config = RawConfigParser()
    config.read(_path(root), encoding="utf-8")
    return config


def _folder(root: Path) -> Path:
    """Where configuration and logs are."""
    return environment.state_dir(root) / "services"


def _path(root: Path) -> Path:
    return _folder(root) / "supervisord.conf"


def _socket(root: Path) -> Path:
    """In the state folder, or in the system's folder for temporary files when that is too deep."""
    path = _folder(root) / "supervisord.sock"
    if len(os.fsencode(path)) <= SOCKET_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"adapt-{digest}", path.name)
