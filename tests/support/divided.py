"""Trainings of several processes that are no Ray's, and what they have done, step by step.

    found = run([Case(...), Case(...)], processes=2, folder=...)

Each process builds the trainer as a worker does. All cases of a call share their processes, whose
start takes longest. There is a process group where one of the cases is divided.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from adapt.data.schema import Vocabulary
from adapt.models.load import save
from adapt.preference.build import build_trainer
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import Config
from adapt.preference.validation import Validation, is_point
from tests.support import limits


@dataclasses.dataclass(frozen=True)
class Case:
    """A training; `resume` is the folder of a checkpoint, `split` and `words` what it is validated
    on.
    """

    name: str
    config: Config
    base: Path
    pairs: Path
    plain: Path | None = None
    resume: Path | None = None
    split: Path | None = None
    words: Vocabulary | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a training has done: at each step loss, norm and gradients before clipping; and what was
    found of the base and of checkpoints.
    """

    losses: list[float]
    norms: list[float]
    gradients: list[dict[str, Tensor]]
    points: list[dict[str, float]]
    error: str
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def checkpoint(self, step: int) -> Path:
        return self.folder / "work" / f"checkpoint-{step}"


def run(cases: list[Case], processes: int, folder: Path) -> dict[str, Found]:
    """Train all cases, one after another, each by `processes` processes."""
    folder.mkdir(parents=True)
    started = multiprocessing.start_processes(
        _work, (cases, processes, folder), processes, join=False, start_method="spawn"
    )
    try:
        limits.until(lambda: started.join(1), "end of all processes", limits.COMMAND_S)
    finally:
        for process in started.processes:
            process.kill()
    return {case.name: _read(folder / case.name) for case in cases}


def _read(folder: Path) -> Found:
    return Found(**torch.load(folder / "found.pt", weights_only=True), folder=folder)


def _work(rank: int, cases: list[Case], processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    is_group = any(case.config.shard == "fsdp" for case in cases)
    if is_group:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}
        os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "1",
        }  # not asked: there is a group
        where = f"file://{folder / 'group'}"
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=processes)
    for case in cases:
        _train(rank, case, folder / case.name)
    if is_group:
        dist.destroy_process_group()


def _train(rank: int, case: Case, to: Path) -> None:
    to.mkdir(exist_ok=True)
    cache = ReferenceCache(uri=str(to / "reference"), base=case.name)
    files = (case.base, case.pairs, cache, to / "work", case.plain)
    asked = _validation(case, to / f"own-{rank}")
    trainer, _ = build_trainer(case.config, torch.device("cpu"), *files, asked)
    trainer.args.save_total_limit = None
    norms: list[float] = []
    gradients: list[dict[str, Tensor]] = []
    _watch(trainer, norms, gradients)
    resume, error, whole = None if case.resume is None else str(case.resume), "", None
    try:
        trainer.train(resume_from_checkpoint=resume)
        whole = trainer.whole_model(case.base, trainer.best())
    except (FloatingPointError, ValueError) as problem:
        error = str(problem)
    if rank == 0:
        if whole is not None:
            whole = whole.merge_and_unload() if hasattr(whole, "merge_and_unload") else whole
            save(whole, trainer.processing_class, to / "model")
        history = trainer.state.log_history
        losses = [entry["loss"] for entry in history if "loss" in entry]
        points = [entry for entry in history if is_point(entry)]
        found = {"losses": losses, "norms": norms, "gradients": gradients, "error": error}
        found |= {"points": points}
        torch.save(found, to / "found.pt")


def _validation(case: Case, folder: Path) -> Validation | None:
    if case.split is None or case.words is None:
        return None
    made = Validation.of(case.config, case.split, case.words, folder)
    if case.resume is not None:
        made.best.go_on(case.resume)
    return made


def _watch(trainer: Any, norms: list[float], gradients: list[dict[str, Tensor]]) -> None:
    """Keep what a step is made of before it is clipped."""
    clip = trainer._clip_grad_norm

    def clipped(model: Any) -> Any:
        named = trainer.model.named_parameters()
        found = {name: each.grad for name, each in named if each.grad is not None}
        gradients.append({name: _full(grad).detach().clone() for name, grad in found.items()})
        norm = clip(model)
        norms.append(float(norm))
        return norm

    trainer._clip_grad_norm = clipped


def _full(gradient: Tensor) -> Tensor:
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
