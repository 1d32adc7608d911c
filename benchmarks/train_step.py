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

import torch

from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer
from adapt.preference.trainer import Weights
from benchmarks.sides import IN_USE, arguments, by_turns, progress, ratios, spread, write

# Model, pairs in a batch, tokens of the longest answer, rank of LoRA (0: full training).
LLAVA = Shape(
    width=512, vision_layers=4, text_layers=8, heads=8, patch_size=8, image_size=192
)  # 576 image tokens
SIZES = {
    "default": (
        Shape(width=96, vision_layers=2, text_layers=3, heads=4, patch_size=8, image_size=48),
        24,
        28,
        0,
    ),
    "medium": (
        Shape(width=384, vision_layers=2, text_layers=6, heads=6, patch_size=8, image_size=128),
        2,
        64,
        0,
    ),
    "llava": (LLAVA, 2, 64, 0),
    "llava-lora": (LLAVA, 2, 64, 16),
    "gpu": (
        Shape(
            width=2048, vision_layers=12, text_layers=16, heads=16, patch_size=14, image_size=336
        ),
        8,
        150,
        0,
    ),
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
    import numpy as np
    from PIL import Image

    shape, pairs, longest, _ = SIZES[size]
    chance, pixels, edge = random.Random(0), np.random.default_rng(0), shape.image_size
    grid = edge // shape.patch_size

    def turn(role: str, length: int) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(chance.choices(WORDS, k=length))}]

    return [
        {
            "id": str(i),
            "image": Image.fromarray(pixels.integers(0, 256, (edge, edge, 3), dtype=np.uint8)),
            "prompt": turn("user", 6),
            "chosen": turn("assistant", chance.randint(longest // 2, longest)),
            "rejected": turn("assistant", chance.randint(longest // 2, longest)),
            "anchor": [chance.random() for _ in range(grid * grid)],
            "grid": [grid, grid],
        }
        for i in range(pairs)
    ]


def trainer_of(side: str, size: str, folder: Path, options: argparse.Namespace) -> Any:
    """TRL's trainer, or ours with the terms of `side`, on a model that is the same for all."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from adapt.models.load import load_model, save
    from adapt.preference.build import lora
    from adapt.preference.collate import GuidedCollator
    from adapt.preference.reference import ReferenceCache
    from adapt.preference.trainer import AdaptTrainer

    shape, pairs, _, rank = SIZES[size]
    processor, base = build_processor(build_tokenizer(WORDS), shape), folder / size
    if not base.exists():
        save(build_model(processor.tokenizer, shape, seed=0), processor, base)
    cuda = options.device.startswith("cuda")
    args = DPOConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=pairs,
        beta=0.5,
        report_to=[],
        use_cpu=not cuda,
        bf16=cuda,
        max_length=None,
        remove_unused_columns=False,
        max_steps=10,
        disable_tqdm=True,
        activation_checkpointing=options.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
    )
    model = load_model(base)
    model.requires_grad_(True).model.vision_tower.requires_grad_(False)
    common = dict(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows(size)),
        processing_class=processor,
        peft_config=lora(rank) if rank else None,
    )
    if side == "trl":
        return _ready(DPOTrainer(**common))
    ours = AdaptTrainer(
        **common,
        data_collator=GuidedCollator(processor=processor, noise=0.3),
        anchor_tokens=5,
        weights=Weights(vag=1, dpo=1, sft=1, attn=1),
        attn_layers="all",
        reference=ReferenceCache(uri=str(folder / "reference"), base=size),
    )
    return _ready(ours)


def _ready(trainer: Any) -> Any:
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def terms(trainer: Any, side: str) -> None:
    """Switch our trainer to the terms of `side`."""
    vag, dpo, sft, attn, layers = SIDES[side]
    trainer.weights = Weights(vag=vag, dpo=dpo, sft=sft, attn=attn)
    trainer.attn_layers = (
        tuple(range(trainer.model.config.text_config.num_hidden_layers))[-layers:] if layers else ()
    )


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
    command = [
        sys.executable,
        "-m",
        "benchmarks.train_step",
        "--alone",
        side,
        "--sizes",
        size,
        "--device",
        options.device,
        "--threads",
        str(options.threads),
    ]
    command += ["--gradient-checkpointing"] if options.gradient_checkpointing else []
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | IN_USE,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["mib"])


def alone(options: argparse.Namespace) -> None:
    """The child of `peak_mib`: a step that makes the optimiser's state, then one that is looked at."""
    is_cuda, size = options.device.startswith("cuda"), options.sizes[0]
    with tempfile.TemporaryDirectory() as folder:
        trainer_of(
            "trl", "default", Path(folder), options
        )  # imports and libraries are not what is compared
        before = 0 if is_cuda else _resident("VmRSS")
        trainer = trainer_of(options.alone, size, Path(folder), options)
        run = step(trainer, options.alone, options)
        run()
        if is_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text(
                "5"
            )  # the high-water mark starts again: proc(5)
        run()
    peak = torch.cuda.max_memory_allocated() if is_cuda else _resident("VmHWM") - before
    print(json.dumps({"mib": peak / 2**20}))


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    )
    return int(line.split()[1]) * 1024


def measure(size: str, folder: Path, options: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of one size."""
    trl = trainer_of("trl", size, folder, options)
    start = time.perf_counter()
    ours = trainer_of("dpo", size, folder, options)
    progress(f"{size}: our trainer with both references in {time.perf_counter() - start:.1f} s")
    sides = {"trl": step(trl, "trl", options)} | {side: step(ours, side, options) for side in SIDES}
    weights, tokens = sum(p.numel() for p in trl.model.parameters()) / 1e6, tokens_of(trl)
    seconds = by_turns(sides, options.repeats, size, warm_up=2)
    found, base = [], 0.0
    for side in sides:
        mib = 0.0 if options.no_memory else peak_mib(side, size, options)
        base = base or mib
        found.append(
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
    return found


def about(size: str) -> str:
    """A line about a size."""
    shape, pairs, longest, rank = SIZES[size]
    return (
        f"{size}: {pairs} pairs, {(shape.image_size // shape.patch_size) ** 2} image tokens, width {shape.width},"
        f" {shape.text_layers} layers, answers of {longest // 2} to {longest} words,"
        f" {f'LoRA of rank {rank}' if rank else 'full training'}."
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
    found: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            found += measure(size, Path(folder), options)
    checkpointing = ", gradient checkpointing" if options.gradient_checkpointing else ""
    notes = [
        *map(about, options.sizes),
        f"{'bf16' if options.device.startswith('cuda') else 'fp32'}, vision tower frozen{checkpointing}."
        f" Median (quartiles) of {options.repeats} turns.",
    ]
    write("train_step", "A training step against TRL's DPO", notes, found, options)


if __name__ == "__main__":
    main()
