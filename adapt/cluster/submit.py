"""A stage on a Ray cluster: submit it through Ray Jobs, follow it, and bring its result back.

`RAY_API_SERVER_ADDRESS`, Ray's own variable, says where (`http://127.0.0.1:8265`); without it
everything runs here. `ADAPT_RAY_STORAGE` names the storage that both sides reach (see
`adapt.cluster.storage`). For a stage that can go there, `adapt.launch` asks:

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
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from adapt import addresses, command, environment, params
from adapt.cluster import jobs, remains, remote, storage
from adapt.cluster.followers import following
from adapt.cluster.local import JOB
from adapt.cluster.luggage import Luggage
from adapt.cluster.remote import StageJob
from adapt.data.outside import Outside
from adapt.files import delete, scratch
from adapt.names import one_line
from adapt.params import InputError
from adapt.progress import Log, Recorder

STORAGE = "ADAPT_RAY_STORAGE"


def address() -> str | None:
    """Address of the Jobs API that stages go to; None: run here, as inside a job."""
    return None if inside() else addresses.given(jobs.ADDRESS) or None


def inside() -> bool:
    """Whether this process is a job or worker of a Ray cluster, for which Ray sets these."""
    return bool(os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"))


def share(path: Path) -> str:
    """What a Ray Train worker, perhaps on another node, gives to `fetch` to read `path`."""
    exchange = os.environ.get(STORAGE)
    return storage.share(path, exchange) if exchange and inside() else str(path.resolve())


fetch = storage.fetch


def checkpoints(default: Path) -> dict[str, Any]:
    """Arguments of Ray Train's `RunConfig`: checkpoints go to `default`, or the storage.

    There a job has a folder of its own, in which the next job with the same work finds them.
    """
    exchange = os.environ.get(STORAGE)
    shared = f"{os.environ.get(JOB) or exchange}/checkpoints" if exchange and inside() else ""
    return storage.as_arrow(shared or str(default.resolve()))


def discard(filesystem: Any, path: str) -> None:
    """Delete Ray Train's folder of a run that has ended; a job's is deleted with its result."""
    if JOB not in os.environ:
        filesystem.delete_dir(path)


def code_digest() -> str:
    """sha256 over this package's sources."""
    package = Path(__file__).parents[1]
    sources = {p.relative_to(package).as_posix(): p for p in package.rglob("*.py")}
    return storage.digest(sources)


def submit(
    stage: str,
    config: Any,
    inputs: Sequence[str | Path],
    results: Path,
    out: Path,
    log: Log,
    outside: Sequence[Outside] = (),
) -> dict[str, float]:
    """Run `adapt.stages.<stage>` on the cluster and fill `out` as if here; returns its metrics.

    `inputs` are files and folders below `results/`, `outside` is what it reads elsewhere. A mistake
    of the user that the job finds is raised here as the same `InputError`; any other failure as
    `RuntimeError` with the last lines of the job's log. Leaving early, be it through Ctrl-C or
    SIGTERM, stops the job unless others wait for it too; a process that is killed finds the job, or
    its result, when it is started again.
    """
    # 1. Refuse what the cluster cannot reach, before it is asked.
    url = address()
    assert url, f"{jobs.ADDRESS} is not set"
    exchange = _storage(url, results.parent)
    logger = _logger(url, log)
    with environment.terminable():
        client = jobs.connect(url)
        with storage.named(exchange):
            # 2. Put the inputs on the storage. They, the settings and the code name the work.
            luggage = Luggage(stage, outside)
            job = StageJob(
                stage=stage,
                params=luggage.packed(params.as_params(stage, config)),
                inputs={Path(p).as_posix(): storage.share(results / p, exchange) for p in inputs},
                outside=luggage.shared(exchange),
                code=code_digest(),
                logger=logger,
            )
            folder = f"{exchange}/jobs/{job.name}"
            remains.sweep(exchange, job.name)
            metrics = _collected(folder, out)
            storage.write_json(f"{folder}/job.json", dataclasses.asdict(job))
        # 3. Take its result: it is there, or a job is waited for.
        if metrics is None:
            _run(client, job, exchange, folder, luggage)
        with storage.named(exchange):
            if metrics is None:
                metrics = storage.collect(folder, out)["metrics"]
            luggage.unpack(out)
            storage.write_json(f"{folder}/{remains.COLLECTED}", {"by": _git_revision()})
        return metrics


def _collected(folder: str, out: Path) -> dict[str, float] | None:
    """The result that is there already; a damaged one is made again."""
    if not storage.is_complete(folder):
        return None
    try:
        metrics: dict[str, float] = storage.collect(folder, out)["metrics"]
    except storage.Damaged:
        line = f"{folder}: the result there is damaged; it is made again"
        print(one_line(line), file=sys.stderr, flush=True)
        storage.remove(f"{folder}/{storage.COMPLETE}")
        for path in out.iterdir():
            delete(path)
        return None
    print(one_line(f"{folder}: the result is there already"), flush=True)
    return metrics


def _run(client: Any, job: StageJob, exchange: str, folder: str, luggage: Luggage) -> None:
    """Submit `remote` with this code, or find it running; raise the right error when it fails."""
    uri = f"{folder}/job.json"
    variables = {**_job_environment(exchange, job.logger), JOB: folder}
    command = f"python -m adapt.cluster.remote {job.stage} {shlex.quote(uri)}"
    metadata = {"stage": job.stage, "git_revision": _git_revision()}
    ended = None

    @contextmanager
    def sent() -> Iterator[dict[str, Any]]:
        with _code() as code:
            what = {"working_dir": str(code), "env_vars": variables}
            yield {"entrypoint": command, "runtime_env": what, "metadata": metadata}

    with following(folder) as follower:
        try:
            ended = jobs.run(client, job.name, follower.is_alone, sent, luggage.unpacked)
        finally:
            if (ended is None or ended.status != "SUCCEEDED") and follower.is_alone():
                remains.tidy(folder)
    if ended.status != "SUCCEEDED":
        _raise(job, ended)


def _raise(job: StageJob, ended: jobs.EndedJob) -> NoReturn:
    prefix = remote.prefix(job.stage)
    mistakes = [line for line in ended.lines if line.startswith(prefix)]
    if ended.exit_code == 2 and mistakes:
        raise InputError(mistakes[-1].removeprefix(prefix))
    if ended.status == "STOPPED":
        raise RuntimeError(f"{job.name} was stopped on the cluster")
    how = "no exit code" if ended.exit_code is None else command.of_code(ended.exit_code)
    failure = f"{job.name} failed on the cluster ({how}), its last lines:"
    raise RuntimeError("\n".join([failure, *ended.lines]))


# ---- what goes to the cluster ------------------------------------------------------------------


def _storage(url: str, root: Path) -> str:
    """Where both sides exchange files; a cluster on this machine needs no variable."""
    given = addresses.given(STORAGE).rstrip("/")
    problem = f"not set, and {addresses.host(url)} is another machine; {storage.ADVICE}"
    params.require(bool(given) or addresses.is_loopback(url), STORAGE, problem)
    problem = "must not carry credentials, which would show in the job; set them on the nodes"
    params.require(addresses.shown(given) == given, STORAGE, problem)
    given = given or str(environment.state_dir(root) / "ray" / "storage")
    return given if "://" in given else str(Path(given).resolve())


def _logger(url: str, log: Log) -> dict[str, str] | None:
    """How the job writes its curves into this process's MLflow run; it must reach it."""
    if not isinstance(log, Recorder):
        return None
    shown = addresses.shown(log.uri)
    names = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    problem = f"{shown} carries a password, which would show in the job; set {names} instead"
    params.require(shown == log.uri, "MLFLOW_TRACKING_URI", f"{problem}, here and on the nodes")
    is_file = urlsplit(log.uri).scheme in ("", "file", "sqlite")
    is_reached = addresses.is_loopback(url) or not (is_file or addresses.is_loopback(log.uri))
    problem = f"{shown} is on this machine only; {addresses.host(url)} needs a tracking server that"
    advice = f"{problem} it reaches: {remote.SERVER_ADVICE}"
    params.require(is_reached, "MLFLOW_TRACKING_URI", advice)
    return log.live()


def _job_environment(exchange: str, logger: Mapping[str, str] | None) -> dict[str, str]:
    defaults = {key: os.environ.get(key, value) for key, value in environment.DEFAULTS.items()}
    tracking = {"MLFLOW_TRACKING_URI": logger["uri"]} if logger else {}
    return {**defaults, STORAGE: exchange, **tracking}


@contextmanager
def _code() -> Iterator[Path]:
    """A folder with this package alone: Ray would take all but what .gitignore names."""
    with scratch("adapt-code-") as folder:
        code, caches = Path(__file__).parents[1], shutil.ignore_patterns("__pycache__")
        shutil.copytree(code, folder / "adapt", ignore=caches)
        yield folder


def _git_revision() -> str:
    """The commit of the code that is sent, for the job's metadata: it has no repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
