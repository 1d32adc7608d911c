"""What `adapt.inspect` says that decoding and training take, against measured peaks.

    python -m benchmarks.memory [--sizes small] [--cases decoding full lora]

Random weights and pictures, answers of full length. Each case works as its stage does: `answer` for
a batch, `build_trainer` and four steps of it. A fresh process for each case, or for each of its
workers, does this once with a tiny model, so that libraries are loaded, and then with the model of
the case: the peak is the highest resident set above what the process held before the model was
there; on CUDA, of the memory that torch has allocated. Of training, the peak until the trainer is
there (the model is read and the reference worked out) and that of the steps are told apart. Of
workers, whose gloo group is on loopback, the higher one counts.
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
import torch.distributed as dist
from PIL import Image
from torch import multiprocessing

from adapt import params
from adapt.attention.layout import layout_of
from adapt.attention.support import SIDE
from adapt.data.schema import Example
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
from adapt.pairs.plain import write_plain
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
STEPS = 4  # DDP makes its buckets anew after the first, and fills them in the second


SIZES = {
    "tiny": shape(64, vision=1, text=2, heads=2, patch=8, image=64),
    "small": shape(512, vision=4, text=8, heads=8, patch=8, image=192),  # 576 image tokens
    "medium": shape(512, vision=4, text=8, heads=8, patch=16, image=192),  # 144
    "large": shape(
        1024, vision=4, text=8, heads=8, patch=24, image=192
    ),  # 64 tokens, 126 M weights
}
LORA = {"lora": {"rank": 16, "alpha": 0.0, "dropout": 0.0, "targets": "all", "bits": 16}}
TWO = {"workers": 2}
DIVIDED = TWO | {"shard": "fsdp"}
BF16 = {"precision": "bf16"}
CHECKPOINTING = {"gradient_checkpointing": True}
OFFLOAD = {"offload": "optimizer"}
# Plain rows alone beside the pairs' plain pass: of the two passes theirs is the larger one.
KEPT = {"w_keep": 0.3, "w_vag": 0.0}
# What of params.yaml's section `train` each case changes.
CASES: dict[str, dict[str, Any]] = {
    "decoding": {},
    "full": {},
    "full, no guided pass": {"w_vag": 0.0},
    "full, checkpointing": CHECKPOINTING,
    "full, tower": {"tower": "full"},
    "full, bf16": BF16,
    "full, bf16, checkpointing": BF16 | CHECKPOINTING,
    "full, adafactor": {"optimizer": "adafactor"},
    "full, offload": OFFLOAD,
    "full, kept rows": KEPT,
    "full, kept distributions": KEPT | {"keep_form": "kl"},
    "full, 2 workers": TWO,
    "full, 2 workers, fsdp": DIVIDED,
    "full, 2 workers, fsdp, offload": DIVIDED | OFFLOAD,
    "full, 2 workers, fsdp, kept rows": DIVIDED | KEPT,
    "full, 2 workers, fsdp, bf16": DIVIDED | BF16,
    "full, 2 workers, fsdp, bf16, checkpointing": DIVIDED | BF16 | CHECKPOINTING,
    "lora": LORA,
    "lora, bf16": LORA | BF16,
    "lora, kept rows": LORA | KEPT,
    "lora, bf16, kept rows": LORA | BF16 | KEPT,
    "lora, 2 workers": LORA | TWO,
    "lora, 2 workers, fsdp": LORA | DIVIDED,
    "lora, 2 workers, fsdp, bf16": LORA | DIVIDED | BF16,
    "lora, 2 workers, fsdp, kept rows": LORA | DIVIDED | KEPT,
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


class Meter:
    """The highest memory of this process since it was last asked, above what it began with."""

    def __init__(self, device: str) -> None:
        self._is_cuda = device.startswith("cuda")
        self.reset()
        self._before = torch.cuda.memory_allocated() if self._is_cuda else _resident("VmRSS")

    def reset(self) -> None:
        """Forget what was taken before."""
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark: proc(5)

    def peak(self) -> int:
        """Bytes; what is taken from now on is another peak."""
        high = torch.cuda.max_memory_allocated() if self._is_cuda else _resident("VmHWM")
        self.reset()
        return high - self._before


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def work(case: str, size: str, folder: Path, device: str) -> dict[str, Any]:
    """Do what a stage does; what was expected of it, `parts`, and its `peak`.

    Of training also what was expected `before` its first step, and the peak until then, `built`.
    """
    meter = Meter(device)
    if case == "decoding":
        return {"parts": decode(size, device), "peak": meter.peak()}
    return train(case, size, folder, device, meter)


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


def train(case: str, size: str, folder: Path, device: str, meter: Meter) -> dict[str, Any]:
    """Some steps, so that the optimizer's state and all buffers are there in the last."""
    config, base = settings(case, device), folder / size
    files = (folder / f"{size}.parquet", folder / f"{size}.plain.parquet")
    cache = ReferenceCache(uri=str(folder / "reference"), base=size)
    place, output = torch.device(device), folder / "out"
    plain = files[1] if config.w_keep else None
    trainer, _ = build_trainer(config, place, base, files[0], cache, output, plain)
    built_by = meter.peak()
    trainer.train()
    peak = meter.peak()
    del trainer
    model, processor = built(size)
    subject = Subject(
        model=model,
        sizes=sizes(model, processor, size),
        stored=stored(case),
        shares=lambda length: True,
    )
    plan = pass_of(subject, config, ANSWER, machine(place))
    reading = training.loading(subject.sizes, plan, subject.stored.itemsize)
    before = max(training.reference(subject.sizes, plan), reading)
    parts = training.step(subject.sizes, plan)
    return {"parts": parts, "peak": peak, "before": before, "built": built_by}


def settings(case: str, device: str) -> Config:
    """The section `train` of params.yaml with what the case changes, for steps of one pass.

    All terms of the loss that look at pairs, unless the case says otherwise.
    """
    content = params.read(Path(__file__).parents[1] / "params.yaml")
    own = CASES[case]
    rows = max(own.get("workers", 0), 1) * PAIRS
    one = {"workers": 0, "batch_pairs": rows, "keep_rows": 2 * rows, "accumulation": 1}
    one |= {"steps": STEPS, "w_vag": 1.0, "vag_form": "paper", "w_anchor": 1.0, "w_keep": 0.0}
    one |= {"tower": "frozen"}
    content["train"] = {**content["train"], **one, "precision": "fp32", "checkpoint_every": 100}
    content["train"] |= own
    return params.load(content | {"device": device}, "train", Config)


def stored(case: str) -> torch.dtype:
    """What the base's file has: 16 bits where adapters train over them."""
    own = CASES[case]
    is_16 = "lora" in own and own.get("precision") == "bf16"
    return torch.bfloat16 if is_16 else torch.float32


def prepare(size: str, folder: Path, dtype: torch.dtype) -> None:
    """A base model and pairs in files, as the stages leave them."""
    model, processor = built(size)
    save(model, processor, folder / size, dtype)
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
        for i in range(4 * PAIRS)
    ]
    origin = Origin(prompt=prompt_version(processor), model_type=model.config.model_type)
    write_pairs(folder / f"{size}.parquet", pairs, origin)
    rows = [
        Example(
            id=one.id,
            image_id=one.id,
            images=one.images,
            kind=one.kind,
            history=(),
            question=one.question,
            answer=one.chosen,
            objects=None,
            absent=None,
        )
        for one in pairs
    ]
    write_plain(folder / f"{size}.plain.parquet", rows)


# ---- measured ----------------------------------------------------------------------------------


def alone(options: argparse.Namespace) -> None:
    """The child of `measured`: prints what was expected and the peaks, in bytes."""
    case, size, device = options.alone, options.sizes[0], options.device
    workers = CASES[case].get("workers", 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in ("tiny", size):
            prepare(one, folder, stored(case))
        given = (max(workers, 1), case, size, folder, device, options.threads)
        if workers:
            multiprocessing.start_processes(_worker, given, workers, start_method="spawn")
        else:
            _worker(0, *given)
        found = [json.loads(file.read_text()) for file in sorted(folder.glob("found-*.json"))]
    print(json.dumps(max(found, key=lambda one: one["peak"])))


def _worker(
    rank: int, workers: int, case: str, size: str, folder: Path, device: str, threads: int
) -> None:
    torch.set_num_threads(threads)
    if workers > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": workers}
        numbers |= {"LOCAL_WORLD_SIZE": workers, "MASTER_PORT": 1}  # not asked: there is a group
        os.environ |= {name: str(value) for name, value in numbers.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        where = f"file://{folder / 'group'}"
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=workers)
    work(case, "tiny", folder, device)
    found = work(case, size, folder, device)
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    if workers > 1:
        dist.destroy_process_group()


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
    is_built = "built" in found
    return {
        "model": size,
        "case": case,
        "expected": shown(expected),
        "measured": shown(peak),
        "ratio": f"{expected / peak:.2f}",
        "before it": shown(found["before"]) if is_built else "",
        "measured there": shown(found["built"]) if is_built else "",
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
        f"Decoding: {ROWS} answers of {ANSWER} tokens at once. Training: {PAIRS} pairs a pass of"
        f" one process, answers of {ANSWER} tokens, terms vag (the paper's), dpo, sft, anchor and"
        " attn; with kept rows no guided pass, and twice as many plain rows as pairs. `before it`:"
        " until the trainer is there (reading the model, and the reference). Models:",
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
