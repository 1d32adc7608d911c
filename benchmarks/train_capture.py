"""What capture costs in training: forward and backward, against SDPA alone and eager maps.

    python -m benchmarks.train_capture [--sizes 1k 2k 4k] [--layers 8] [--width 1024] [--rows 256]

A decoder with random weights, one sequence with 576 image tokens; the rows are the last ones, as in
training. Sides:

* sdpa: no capture;
* capture 4, capture all: `RowCapture` on 4 layers, or all, and the mean of the squared maps in the
  loss;
* eager 4, eager all: the same term from `output_attentions=True`.

Time: all sides by turns in one process. Memory: a fresh process per side, the highest resident set
during one forward and backward, less what was resident before it (weights are excluded, gradients
and activations are not); on CUDA `max_memory_allocated`, likewise.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from adapt.attention.capture import RowCapture, observed
from benchmarks.sides import IN_USE, arguments, by_turns, progress, ratios, spread, write

SIZES = {"512": 512, "1k": 1024, "2k": 2048, "4k": 4096, "8k": 8192}
SIDES = ("sdpa", "capture 4", "capture all", "eager 4", "eager all")
IMAGE = 576


def build(options: argparse.Namespace) -> Any:
    """A Llama decoder in training mode; a small vocabulary, so that the head does not decide."""
    from transformers import LlamaConfig, LlamaForCausalLM

    width = options.width
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=options.layers,
        num_attention_heads=width // 64,
        vocab_size=1000,
        max_position_embeddings=2**15,
    )
    return LlamaForCausalLM(config).to(options.device).train()


def step(model: Any, side: str, length: int, options: argparse.Namespace) -> Callable[[], float]:
    """One forward and backward of a side; returns its seconds."""
    ids_BS = torch.randint(0, 1000, (1, length), device=options.device)
    rows_BR = torch.arange(length - options.rows, length, device=options.device)[None]
    columns_BN = torch.arange(8, 8 + min(IMAGE, length // 2), device=options.device)[None]
    kind, _, which = side.partition(" ")
    layers = tuple(range(options.layers))[-4:] if which == "4" else tuple(range(options.layers))

    def run() -> float:
        _synchronise(options)
        start = time.perf_counter()
        _loss(model, kind, ids_BS, rows_BR, columns_BN, layers).backward()
        model.zero_grad(set_to_none=True)
        _synchronise(options)
        return time.perf_counter() - start

    return run


def _loss(
    model: Any,
    kind: str,
    ids_BS: Tensor,
    rows_BR: Tensor,
    columns_BN: Tensor,
    layers: tuple[int, ...],
) -> Tensor:
    if kind == "sdpa":
        return model(ids_BS, labels=ids_BS, use_cache=False).loss
    if kind == "capture":
        capture = RowCapture(rows_BR, columns_BN, layers)
        with observed(model, capture):
            loss = model(ids_BS, labels=ids_BS, use_cache=False).loss
        return loss + capture.stacked().square().mean()
    model.set_attn_implementation("eager")
    out = model(ids_BS, labels=ids_BS, use_cache=False, output_attentions=True)
    model.set_attn_implementation("sdpa")
    maps = [out.attentions[layer].mean(1)[:, rows_BR[0]][:, :, columns_BN[0]] for layer in layers]
    return out.loss + torch.stack(maps, 1).square().mean()


def _synchronise(options: argparse.Namespace) -> None:
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_mib(side: str, size: str, options: argparse.Namespace) -> float:
    """Peak memory of one step above what was in use before it, MiB, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.train_capture", "--alone", side, "--sizes", size]
    for name in ("layers", "width", "rows", "threads", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | IN_USE,
    )
    return float(json.loads(done.stdout)["mib"])


def alone(options: argparse.Namespace) -> None:
    """The child of `peak_mib`: one step, and what it took."""
    model = build(options)
    step(model, options.alone, 64 + options.rows, options)()  # libraries allocate at first use
    run = step(model, options.alone, SIZES[options.sizes[0]], options)
    if options.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        took = torch.cuda.max_memory_allocated() - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again: proc(5)
        before = _resident("VmRSS")
        run()
        took = _resident("VmHWM") - before
    print(json.dumps({"mib": took / 2**20}))


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    """Measure, print and write; `--alone` is the child."""
    parser = arguments(__doc__.splitlines()[0], list(SIZES), ["1k", "2k", "4k"], repeats=5)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=256, help="tokens of the answer")
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help=argparse.SUPPRESS
    )
    parser.add_argument("--alone", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        alone(options)
        return
    model, rows = build(options), []
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    notes = [
        f"{options.layers} layers, width {options.width}, {options.width // 64} heads,"
        f" {parameters:.0f} M weights, fp32, batch 1, {options.rows} answer rows, {IMAGE} image"
        f" tokens. Median (quartiles) of {options.repeats} turns; memory is the peak of one step"
        " above what was in use before."
    ]
    for size in options.sizes:
        rows += measure(model, size, options)
        # After every size, so that a long run that is stopped keeps what it has.
        write("train_capture", "Capture in training", notes, rows, options)


def measure(model: Any, size: str, options: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of one size."""
    fitting = [side for side in options.sides if fits(side, size, options)]
    seconds = by_turns(
        {side: step(model, side, SIZES[size], options) for side in fitting}, options.repeats, size
    )
    base, rows = 0.0, []
    for side in options.sides:
        if side not in fitting:
            columns = ("time / sdpa", "peak MiB", "peak / sdpa", "above sdpa, MiB")
            left_out = dict.fromkeys(columns, "")
            rows.append({"S": size, "side": side, "seconds": "does not fit", **left_out})
            continue
        mib = peak_mib(side, size, options)
        progress(f"{size}, {side}: {mib:.0f} MiB")
        base = base or mib
        rows.append(
            {
                "S": size,
                "side": side,
                "seconds": spread(seconds[side]),
                "time / sdpa": spread(ratios(seconds, side, fitting[0])),
                "peak MiB": f"{mib:.0f}",
                "peak / sdpa": f"{mib / base:.3f}",
                "above sdpa, MiB": f"{mib - base:.0f}",
            }
        )
    return rows


def fits(side: str, size: str, options: argparse.Namespace) -> bool:
    """Whether a side can be run: eager keeps S x S logits and weights of every layer and head."""
    if not side.startswith("eager"):
        return True
    on_cuda = options.device.startswith("cuda")
    available = torch.cuda.mem_get_info()[0] if on_cuda else psutil.virtual_memory().available
    return 2 * 4 * options.layers * (options.width // 64) * SIZES[size] ** 2 < 0.6 * available


if __name__ == "__main__":
    main()
