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
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from adapt.cluster import storage, submit
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import Config
from adapt.progress import Log

SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker needs: configuration, where its inputs are (`submit.fetch`) and where step
    metrics go.
    """

    config: Config
    base: str
    pairs: str
    log: Log
    name: str
    reference: ReferenceCache


class Checkpoints(Protocol):
    """Where a loop finds its last checkpoint and leaves new ones."""

    workers: int

    def latest(self) -> contextlib.AbstractContextManager[Path | None]:
        """The last checkpoint as a local folder, or None for a fresh start."""
        ...

    def save(self, folder: Path) -> None:
        """Keep a copy of `folder`; every worker calls it, with its own share of the files."""
        ...


def fit(
    config: Config, base: Path, pairs: Path, out: Path, state: Path, log: Log
) -> dict[str, float]:
    """Train; writes `out/model` and `out/history.csv`.

    `state` keeps checkpoints until the run has succeeded, and reference log-probabilities for the
    next one.
    """
    from adapt.preference.checks import check

    check(config, base, pairs)
    digests = [storage.digest(storage.files_of(path)) for path in (base, pairs)]
    name = hashlib.sha256(
        json.dumps([config.model_dump(mode="json"), *digests], sort_keys=True).encode()
    ).hexdigest()
    job = Job(
        config=config,
        base=submit.share(base),
        pairs=submit.share(pairs),
        log=log,
        name=f"train-{name[:16]}",
        reference=ReferenceCache(uri=_reference_uri(state), base=digests[0]),
    )
    run = _fit_in_process if config.workers == 0 else _fit_with_ray
    with run(job, state) as final:
        shutil.copytree(final, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SUMMARY))
        return json.loads((final / SUMMARY).read_text())


def _reference_uri(state: Path) -> str:
    """Beside the checkpoints, or on a cluster on its storage; see `submit.checkpoints`."""
    storage = os.environ.get(submit.STORAGE)
    return (
        f"{storage}/reference"
        if storage and submit.inside()
        else str(state.resolve() / "reference")
    )


def _diverged(what: str, checkpoint: str | Path | None) -> FloatingPointError:
    kept = (
        f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
    )
    return FloatingPointError(
        f"{what}; {kept}. A lower train.learning_rate may help, or leave these rows out"
    )


@contextlib.contextmanager
def _fit_in_process(job: Job, state: Path) -> Iterator[Path]:
    folder = state / job.name
    try:
        loop(job, LocalCheckpoints(folder))
    except FloatingPointError as error:
        kept = folder / "checkpoint"
        raise _diverged(str(error), kept if kept.exists() else None) from None
    yield folder / "final"
    shutil.rmtree(folder)


@dataclasses.dataclass
class LocalCheckpoints:
    """Checkpoints of the in-process run: one folder, replaced by rename."""

    folder: Path
    workers: int = 1

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The kept checkpoint."""
        kept = self.folder / "checkpoint"
        yield kept if kept.exists() else None

    def save(self, folder: Path) -> None:
        """Replace the kept checkpoint (or the final result, which is a folder with a summary)."""
        target = self.folder / ("final" if (folder / SUMMARY).exists() else "checkpoint")
        fresh = self.folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(folder, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)


@contextlib.contextmanager
def _fit_with_ray(job: Job, state: Path) -> Iterator[Path]:
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    print(
        f"train: starting {job.config.workers} Ray workers, which takes about half a minute",
        file=sys.stderr,
    )
    where = submit.checkpoints(state)
    with _ray(job.config.workers):
        gpus = ray.cluster_resources().get("GPU", 0)
        trainer = TorchTrainer(
            _worker_loop,
            train_loop_config={"job": job},
            scaling_config=ScalingConfig(
                num_workers=job.config.workers, use_gpu=gpus >= job.config.workers
            ),
            run_config=RunConfig(
                name=job.name,
                **where,
                failure_config=FailureConfig(max_failures=job.config.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )
        result = trainer.fit()
        if result.return_value is not None:
            raise _diverged(result.return_value, result.checkpoint and result.checkpoint.path)
        assert result.checkpoint is not None, "the loop ends by reporting its result"
        with result.checkpoint.as_directory() as final:
            yield Path(final)
        result.checkpoint.filesystem.delete_dir(f"{where['storage_path']}/{job.name}")


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[None]:
    """A Ray to train on: the cluster this process runs in, or a local one that ends with the block."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=True)
    else:
        # "local" explicitly: a leftover address file of another cluster would otherwise be joined.
        ray.init(
            address="local",
            num_cpus=max(workers, os.cpu_count() or 1),
            include_dashboard=True,  # without it Ray Train's cleaner complains once a second
            dashboard_host="127.0.0.1",
            object_store_memory=256 * 1024**2,
            logging_level="ERROR",
        )
    try:
        yield
    finally:
        ray.shutdown()


def _worker_loop(settings: dict[str, Any]) -> str | None:
    """What went wrong in a way that a second try would repeat, or None; anything else that Ray
    sees, it tries again.
    """
    try:
        loop(settings["job"], RayCheckpoints())
    except FloatingPointError as error:  # all workers stop at the same step
        return str(error)
    return None


class RayCheckpoints:
    """Checkpoints of a Ray Train worker; Ray merges the workers' files and hands all of them back."""

    def __init__(self) -> None:
        import ray.train

        self.workers = ray.train.get_context().get_world_size()

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The last checkpoint that Ray has registered."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)

    def save(self, folder: Path) -> None:
        """Report the folder; a barrier over all workers."""
        import ray.train

        ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))


def loop(job: Job, checkpoints: Checkpoints) -> None:
    """What each worker does: load, train (from the last checkpoint if there is one), save the
    result once.
    """
    from adapt.preference.build import build_trainer
    from adapt.preference.callback import ReportCallback, summary, write_history

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # deprecations among TRL, accelerate and transformers
        base, pairs = submit.fetch(job.base), submit.fetch(job.pairs)
        output = Path(scratch) / "trainer"
        trainer = build_trainer(job.config, base, pairs, job.reference, output, checkpoints.workers)
        trainer.add_callback(ReportCallback(job.log, checkpoints, job.config.steps))
        with checkpoints.latest() as latest:
            if latest is not None and (latest / SUMMARY).exists():
                return  # restarted after the result was saved: nothing is left to do
            if latest is not None and trainer.is_world_process_zero():
                print(
                    f"train: resuming from {json.loads((latest / 'trainer_state.json').read_text())['global_step']}"
                    f" of {job.config.steps} steps",
                    file=sys.stderr,
                )
            trainer.train(resume_from_checkpoint=None if latest is None else str(latest))
        final = Path(scratch) / "final"
        final.mkdir()
        if trainer.is_world_process_zero():
            _save_model(trainer, final / "model")
            write_history(trainer.state.log_history, final / "history.csv")
            (final / SUMMARY).write_text(json.dumps(summary(trainer.state.log_history)))
        checkpoints.save(final)


def _save_model(trainer: Any, folder: Path) -> None:
    from adapt.models.load import save

    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):  # LoRA: the result is a plain model again
        model = model.merge_and_unload()
    save(model, trainer.processing_class, folder)
