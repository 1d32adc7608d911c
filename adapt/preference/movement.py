"""Whether training has changed the weights, and whether storing them keeps what it changed.

Weights that are too coarse for their learning rate stay where they were while every curve looks
alive. So after training each trained tensor is compared with the base's, which is read from its
file, one tensor at a time: the share of weights that moved, and of those the share that still
differs after rounding to what they will be stored in.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.core_model_loading import revert_weight_conversion

from adapt.models.roles import Role
from adapt.names import one_line
from adapt.preference.precision import NAMES
from adapt.preference.shards import local

ENOUGH = 0.5  # share of the weights that should have moved, and of those that should stay moved
SAMPLE = 256  # weights of a tensor that are looked at during training
# After so many optimiser steps, of which the first has rate 0, this share should have moved. The
# first of an adapter's two matrices moves later; of weights that are held in 16 bits 1 in 200 does.
EARLY, EARLY_ENOUGH = 2, 0.1


@dataclasses.dataclass
class Movement:
    """Numbers of trained weights: all, those that moved, those that rounding leaves moved."""

    weights: int = 0
    moved: int = 0
    kept: int = 0
    is_finite: bool = True  # after rounding

    @property
    def share(self) -> float:
        """Of the weights, those that moved."""
        return self.moved / max(self.weights, 1)

    @property
    def kept_share(self) -> float:
        """Of the weights that moved, those that rounding leaves moved."""
        return self.kept / max(self.moved, 1)

    def add(self, tuned: Tensor, base: Tensor, dtype: torch.dtype) -> None:
        """Count one tensor; `dtype` is what it will be stored in."""
        tuned, base = tuned.detach().float().cpu(), base.float()
        is_moved, rounded = tuned != base, tuned.to(dtype).float()
        self.weights += tuned.numel()
        self.moved += int(is_moved.sum())
        self.kept += int((is_moved & (rounded != base)).sum())
        self.is_finite &= bool(rounded.isfinite().all())


def measure(
    model: nn.Module, base: Path, trained: Mapping[str, Role], dtype: torch.dtype
) -> dict[str, Movement]:
    """The movement of every role with trained weights, and under "" that of all of them.

    `model` is the tuned one as it will be saved, in float32, `base` the folder that it was loaded
    from, `trained` the parameters to compare. Names that the file does not have are left out.
    """
    roles = {
        parameter.untyped_storage().data_ptr(): trained[name]
        for name, parameter in model.named_parameters()
        if name in trained
    }
    # 1. A checkpoint may hold older names than the model; saving goes back to them.
    stored = revert_weight_conversion(model, model.state_dict())
    # 2. Tied weights have two names and one storage, and one name in the file.
    found: dict[str, Movement] = {"": Movement()}
    for name, reference in _tensors(base):
        tuned = stored.get(name)
        role = None if tuned is None else roles.get(tuned.untyped_storage().data_ptr())
        if role is not None and tuned.shape == reference.shape:
            for key in ("", role):
                found.setdefault(key, Movement()).add(tuned, reference, dtype)
    return found


def stored_dtype(all_: Movement, asked: torch.dtype, is_free: bool) -> torch.dtype:
    """What to store the result in, with a line where that is not what was asked for or hurts.

    Args:
        all_: the movement of all trained weights, measured with `asked`.
        asked: what the base is stored in, or what the user named.
        is_free: nothing was named, so that float32 may be chosen.
    """
    if not all_.is_finite:
        print(
            one_line(f"train: {NAMES[asked]} cannot hold these weights; saving fp32"),
            file=sys.stderr,
        )
        return torch.float32
    if asked == torch.float32 or all_.moved == 0 or all_.kept_share >= ENOUGH:
        return asked
    share = f"{100 * all_.kept_share:.1f} % of the weights that moved"
    fact = f"rounding to {NAMES[asked]} would keep {share}"
    action = "saving fp32" if is_free else "save_dtype: fp32 keeps all"
    print(one_line(f"train: {fact}; {action}"), file=sys.stderr)
    return torch.float32 if is_free else asked


def metrics(found: Mapping[str, Movement]) -> dict[str, float]:
    """The shares of moved weights, in all and of each role."""
    return {f"moved/{role}" if role else "moved": one.share for role, one in found.items()}


def warn_if_still(found: Mapping[str, Movement]) -> None:
    """A line where under half of the trained weights moved at all."""
    share = found[""].share
    if share < ENOUGH:
        fact = f"only {100 * share:.1f} % of the trained weights moved"
        print(one_line(f"train: {fact}; train longer or raise the learning rate"), file=sys.stderr)


class StillWeights(TrainerCallback):
    """Says at once that the first optimiser steps changed hardly a weight, by samples of all."""

    def __init__(self) -> None:
        self._before: list[Tensor] = []
        self._steps = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep a sample of every trained tensor."""
        self._before = list(_samples(kwargs["model"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compare once."""
        self._steps += 1
        if self._steps != EARLY:
            return
        pairs = zip(self._before, _samples(kwargs["model"]), strict=True)
        share = float(torch.cat([before != now for before, now in pairs]).float().mean())
        self._before = []
        if share < EARLY_ENOUGH and state.is_world_process_zero:
            fact = f"after {state.global_step} steps {100 * share:.1f} % of the weights have moved"
            print(one_line(f"train: {fact}; raise train.learning_rate"), file=sys.stderr)


def _samples(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        if parameter.requires_grad:
            flat = local(parameter).flatten()  # of a divided one this process's share
            yield flat[:: max(1, len(flat) // SAMPLE)].cpu().clone()


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    with ExitStack() as stack:
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            yield from ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
