"""What `adapt.inspect` says that decoding and training take, against measured peaks.

    python -m benchmarks.memory [--sizes small] [--cases decoding full lora]

Random weights and pictures, answers of full length. Each case works as its stage does: `answer` for
a batch, `build_trainer` and one step of it. A fresh process per case does this once with a tiny
model, so that libraries are loaded, and then with the model of the case: the peak is the highest
resident set above what the process held before the model was there; on CUDA, of the memory that
torch has allocated.
"""

import argparse
import dataclasses
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from adapt import params
from adapt.attention.layout import layout_of
from adapt.attention.support import SIDE
from adapt.generation.answer import Decoding, answer
from adapt.inspect import memory, training
from adapt.inspect.estimate import Subject
from adapt.inspect.lines import size as shown
from adapt.inspect.machine import machine
from adapt.inspect.sizes import Sizes, sizes_of
from adapt.inspect.train_plan import pass_of
from adapt.models.device import generation_dtype
from adapt.models.load import save
from adapt.models.prompts import prompt_inputs, prompt_version
from adapt.models.tiny import build_model, build_processor, build_tokenizer
from adapt.pairs.table import Origin, Pair, PairView, write_pairs
from adapt.preference.build import build_trainer
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import Config
from benchmarks.shapes import shape
from benchmarks.sides import IN_USE, arguments, progress, write

WORDS = [f"word{i}" for i in range(8000)]
QUESTION = " ".join(WORDS[:6])
ANSWER, ANCHOR_TOKENS = 64, 5
ROWS, PAIRS = 16, 2  # answers at once; pairs in a pass


SIZES = {
    "tiny": shape(64, vision=1, text=2, heads=2, patch=8, image=64),
    "small": shape(512, vision=4, text=8, heads=8, patch=8, image=192),  # 576 image tokens
    "medium": shape(512, vision=4, text=8, heads=8, patch=16, image=192),  # 144
}
LORA = {"lora": {"rank": 16, "alpha": 0.0, "dropout": 0.0, "targets": "all", "bits": 16}}
# What of params.yaml's section `train` each case changes.
CASES: dict[str, dict[str, Any]] = {
    "decoding": {},
    "full": {},
    "full, no guided pass": {"w_vag": 0.0},
    "full, checkpointing": {"gradient_checkpointing": True},
    "full, tower": {"tower": "full"},
    "full, bf16": {"precision": "bf16"},
    "lora": LORA,
    "lora, bf16": LORA | {"precision": "bf16"},
}


def built(size: str) -> tuple[Any, Any]:
    """Model and processor; the model never ends an answer before its full length."""
    processor = build_processor(build_tokenizer(WORDS), SIZES[size])
    model = build_model(processor.tokenizer, SIZES[size], seed=0).eval()
    model.generation_config.suppress_tokens = processor.tokenizer.all_special_ids
    return model, processor


def picture(size: str) -> Image.Image:
    """A picture of noise."""
    side = SIZES[size].image_size
    return Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side))


def sizes(model: Any, processor: Any, size: str) -> Sizes:
    """What the report works with."""
    inputs = prompt_inputs(model, processor, [[picture(size)]], [QUESTION])
    return sizes_of(model, inputs, layout_of(model, inputs).columns_BN.shape[1])


# ---- the work ----------------------------------------------------------------------------------


def work(case: str, size: str, folder: Path, device: str) -> dict[str, int]:
    """Do what a stage does; returns what was expected of it."""
    return decode(size, device) if case == "decoding" else train(case, size, folder, device)


def decode(size: str, device: str) -> dict[str, int]:
    """A batch of answers."""
    model, processor = built(size)
    model = model.to(device, generation_dtype(device))
    images, questions = [[picture(size)]] * ROWS, [QUESTION] * ROWS
    decoding = Decoding(anchor_tokens=ANCHOR_TOKENS, max_new_tokens=ANSWER, similarity=True)
    answers = answer(model, processor, images, questions, decoding)
    assert answers.tokens_BT.shape == (ROWS, ANSWER), "answers of full length"
    plan = memory.Decoding(
        rows=ROWS,
        answer=ANSWER,
        anchor_tokens=ANCHOR_TOKENS,
        each=model.dtype.itemsize,
        is_sampled=False,
    )
    return memory.decoding(sizes(model, processor, size), plan)


def train(case: str, size: str, folder: Path, device: str) -> dict[str, int]:
    """Two steps, so that the optimizer's state is there in the second."""
    config, base, pairs = settings(case, device), folder / size, folder / f"{size}.parquet"
    cache = ReferenceCache(uri=str(folder / "reference"), base=size)
    trainer, _ = build_trainer(config, torch.device(device), base, pairs, cache, folder / "out")
    trainer.train()
    model, processor = built(size)
    subject = Subject(
        model=model,
        sizes=sizes(model, processor, size),
        stored=torch.float32,
        shares=lambda length: True,
    )
    plan = pass_of(subject, config, ANSWER, machine(torch.device(device)))
    return training.step(subject.sizes, plan)


def settings(case: str, device: str) -> Config:
    """The section `train` of params.yaml with what the case changes, for two steps of one pass."""
    content = params.read(Path(__file__).parents[1] / "params.yaml")
    one = {"workers": 0, "batch_pairs": PAIRS, "accumulation": 1, "steps": 2, "precision": "fp32"}
    one |= {"w_keep": 0.0}  # its pass is smaller than the others, and has rows of its own
    content["train"] = {**content["train"], **one, "checkpoint_every": 100, **CASES[case]}
    return params.load(content | {"device": device}, "train", Config)


def prepare(size: str, folder: Path) -> None:
    """A base model and pairs in files, as the stages leave them."""
    model, processor = built(size)
    save(model, processor, folder / size)
    side = SIZES[size].image_size // SIZES[size].patch_size
    chance, file = random.Random(0), io.BytesIO()
    picture(size).save(file, "PNG")
    pairs = [
        Pair(
            id=str(i),
            kind="describe",
            images=(file.getvalue(),),
            question=QUESTION,
            chosen=" ".join(chance.choices(WORDS, k=ANSWER - 1)),  # and the end token
            rejected=" ".join(chance.choices(WORDS, k=ANSWER - 1)),
            chosen_score=1.0,
            rejected_score=0.0,
            anchor=tuple(chance.random() for _ in range(side * side)),
            views=(PairView(image=0, kind="whole", rows=side, columns=side),),
            support=(chance.randbytes(SIDE * SIDE),),
        )
        for i in range(2 * PAIRS)
    ]
    origin = Origin(prompt=prompt_version(processor), model_type=model.config.model_type)
    write_pairs(folder / f"{size}.parquet", pairs, origin)


# ---- measured ----------------------------------------------------------------------------------


def alone(options: argparse.Namespace) -> None:
    """The child of `measured`: prints the parts that were expected and the peak, in bytes."""
    case, size, device = options.alone, options.sizes[0], options.device
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in ("tiny", size):
            prepare(one, folder)
        work(case, "tiny", folder, device)
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            parts = work(case, size, folder, device)
            peak = torch.cuda.max_memory_allocated() - before
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark: proc(5)
            before = _resident("VmRSS")
            parts = work(case, size, folder, device)
            peak = _resident("VmHWM") - before
    print(json.dumps({"parts": parts, "peak": peak}))


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measured(case: str, size: str, options: argparse.Namespace) -> dict[str, str]:
    """A row of the table, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--alone", case, "--sizes", size]
    command += ["--threads", str(options.threads), "--device", options.device]
    root, environment = Path(__file__).parents[1], os.environ | IN_USE
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    )
    found = json.loads(done.stdout.splitlines()[-1])
    parts, peak = found["parts"], found["peak"]
    expected = memory.total(parts)
    progress(f"{case}, {size}: {shown(expected)} expected, {shown(peak)} measured")
    return {
        "model": size,
        "case": case,
        "expected": shown(expected),
        "measured": shown(peak),
        "ratio": f"{expected / peak:.2f}",
        "expected of": ", ".join(f"{name} {shown(n)}" for name, n in parts.items() if n),
    }


def main() -> None:
    """Measure, print and write; `--alone` is the child."""
    parser = arguments(__doc__.splitlines()[0], list(SIZES), ["medium", "small"], repeats=1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--alone", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        alone(options)
        return
    notes = [
        f"Decoding: {ROWS} answers of {ANSWER} tokens at once. Training: {PAIRS} pairs a pass,"
        f" answers of {ANSWER} tokens, all terms of the loss, plain and guided pass. Models:",
        *(f"{size}: {dataclasses.asdict(SIZES[size])}." for size in options.sizes),
    ]
    rows = []
    for size in options.sizes:
        for case in options.cases:
            rows.append(measured(case, size, options))
            # After every case, so that a long run that is stopped keeps what it has.
            write("memory", "Memory: expected and measured", notes, rows, options)


if __name__ == "__main__":
    main()
