"""A LoRA step of ours against TRL's DPO step at 7 B; a part of `benchmarks/on_gpu.py`.

A step is what a trainer does between two collated batches: passes, clipping, AdamW. TRL's has its
reference forward in it; ours reads the reference from its cache, which costs a forward for each row
once. Both trainers are built on the same base, one after the other, and by turns: adapters are put
on, steps are measured, and the adapters are taken off again, so that the weights are in memory
once. MFU: operations of the matrix products and of attention in a step, as torch counts them, over
its time and over what the GPU can do in bfloat16 without sparsity (from its data sheet; where that
is not known, a product of two large matrices, measured here).
"""

import argparse
import dataclasses
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.utils.flop_counter import FlopCounterMode
from trl import DPOTrainer

from adapt.attention.layout import layout_of
from adapt.models.prompts import end_tokens, prompt_inputs
from adapt.models.roles import linear_layers
from adapt.preference.collate import GuidedCollator
from adapt.preference.reference import ReferenceCache
from adapt.preference.trainer import AdaptTrainer, Weights
from benchmarks import shapes
from benchmarks.sides import Clock, GrowingTable, spread

RANK = 64
TURNS, STEPS = 3, 4  # steps of each turn that are measured
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}  # FLOP/s, dense bfloat16
SIDES = {
    "trl": None,
    "ours, dpo": Weights(vag=0, dpo=1, sft=0, attn=0),
    "ours, dpo + sft": Weights(vag=0, dpo=1, sft=1, attn=0),
    "ours, all": Weights(vag=1, dpo=1, sft=1, attn=0.1),
}


def _product(_: Any, a: tuple[int, int], b: tuple[int, int], *others: Any, **named: Any) -> int:
    """Operations of `addmm`; torch's own count fails on the form that names a dtype."""
    return 2 * a[0] * a[1] * b[1]


COUNTED = {torch.ops.aten.addmm: _product}


@dataclasses.dataclass(frozen=True)
class Size:
    """Pairs of a step, and words of the longest answer."""

    pairs: int
    words: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds of each step; of one step its operations, its real tokens and its peak of bytes."""

    seconds: list[float]
    flop: int
    tokens: int
    peak: int

    @property
    def median(self) -> float:
        """Seconds of the middle step."""
        return statistics.median(self.seconds)


def step(case: shapes.Published, model: Any, processor: Any, options: argparse.Namespace) -> None:
    """A row for each side and turn; the first turn is whole, the others as far as time allows."""
    size, peak = Size(pairs=2, words=8 if options.tiny else 150), peak_flops(options)
    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(case, model, processor, size, Path(folder), options)
        about = (
            f"{options.dtype}, rank {RANK} on all linear layers of the decoder, no gradient"
            f" checkpointing, {size.pairs} pairs, {sides.image_tokens} image tokens, answers of"
            f" {size.words // 2} to {size.words} words. Median (quartiles) of {STEPS} steps. The"
            f" GPU's peak: {peak / 1e12:.3g} TFLOP/s."
        )
        table = GrowingTable("on_gpu", f"{case.name}: a LoRA step", about, options)
        for turn in range(TURNS):
            trl = None
            for side in SIDES:
                if turn == 0 or time.monotonic() < options.end:
                    one = sides.measure(side)
                    trl = trl or one
                    table.row(turn=str(turn + 1), side=side, **_cells(one, trl, peak))
    table.close()


def _cells(one: Measured, trl: Measured, peak: float) -> dict[str, str]:
    return {
        "ms": spread([1000 * value for value in one.seconds], 0),
        "time_by_trl": f"{one.median / trl.median:.2f}",
        "tokens_per_s": f"{one.tokens / one.median:.0f}",
        "TFLOP": f"{one.flop / 1e12:.3g}",
        "MFU": f"{100 * one.flop / one.median / peak:.1f} %",
        "peak_GiB": f"{one.peak / 2**30:.1f}",
        "peak_by_trl": f"{one.peak / trl.peak:.2f}" if trl.peak else "",
    }


def peak_flops(options: argparse.Namespace) -> float:
    """What the device can do in a second."""
    is_cuda, clock = options.device.startswith("cuda"), Clock(options.device)
    name = torch.cuda.get_device_name() if is_cuda else ""
    for known, flops in PEAKS.items():
        if known in name:
            return flops
    side = 8192 if is_cuda else 512
    a = torch.randn(side, side, device=options.device, dtype=getattr(torch, options.dtype))
    return 2 * side**3 / min(clock.seconds(lambda: a @ a) for _ in range(10))


class Sides:
    """The base model and its pairs; `folder` is for what trainers write."""

    def __init__(
        self,
        case: shapes.Published,
        model: Any,
        processor: Any,
        size: Size,
        folder: Path,
        options: argparse.Namespace,
    ) -> None:
        self.model, self.processor, self.folder, self.options = model, processor, folder, options
        self.clock = Clock(options.device)
        picture, tiny = case.pictures(1, options.tiny), options.tiny
        inputs = prompt_inputs(model, processor, [picture], shapes.WORDS[:1])
        self.image_tokens = int(layout_of(model, inputs).counts_B[0])
        self.rows = shapes.pair_rows(case, size.pairs, size.words, self.image_tokens, tiny)
        self.trl_rows = shapes.trl_rows(case, self.rows, tiny)

    def measure(self, side: str) -> Measured:
        """A turn: a step that makes the optimiser's state, one that is counted, then `STEPS`."""
        weights = SIDES[side]
        trainer = self._trl() if weights is None else self._ours(weights)
        trainer.create_optimizer()
        # As `train` does: accelerate puts the forward under autocast, and nothing else does.
        trainer.model = trainer.accelerator.prepare_model(trainer.model)
        trainer.current_gradient_accumulation_steps = 1
        batch = trainer._prepare_inputs(trainer.data_collator([*trainer.train_dataset]))
        tokens, run = int(batch["attention_mask"].sum()), self._step(trainer, batch)
        run()
        with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
            run()
        self.clock.reset_peak()
        seconds = [self.clock.seconds(run) for _ in range(STEPS)]
        measured = Measured(seconds, counter.get_total_flops(), tokens, self.clock.peak())
        self._take_off(trainer)
        return measured

    def _step(self, trainer: Any, batch: dict[str, Any]) -> Callable[[], None]:
        def run() -> None:
            trainer.training_step(trainer.model, batch)
            trainer._clip_grad_norm(trainer.model)
            trainer.optimizer.step()
            trainer.model.zero_grad()

        return run

    # ---- trainers --------------------------------------------------------------------------------

    def _trl(self) -> Any:
        return DPOTrainer(**self._common(self.trl_rows))

    def _ours(self, weights: Weights) -> Any:
        ends = end_tokens(self.model, self.processor)
        collator = GuidedCollator(
            processor=self.processor, ends=ends, noise=0.3, guide=weights.vag > 0
        )
        return AdaptTrainer(
            **self._common(self.rows),
            data_collator=collator,
            weights=weights,
            anchor_tokens=5,
            attn_layers="all",
            cache=ReferenceCache(uri=str(self.folder / "reference"), base="random"),
        )

    def _common(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        plain = {"beta": 0.1, "activation_checkpointing": False}
        folder, device = self.folder / "trainer", self.options.device
        arguments = shapes.trl_arguments(folder, len(rows), device, **plain)
        targets = linear_layers(self.model, "decoder")
        return {
            "model": self.model,
            "args": arguments,
            "train_dataset": Dataset.from_list(rows),
            "processing_class": self.processor,
            "peft_config": LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets),
        }

    def _take_off(self, trainer: Any) -> None:
        """The base as it was before: no adapters, and no fused head of TRL's around its forward."""
        self.model = trainer.accelerator.unwrap_model(trainer.model).unload()
        vars(self.model).pop("forward", None)
        trainer.accelerator.free_memory()
        trainer.optimizer = trainer.model = trainer.model_wrapped = None
        gc.collect()
        if self.options.device.startswith("cuda"):
            torch.cuda.empty_cache()
