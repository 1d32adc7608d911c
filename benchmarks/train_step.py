"""One optimisation step of ours, each term on and off, against TRL's `DPOTrainer` on the same
model, batch and device.

    python -m benchmarks.train_step [--sizes default medium llava llava-lora] [--repeats 7]
    [--gradient-checkpointing]

A step is what the trainer does between two collated batches: forward and backward passes, clipping,
AdamW. TRL's has its reference forward in it; ours reads the reference from the cache, which costs a
forward per row once, before training. Random weights, random pictures, random answers.

Time: all sides by turns in one process; ours share one model. Memory: a fresh process per side, the
highest resident set of a step above what the process held before a model was built: weights,
reference, optimiser, activations. On CUDA `max_memory_allocated`.
"""

import argparse
import dataclasses
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from trl import DPOTrainer

from adapt.attention.support import SIDE
from adapt.data.pictures import open_picture
from adapt.models.load import load_model, save
from adapt.models.prompts import end_tokens
from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer
from adapt.preference.adapters import lora
from adapt.preference.collate import GuidedCollator
from adapt.preference.dataset import FEATURES
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import LoraConfig
from adapt.preference.trainer import AdaptTrainer, Weights
from benchmarks.shapes import shape, trl_arguments
from benchmarks.sides import IN_USE, arguments, by_turns, progress, ratios, spread, write


@dataclasses.dataclass(frozen=True)
class Size:
    """A model, pairs in a batch, words of the longest answer, rank of LoRA (0: full training)."""

    shape: Shape
    pairs: int
    longest: int
    rank: int = 0

    @property
    def edge(self) -> int:
        """Rows and columns of the grid of image tokens."""
        return self.shape.image_size // self.shape.patch_size


LLAVA = shape(512, vision=4, text=8, heads=8, patch=8, image=192)  # 576 image tokens
SIZES = {
    "default": Size(shape(96, vision=2, text=3, heads=4, patch=8, image=48), 24, 28),
    "medium": Size(shape(384, vision=2, text=6, heads=6, patch=8, image=128), 2, 64),
    "llava": Size(LLAVA, 2, 64),
    "llava-lora": Size(LLAVA, 2, 64, rank=16),
    "gpu": Size(shape(2048, vision=12, text=16, heads=16, patch=14, image=336), 8, 150),
}
# Weights of vag, dpo, sft, attn, and the layers that are supervised.
SIDES: dict[str, tuple[float, float, float, float, int]] = {
    "dpo": (0, 1, 0, 0, 0),
    "dpo + attn 4": (0, 1, 0, 0.1, 4),
    "vag": (1, 0, 0, 0, 0),
    "vag + sft": (1, 0, 1, 0, 0),
    "vag + sft + attn 4": (1, 0, 1, 0.1, 4),
    "vag + dpo": (1, 1, 0, 0, 0),
    "all, attn 4": (1, 1, 1, 0.1, 4),
}
WORDS = [f"word{i}" for i in range(1000)]


def rows(size: str) -> list[dict[str, Any]]:
    """Pairs as the trainer takes them: random pictures; answers of half the length to the whole of
    it.
    """
    one, chance, pixels = SIZES[size], random.Random(0), np.random.default_rng(0)
    picture = (one.shape.image_size, one.shape.image_size, 3)
    lengths = (one.longest // 2, one.longest)

    def words(length: int) -> str:
        return " ".join(chance.choices(WORDS, k=length))

    return [
        {
            "id": str(i),
            "images": [_png(pixels.integers(0, 256, picture, dtype=np.uint8))],
            "question": words(6),
            "chosen": words(chance.randint(*lengths)),
            "rejected": words(chance.randint(*lengths)),
            "anchor": [chance.random() for _ in range(one.edge**2)],
            "support": [pixels.integers(0, 256, SIDE**2, dtype=np.uint8).tobytes()],
        }
        for i in range(one.pairs)
    ]


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def turns(row: dict[str, Any]) -> dict[str, Any]:
    """A pair as TRL takes it."""
    said = {"prompt": ("user", "question"), "chosen": ("assistant", "chosen")}
    said |= {"rejected": ("assistant", "rejected")}
    texts = {key: [{"role": role, "content": row[name]}] for key, (role, name) in said.items()}
    return {"images": [open_picture(content) for content in row["images"]], **texts}


def trainer_of(side: str, size: str, folder: Path, options: argparse.Namespace) -> Any:
    """TRL's trainer, or ours with the terms of `side`, on a model that is the same for all."""
    one, base = SIZES[size], folder / size
    processor = build_processor(build_tokenizer(WORDS), one.shape)
    if not base.exists():
        save(build_model(processor.tokenizer, one.shape, seed=0), processor, base)
    args = trl_arguments(
        folder / "out",
        one.pairs,
        options.device,
        beta=0.5,
        activation_checkpointing=options.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
    )
    model = load_model(base)
    model.requires_grad_(True).model.vision_tower.requires_grad_(False)
    pairs = rows(size)
    common = dict(
        model=model,
        args=args,
        processing_class=processor,
        peft_config=lora(model, adapted(one.rank), "frozen") if one.rank else None,
    )
    if side == "trl":
        return _ready(DPOTrainer(**common, train_dataset=Dataset.from_list([*map(turns, pairs)])))
    ends = end_tokens(model, processor)
    ours = AdaptTrainer(
        **common,
        train_dataset=Dataset.from_list(pairs, features=FEATURES),
        data_collator=GuidedCollator(processor=processor, ends=ends, noise=0.3),
        anchor_tokens=5,
        weights=Weights(vag=1, dpo=1, sft=1, attn=1),
        attn_layers="all",
        cache=ReferenceCache(uri=str(folder / "reference"), base=size),
    )
    return _ready(ours)


def adapted(rank: int) -> LoraConfig:
    """Adapters on the attention projections, which `llava-lora` was first measured with."""
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    return LoraConfig(rank=rank, alpha=0.0, dropout=0.0, targets=targets, bits=16)


def _ready(trainer: Any) -> Any:
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def terms(trainer: Any, side: str) -> None:
    """Switch our trainer to the terms of `side`."""
    vag, dpo, sft, attn, layers = SIDES[side]
    trainer.weights = Weights(vag=vag, dpo=dpo, sft=sft, attn=attn)
    count = trainer.model.config.text_config.num_hidden_layers
    trainer.attn_layers = tuple(range(max(count - layers, 0), count))


def step(trainer: Any, side: str, options: argparse.Namespace) -> Callable[[], float]:
    """One step of a side on the batch of all rows; returns its seconds."""
    batch = trainer._prepare_inputs(trainer.data_collator([*trainer.train_dataset]))

    def run() -> float:
        if side != "trl":
            terms(trainer, side)
        _synchronise(options)
        start = time.perf_counter()
        trainer.training_step(trainer.model, batch)
        trainer._clip_grad_norm(trainer.model)
        trainer.optimizer.step()
        trainer.model.zero_grad()
        _synchronise(options)
        return time.perf_counter() - start

    return run


def _synchronise(options: argparse.Namespace) -> None:
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()


def tokens_of(trainer: Any) -> int:
    """Real tokens of a batch of pairs, as TRL counts them: those of the chosen and of the rejected
    half.
    """
    return int(trainer.data_collator([*trainer.train_dataset])["attention_mask"].sum())


def peak_mib(side: str, size: str, options: argparse.Namespace) -> float:
    """Peak memory of a side in MiB, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--alone", side, "--sizes", size]
    command += ["--device", options.device, "--threads", str(options.threads)]
    command += ["--gradient-checkpointing"] if options.gradient_checkpointing else []
    root, env = Path(__file__).parents[1], os.environ | IN_USE
    text = subprocess.check_output(command, text=True, cwd=root, env=env)
    return float(json.loads(text.splitlines()[-1])["mib"])


def alone(options: argparse.Namespace) -> None:
    """The child of `peak_mib`: a step that makes the optimiser's state, then one to measure."""
    is_cuda, size = options.device.startswith("cuda"), options.sizes[0]
    with tempfile.TemporaryDirectory() as folder:
        # Imports and libraries are not what is compared.
        trainer_of("trl", "default", Path(folder), options)
        before = 0 if is_cuda else _resident("VmRSS")
        trainer = trainer_of(options.alone, size, Path(folder), options)
        run = step(trainer, options.alone, options)
        run()
        if is_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            # The high-water mark starts again: proc(5).
            Path("/proc/self/clear_refs").write_text("5")
        run()
    peak = torch.cuda.max_memory_allocated() if is_cuda else _resident("VmHWM") - before
    print(json.dumps({"mib": peak / 2**20}))


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def table(size: str, folder: Path, options: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of one size."""
    trl = trainer_of("trl", size, folder, options)
    start = time.perf_counter()
    ours = trainer_of("dpo", size, folder, options)
    progress(f"{size}: our trainer with both references in {time.perf_counter() - start:.1f} s")
    sides = {"trl": step(trl, "trl", options)} | {side: step(ours, side, options) for side in SIDES}
    weights, tokens = sum(p.numel() for p in trl.model.parameters()) / 1e6, tokens_of(trl)
    seconds = by_turns(sides, options.repeats, size, warm_up=2)
    lines: list[dict[str, str]] = []
    base = 0.0
    for side in sides:
        mib = 0.0 if options.no_memory else peak_mib(side, size, options)
        base = base or mib
        lines.append(
            {
                "size": f"{size} ({weights:.1f} M)",
                "side": side,
                "ms": spread([1000 * s for s in seconds[side]], 0),
                "time / trl": spread(ratios(seconds, side, "trl"), 2),
                "tokens/s": f"{tokens / statistics.median(seconds[side]):.0f}",
                "peak MiB": f"{mib:.0f}" if mib else "",
                "peak / trl": f"{mib / base:.2f}" if mib else "",
            }
        )
    return lines


def about(size: str) -> str:
    """A line about a size."""
    one = SIZES[size]
    training = f"LoRA of rank {one.rank}" if one.rank else "full training"
    return (
        f"{size}: {one.pairs} pairs, {one.edge**2} image tokens, width {one.shape.width},"
        f" {one.shape.text_layers} layers, answers of {one.longest // 2} to {one.longest} words,"
        f" {training}."
    )


def main() -> None:
    """Measure, print and write; `--alone` is the child."""
    parser = arguments(__doc__.splitlines()[0], list(SIZES), ["default", "medium"], repeats=7)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--no-memory", action="store_true", help="time alone")
    parser.add_argument("--alone", choices=["trl", *SIDES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        alone(options)
        return
    lines: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            lines += table(size, Path(folder), options)
    checkpointing = ", gradient checkpointing" if options.gradient_checkpointing else ""
    precision = "bf16" if options.device.startswith("cuda") else "fp32"
    notes = [
        *map(about, options.sizes),
        f"{precision}, vision tower frozen{checkpointing}."
        f" Median (quartiles) of {options.repeats} turns.",
    ]
    write("train_step", "A training step against TRL's DPO", notes, lines, options)


if __name__ == "__main__":
    main()
