"""One training run: the loop that every worker executes, and the two ways to run it.

`workers: 0` runs the loop in this process; otherwise Ray Train runs it on that many workers, of a
local Ray or of the cluster this process belongs to (RAY_ADDRESS). Both save checkpoints under a
name that depends on the inputs and the configuration alone, so that a run that was cut off goes on
from its last checkpoint, and a finished one leaves none. A run whose loss or gradients stop being
finite ends with FloatingPointError, which names the step, the rows and where its last checkpoint
is; Ray does not try again what would come out the same.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapt import environment
from adapt.cluster import storage, submit
from adapt.models.load import save
from adapt.preference.build import build_trainer
from adapt.preference.callback import ReportCallback, final_metrics, write_history
from adapt.preference.checkpoints import SUMMARY, Checkpoints, LocalCheckpoints, RayCheckpoints
from adapt.preference.checks import check
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import Config
from adapt.preference.trainer import AdaptTrainer
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
    """Train; writes `out/model` and `out/history.csv`.

    `state` keeps checkpoints until the run has succeeded, and reference log-probabilities for the
    next one.
    """
    check(config, base, pairs)
    setup = _setup(config, base, pairs, state, log)
    if config.workers == 0:
        local = LocalCheckpoints(state / setup.name)
        _require_finite(loop(setup, local), local.kept)
        metrics = _deliver(local.result, out)
        shutil.rmtree(local.folder)
        return metrics
    message = f"train: starting {config.workers} Ray workers, which takes about half a minute"
    print(message, file=sys.stderr)
    with _ray(config.workers):
        result = _ray_trainer(setup, submit.checkpoints(state)).fit()
        checkpoint = result.checkpoint
        _require_finite(result.return_value, checkpoint and checkpoint.path)
        assert checkpoint is not None, "the loop ends by reporting its result"
        with checkpoint.as_directory() as final:
            metrics = _deliver(Path(final), out)
        result.filesystem.delete_dir(result.path)
        return metrics


def loop(setup: WorkerSetup, checkpoints: Checkpoints) -> str | None:
    """What each worker does: load, train on from the last checkpoint, save the result once.

    Returns why a loss was not finite, or None. It is no exception, because Ray starts a worker that
    raises again, and this would come out the same; all workers stop at the same step.
    """
    try:
        workspace, quiet = tempfile.TemporaryDirectory(), warnings.catch_warnings()
        with workspace as scratch, quiet, checkpoints.latest() as latest:
            # 1. A worker that was started again after the result had been saved has nothing to do.
            if latest is not None and (latest / SUMMARY).exists():
                return None
            # 2. A resumed run builds what a fresh one does; the reference is in the cache.
            # Deprecations among TRL, accelerate and transformers.
            warnings.simplefilter("ignore", FutureWarning)
            base, pairs = submit.fetch(setup.base), submit.fetch(setup.pairs)
            output, final = Path(scratch) / "trainer", Path(scratch) / "final"
            trainer = build_trainer(setup.config, base, pairs, setup.reference, output)
            trainer.add_callback(ReportCallback(setup.log, checkpoints, setup.config.steps))
            # 3. Weights, optimiser, random states, the place in the data and the history go on
            #    from the checkpoint.
            if latest is not None and trainer.is_world_process_zero():
                _print_resumed(latest, setup.config.steps)
            trainer.train(resume_from_checkpoint=None if latest is None else str(latest))
            # 4. All ranks save, because Ray waits for all; rank 0 has the files.
            final.mkdir()
            if trainer.is_world_process_zero():
                _write_result(trainer, final)
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


def _deliver(final: Path, out: Path) -> dict[str, float]:
    """Copy a saved result to `out`; returns the metrics that lie beside it."""
    shutil.copytree(final, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SUMMARY))
    return json.loads((final / SUMMARY).read_text())


def _print_resumed(checkpoint: Path, steps: int) -> None:
    step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
    print(f"train: resuming from {step} of {steps} steps", file=sys.stderr)


def _write_result(trainer: AdaptTrainer, folder: Path) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):  # LoRA: the result is a plain model again
        model = model.merge_and_unload()
    save(model, trainer.processing_class, folder / "model")
    write_history(trainer.state.log_history, folder / "history.csv")
    (folder / SUMMARY).write_text(json.dumps(final_metrics(trainer.state.log_history)))


# ---- Ray, imported only where it runs ----------------------------------------------------------


def _ray_trainer(setup: WorkerSetup, place: dict[str, Any]) -> Any:
    """Ray Train's trainer of `loop`; `place` is where it keeps checkpoints."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    workers, gpus = setup.config.workers, ray.cluster_resources().get("GPU", 0)
    scaling = ScalingConfig(num_workers=workers, use_gpu=gpus >= workers)
    run = RunConfig(
        name=setup.name,
        **place,
        failure_config=FailureConfig(max_failures=setup.config.max_failures),
        checkpoint_config=CheckpointConfig(num_to_keep=2),
        logging_config=LoggingConfig(log_level="WARNING"),
    )
    work = functools.partial(loop, setup, RayCheckpoints())
    return TorchTrainer(work, scaling_config=scaling, run_config=run)


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[None]:
    """The Ray that this process runs in, or a local one that ends with the block."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=True)
    else:
        # "local" explicitly: a leftover address file of another cluster would otherwise be joined.
        ray.init(
            address="local",
            num_cpus=max(workers, environment.cpus()),
            include_dashboard=True,  # without it Ray Train's cleaner complains once a second
            dashboard_host="127.0.0.1",
            object_store_memory=256 * 1024**2,
            logging_level="ERROR",
        )
    try:
        yield
    finally:
        ray.shutdown()
