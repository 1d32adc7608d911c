"""One training run: the loop that every worker executes, and the two ways to run it.

`workers: 0` runs the loop in this process; otherwise Ray Train runs it on that many workers, of a
local Ray or of the cluster this process belongs to (RAY_ADDRESS). Both save checkpoints under a
name that depends on the inputs and the configuration alone, so that a run that was cut off goes on
from its last checkpoint, and a finished one leaves none. A run whose loss or gradients stop being
finite ends with FloatingPointError, which names the step, the rows and where its last checkpoint
is; Ray does not try again what would come out the same.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from adapt.cluster import storage, submit
from adapt.cluster.local import ray_here
from adapt.models.device import resolve
from adapt.models.settings import Device
from adapt.params import require
from adapt.preference import adapters, parts
from adapt.preference.build import build_trainer
from adapt.preference.callback import ReportCallback
from adapt.preference.checkpoints import SUMMARY, Checkpoints, LocalCheckpoints, RayCheckpoints
from adapt.preference.checks import check
from adapt.preference.movement import StillWeights
from adapt.preference.reference import ReferenceCache
from adapt.preference.result import deliver, write_result
from adapt.preference.settings import Config
from adapt.progress import Log


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker needs; `base` and `pairs` are for `submit.fetch`, `name` is the run's."""

    config: Config
    base: str
    pairs: str
    reference: ReferenceCache
    log: Log
    name: str


def fit(
    config: Config, base: Path, pairs: Path, out: Path, state: Path, log: Log
) -> dict[str, float]:
    """Train; writes `out/model`, `out/history.csv` and `out/modules.csv`.

    `state` keeps checkpoints until the run has succeeded, and reference log-probabilities for the
    next one.
    """
    check(config, base, pairs)
    adapters.check(config, base)
    setup = _setup(config, base, pairs, state, log)
    if config.workers == 0:
        local = LocalCheckpoints(state / setup.name)
        _require_finite(loop(setup, local), local.kept)
        metrics = deliver(local.result, out)
        shutil.rmtree(local.folder)
        return metrics
    message = f"train: starting {config.workers} Ray workers, which takes about half a minute"
    print(message, file=sys.stderr)
    with ray_here(config.workers):
        result = _ray_trainer(setup, submit.checkpoints(state)).fit()
        checkpoint = result.checkpoint
        _require_finite(result.return_value, checkpoint and checkpoint.path)
        assert checkpoint is not None, "the loop ends by reporting its result"
        with checkpoint.as_directory() as final:
            metrics = deliver(Path(final), out)
        result.filesystem.delete_dir(result.path)
        return metrics


def loop(setup: WorkerSetup, checkpoints: Checkpoints) -> str | None:
    """What each worker does: load, train on from the last checkpoint, save the result once.

    Returns why a loss was not finite, or None. It is no exception, because Ray starts a worker that
    raises again, and this would come out the same; all workers stop at the same step.
    """
    try:
        workspace, quiet = checkpoints.workspace(), warnings.catch_warnings()
        with workspace as scratch, quiet, checkpoints.latest() as latest:
            # 1. A worker that was started again after the result had been saved has nothing to do.
            if latest is not None and (latest / SUMMARY).exists():
                return None
            # 2. A resumed run builds what a fresh one does; the reference is in the cache.
            # Deprecations among TRL, accelerate and transformers.
            warnings.simplefilter("ignore", FutureWarning)
            base, pairs = submit.fetch(setup.base), submit.fetch(setup.pairs)
            output, final, config = scratch / "trainer", scratch / "final", setup.config
            device = resolve(config.device)
            trainer, what = build_trainer(config, device, base, pairs, setup.reference, output)
            for callback in _callbacks(setup, checkpoints):
                trainer.add_callback(callback)
            is_first = trainer.is_world_process_zero()
            if is_first:
                _print_start(what, latest, config.steps)
            # 3. Weights, optimiser, random states, the place in the data and the history go on
            #    from the checkpoint.
            trainer.train(resume_from_checkpoint=None if latest is None else str(latest))
            # 4. All ranks save, because Ray waits for all; rank 0 has the files.
            final.mkdir()
            if is_first:
                write_result(trainer, what, config, base, final)
            checkpoints.save(final)
    except FloatingPointError as error:
        return str(error)
    return None


def _setup(config: Config, base: Path, pairs: Path, state: Path, log: Log) -> WorkerSetup:
    digests = [storage.digest(storage.files_of(path)) for path in (base, pairs)]
    inputs = json.dumps([config.model_dump(mode="json"), *digests], sort_keys=True)
    name = f"train-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"
    # Beside the checkpoints, or on a cluster on its storage; see `submit.checkpoints`.
    storage_uri = os.environ.get(submit.STORAGE) if submit.inside() else None
    reference = ReferenceCache(uri=f"{storage_uri or state.resolve()}/reference", base=digests[0])
    shared = {"base": submit.share(base), "pairs": submit.share(pairs)}
    return WorkerSetup(config=config, reference=reference, log=log, name=name, **shared)


def _require_finite(problem: str | None, checkpoint: str | Path | None) -> None:
    if problem is None:
        return
    kept = f"the last good checkpoint is {checkpoint}"
    advice = "A lower train.learning_rate may help, or leave these rows out"
    where = kept if checkpoint else "there is no checkpoint yet"
    raise FloatingPointError(f"{problem}; {where}. {advice}")


def _callbacks(setup: WorkerSetup, checkpoints: Checkpoints) -> tuple[ReportCallback, StillWeights]:
    steps, pairs = setup.config.steps, setup.config.batch_pairs
    return ReportCallback(setup.log, checkpoints, steps, pairs), StillWeights()


def _print_start(what: parts.Parts, checkpoint: Path | None, steps: int) -> None:
    for line in parts.lines(what.table):
        print(f"train: {line}", file=sys.stderr)
    if checkpoint is None:
        return
    step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
    print(f"train: resuming from {step} of {steps} steps", file=sys.stderr)


# ---- Ray, imported only where it runs ----------------------------------------------------------


def _ray_trainer(setup: WorkerSetup, place: dict[str, Any]) -> Any:
    """Ray Train's trainer of `loop`; `place` is where it keeps checkpoints."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    workers, gpus = setup.config.workers, int(ray.cluster_resources().get("GPU", 0))
    device = worker_device(setup.config.device, workers, gpus)
    config = setup.config.model_copy(update={"device": device})
    setup = dataclasses.replace(setup, config=config)
    scaling = ScalingConfig(num_workers=workers, use_gpu=device == "cuda")
    run = RunConfig(
        name=setup.name,
        **place,
        failure_config=FailureConfig(max_failures=setup.config.max_failures),
        checkpoint_config=CheckpointConfig(num_to_keep=2),
        logging_config=LoggingConfig(log_level="WARNING"),
    )
    work = functools.partial(loop, setup, RayCheckpoints())
    return TorchTrainer(work, scaling_config=scaling, run_config=run)


def worker_device(device: Device, workers: int, gpus: int) -> Device:
    """Where Ray's workers train: a GPU for each of them, or the CPU.

    Raises InputError where the cluster has GPUs, but not one for each worker, or none that was
    asked for: workers on CPUs beside idle GPUs would take for ever without a word.

    >>> worker_device("auto", 2, 2), worker_device("auto", 2, 0), worker_device("cpu", 2, 1)
    ('cuda', 'cpu', 'cpu')
    """
    require(device != "mps", "device", "mps trains in one process; set train.workers to 0")
    if device == "cpu" or (device == "auto" and gpus == 0):
        return "cpu"
    problem = f"{workers} workers need a GPU each, and Ray has {gpus}"
    require(gpus >= workers, "train.workers", f"{problem}; set it to {gpus}, or device to cpu")
    return "cuda"
