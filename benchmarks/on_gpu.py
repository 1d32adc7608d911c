"""What runs on a GPU: the tests that need one, and steps and decoding at the sizes of 7 B.

    python -m benchmarks.on_gpu tests                   # attention, decoding, training, on CUDA
    python -m benchmarks.on_gpu step --model llava      # a LoRA step of ours, against TRL's step
    python -m benchmarks.on_gpu decode --model qwen     # capture and steering, against `generate`
    python -m benchmarks.on_gpu step --model llava --tiny --device cpu    # a rehearsal

`benchmarks/on_gpu.sh` runs all of it within eight minutes. Models are LLaVA-1.5-7B and
Qwen2.5-VL-7B by their sizes, with random weights (`benchmarks/shapes.py`). Every row is appended to
`on_gpu_<hardware>_<date>.md` in the moment in which it is known.
"""

import argparse
import os
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import shapes
from benchmarks.decode_7b import decode
from benchmarks.lora_step import step
from benchmarks.sides import FOLDER, GrowingTable, progress

TESTS = Path(__file__).parents[1] / "tests" / "test_on_gpu.py"


def main() -> int:
    """Measure one part and append it to the dated file; 1 where a test has failed."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks.on_gpu", description=__doc__, formatter_class=raw
    )
    parser.add_argument("part", choices=["tests", "step", "decode"])
    parser.add_argument("--model", choices=shapes.CASES, default="llava")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a rehearsal")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=60, help="no new turn after this long")
    parser.add_argument("--select", default="", help="of the tests, as pytest's -k (all)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the dated file")
    options = parser.parse_args()
    options.dtype = "bfloat16" if options.device.startswith("cuda") else "float32"
    options.threads, options.end = torch.get_num_threads(), time.monotonic() + options.seconds
    if options.part == "tests":
        return tests(options)
    warnings.simplefilter("ignore", FutureWarning)  # among TRL, accelerate and transformers
    case, dtype = shapes.CASES[options.model], getattr(torch, options.dtype)
    progress(f"{case.name}: making the model")
    model, processor = shapes.build(case, options.device, dtype, options.tiny)
    {"step": step, "decode": decode}[options.part](case, model, processor, options)
    return 0


class Outcomes:
    """pytest's plugin that counts what became of each test function's cases."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.seconds: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called after set-up, call and end of each case."""
        name = report.nodeid.rpartition("::")[2].partition("[")[0]
        self.seconds[name] += report.duration
        if report.when == "call" or report.outcome != "passed":
            self.counts.setdefault(name, Counter())[report.outcome] += 1
        if report.failed:
            self.failed.append(report.nodeid.rpartition("::")[2])


def tests(options: argparse.Namespace) -> int:
    """`tests/test_on_gpu.py` on the device; a row for each test."""
    os.environ["ADAPT_TEST_DEVICE"] = options.device
    outcomes = Outcomes()
    arguments = [str(TESTS), "-q", "--tb=short", "-p", "no:cacheprovider", "-k", options.select]
    code = pytest.main(arguments, plugins=[outcomes])
    title = "Attention, decoding and preference training"
    table = GrowingTable("on_gpu", title, f"`{TESTS.parent.name}/{TESTS.name}`.", options)
    for name, counts in outcomes.counts.items():
        passed, failed, skipped = (str(counts[key]) for key in ("passed", "failed", "skipped"))
        seconds = f"{outcomes.seconds[name]:.1f}"
        table.row(test=name, passed=passed, failed=failed, skipped=skipped, seconds=seconds)
    table.close()
    print("\n".join(outcomes.failed))
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
