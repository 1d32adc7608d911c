"""A training on Ray's workers: what each is told, where it trains, and what comes back.

The loop itself is that of `fit`. Ray is imported only where it runs.
"""

import dataclasses
import functools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adapt.cluster import submit
from adapt.cluster.local import ray_here
from adapt.cluster.waiting import followed
from adapt.data.schema import Vocabulary
from adapt.files import whole_folder
from adapt.models.settings import Device
from adapt.names import one_line
from adapt.params import InputError, require
from adapt.preference.checkpoints import Checkpoints, RayCheckpoints, rescue
from adapt.preference.claim import Training
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import Config
from adapt.preference.survey import Facts
from adapt.progress import Log

Settle = Callable[[Config, Path, Facts, torch.device], Config]
"""What settings become some of whose keys are left open; `adapt/inspect/settled.py` has it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker needs; `base`, `pairs`, `plain` and `split` are for `submit.fetch`.

    `plain` is None where no plain rows are rehearsed, `split` and `words`, the validation split and
    its words of objects, where nothing is validated; `facts` are of the rows; `settle` finds what
    keys of the configuration are that it leaves open; `name` is the run's.
    """

    config: Config
    base: str
    pairs: str
    plain: str | None
    split: str | None
    words: Vocabulary | None
    reference: ReferenceCache
    log: Log
    name: str
    facts: Facts = dataclasses.field(default_factory=Facts)
    settle: Settle | None = None


Loop = Callable[[WorkerSetup, Checkpoints], str | None]


def on_ray(loop: Loop, setup: WorkerSetup, training: Training) -> None:
    """Train on Ray's workers, of the cluster or of a local Ray; leaves `training.final`."""
    worlds, folder = setup.config.worlds, training.folder
    workers = " or ".join(map(str, worlds))
    message = f"train: starting {workers} Ray workers, which takes about half a minute"
    print(one_line(message), file=sys.stderr)
    place = submit.checkpoints(folder)
    checkpoints = RayCheckpoints(Path(place["storage_path"], "checkpoint"))
    if "storage_filesystem" not in place:  # an object store has nothing half-written
        rescue(Path(place["storage_path"], setup.name), checkpoints.rescued)
    with ray_here(worlds[-1]):
        trainer = _trainer(loop, setup, checkpoints, place)
        result = _result(trainer, setup.config)
        checkpoint = result.checkpoint
        require_finite(result.return_value, checkpoint and checkpoint.path)
        assert checkpoint is not None, "the loop ends by reporting its result"
        _take(checkpoint, training)
        submit.discard(result.filesystem, result.path)
    shutil.rmtree(checkpoints.rescued, ignore_errors=True)
    # Of workers that were killed, and that no one took the place of.
    for left in folder.glob(f".{setup.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _result(trainer: Any, config: Config) -> Any:
    """Ray Train's result; a worker's mistake of the user's is raised as that alone."""
    from ray.train import TrainingFailedError

    each = "GPU" if trainer.scaling_config.use_gpu else "CPU"
    try:
        return followed(trainer.fit, config.wait_minutes, {each: config.worlds[0]})
    except TrainingFailedError as error:
        failures = getattr(error, "worker_failures", {}).values()
        for failure in (getattr(one, "_base_exc", one) for one in failures):
            if isinstance(failure, InputError):
                raise failure from None
        raise


def _take(checkpoint: Any, training: Training) -> None:
    """Make Ray's last checkpoint the result: in one step, or as a copy from a storage."""
    source = Path(checkpoint.path)
    if source.is_relative_to(training.folder.resolve()):
        source.rename(training.final)
        return
    with whole_folder(training.final) as partial:
        checkpoint.to_directory(str(partial))


def require_finite(problem: str | None, checkpoint: str | Path | None) -> None:
    """Raise FloatingPointError for what the loop has come to, if it has ended early."""
    if problem is None:
        return
    kept = f"the last good checkpoint is {checkpoint}"
    advice = "A lower train.learning_rate may help, or leave these rows out"
    where = kept if checkpoint else "there is no checkpoint yet"
    raise FloatingPointError(f"{problem}; {where}. {advice}")


def _trainer(
    loop: Loop, setup: WorkerSetup, checkpoints: Checkpoints, place: dict[str, Any]
) -> Any:
    """Ray Train's trainer of `loop`; `place` is where it keeps checkpoints."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig

    from adapt.cluster import elastic, group

    worlds, gpus = setup.config.worlds, int(ray.cluster_resources().get("GPU", 0))
    device = worker_device(setup.config.device, worlds[0], gpus)
    config = setup.config.model_copy(update={"device": device})
    setup = dataclasses.replace(setup, config=config)
    run = RunConfig(
        name=setup.name,
        **place,
        failure_config=FailureConfig(max_failures=setup.config.max_failures),
        checkpoint_config=CheckpointConfig(num_to_keep=2),
        logging_config=LoggingConfig(log_level="WARNING"),
    )
    work = functools.partial(loop, setup, checkpoints)
    workers = worlds[0] if isinstance(config.workers, int) else worlds
    more = {"run_config": run, "torch_config": group.config()}
    return elastic.trainer(work, workers, device == "cuda", **more)


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
