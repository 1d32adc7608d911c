"""A stage on a Ray cluster: submit it through Ray Jobs, follow it, and bring its result back.

`RAY_API_SERVER_ADDRESS`, Ray's own variable, says where (`http://127.0.0.1:8265`); without it
everything runs here. `ADAPT_RAY_STORAGE` names the storage that both sides reach (see
`adapt.cluster.storage`). A stage that can go there asks:

    if submit.address():
        return submit.submit("train", config, ["base/model"], results, out, log)

The job is `adapt.cluster.remote`: it fetches the inputs, calls the stage's `run` and publishes what
it wrote, so DVC sees the same files as after a run on this machine. The job's environment and
metadata are readable by everybody who reaches the dashboard, so no secret is sent: credentials of
the storage and of MLflow belong into the environment of the cluster's nodes.
"""

import dataclasses
import os
import shlex
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapt import environment, params
from adapt.cluster import jobs, remote, storage
from adapt.cluster.remote import StageJob
from adapt.params import InputError
from adapt.progress import Log
from adapt.tracking.store import StepLogger, without_credentials

STORAGE = "ADAPT_RAY_STORAGE"


def address() -> str | None:
    """Address of the Jobs API that stages go to; None: run here, as inside a job."""
    return None if inside() else os.environ.get(jobs.ADDRESS) or None


def inside() -> bool:
    """Whether this process is a job or worker of a Ray cluster, for which Ray sets these."""
    return bool(os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"))


def share(path: Path) -> str:
    """What a Ray Train worker, perhaps on another node, gives to `fetch` to read `path`."""
    exchange = os.environ.get(STORAGE)
    return storage.share(path, exchange) if exchange and inside() else str(path.resolve())


fetch = storage.fetch


def checkpoints(default: Path) -> dict[str, Any]:
    """Arguments of Ray Train's `RunConfig`: checkpoints go to `default`, or the storage."""
    exchange = os.environ.get(STORAGE)
    is_shared = exchange and inside()
    return storage.as_arrow(f"{exchange}/checkpoints" if is_shared else str(default.resolve()))


def submit(
    stage: str, config: Any, inputs: Sequence[str | Path], results: Path, out: Path, log: Log
) -> dict[str, float]:
    """Run `adapt.stages.<stage>` on the cluster and fill `out` as if here; returns its metrics.

    `inputs` are files and folders below `results/`. A mistake of the user that the job finds is
    raised here as the same `InputError`; any other failure as `RuntimeError` with the last lines of
    the job's log. Leaving early, be it through Ctrl-C or SIGTERM, stops the job.
    """
    # 1. Refuse what the cluster cannot reach, before it is asked.
    url = address()
    assert url, f"{jobs.ADDRESS} is not set"
    exchange = _storage(url, results.parent)
    logger = _logger(url, log)
    job_id = f"adapt-{stage}-{uuid.uuid4().hex[:12]}"
    folder = f"{exchange}/jobs/{job_id}"
    with environment.terminable():
        client = jobs.connect(url)
        # 2. Put the inputs on the storage, and beside them what the job is to do.
        with storage.named(exchange):
            uris = {Path(p).as_posix(): storage.share(results / p, exchange) for p in inputs}
            content = params.as_params(stage, config)
            job = StageJob(stage=stage, params=content, inputs=uris, logger=logger)
            storage.write_json(f"{folder}/job.json", dataclasses.asdict(job))
        # 3. Run it, and take its result; nothing of the submission stays, however it ends.
        try:
            _run(client, job_id, job, exchange)
            return storage.collect(folder, out)["metrics"]
        finally:
            storage.remove(folder)


def _run(client: Any, job_id: str, job: StageJob, exchange: str) -> None:
    """Submit `remote` with this code, follow it, and raise the right error when it fails."""
    uri = shlex.quote(f"{exchange}/jobs/{job_id}/job.json")
    variables = _job_environment(exchange, job.logger)
    command = f"python -m adapt.cluster.remote {job.stage} {uri}"
    metadata = {"stage": job.stage, "git_revision": _git_revision()}
    with _code() as code:
        env = {"working_dir": str(code), "env_vars": variables}
        ended = jobs.run(client, job_id, entrypoint=command, runtime_env=env, metadata=metadata)
    if ended.status == "SUCCEEDED":
        return
    mistakes = [line for line in ended.lines if line.startswith(remote.prefix(job.stage))]
    if ended.exit_code == 2 and mistakes:
        raise InputError(mistakes[-1].removeprefix(remote.prefix(job.stage)))
    if ended.status == "STOPPED":
        raise RuntimeError(f"{job_id} was stopped on the cluster")
    failure = f"{job_id} failed on the cluster (exit code {ended.exit_code}), its last lines:"
    raise RuntimeError("\n".join([failure, *ended.lines]))


# ---- what goes to the cluster ------------------------------------------------------------------


def _storage(url: str, root: Path) -> str:
    """Where both sides exchange files; a cluster on this machine needs no variable."""
    given = os.environ.get(STORAGE, "").rstrip("/")
    problem = f"not set, and {jobs.host(url)} is another machine; {storage.ADVICE}"
    params.require(bool(given) or jobs.is_loopback(url), STORAGE, problem)
    problem = "must not carry credentials, which would show in the job; set them on the nodes"
    params.require(without_credentials(given) == given, STORAGE, problem)
    given = given or str(environment.state_dir(root) / "ray" / "storage")
    return given if "://" in given else str(Path(given).resolve())


def _logger(url: str, log: Log) -> dict[str, str] | None:
    """How the job writes its curves into this process's MLflow run; it must reach it."""
    if not isinstance(log, StepLogger):
        return None
    shown = without_credentials(log.uri)
    names = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    problem = f"{shown} carries a password, which would show in the job; set {names} instead"
    params.require(shown == log.uri, "MLFLOW_TRACKING_URI", f"{problem}, here and on the nodes")
    is_file = urlsplit(log.uri).scheme in ("", "file", "sqlite")
    is_reached = jobs.is_loopback(url) or not (is_file or jobs.is_loopback(log.uri))
    problem = f"{shown} is on this machine only; {jobs.host(url)} needs a tracking server that it"
    advice = f"{problem} reaches: {remote.SERVER_ADVICE}"
    params.require(is_reached, "MLFLOW_TRACKING_URI", advice)
    return {"uri": log.uri, "run_id": log.run_id, "prefix": log.prefix}


def _job_environment(exchange: str, logger: Mapping[str, str] | None) -> dict[str, str]:
    defaults = {key: os.environ.get(key, value) for key, value in environment.DEFAULTS.items()}
    tracking = {"MLFLOW_TRACKING_URI": logger["uri"]} if logger else {}
    return {**defaults, STORAGE: exchange, **tracking}


@contextmanager
def _code() -> Iterator[Path]:
    """A folder with this package alone: Ray would take all but what .gitignore names."""
    with tempfile.TemporaryDirectory(prefix="adapt-code-") as folder:
        code, caches = Path(__file__).parents[1], shutil.ignore_patterns("__pycache__")
        shutil.copytree(code, Path(folder, "adapt"), ignore=caches)
        yield Path(folder)


def _git_revision() -> str:
    """The commit of the code that is sent, for the job's metadata: it has no repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
