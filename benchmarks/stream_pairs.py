"""Pairs that stream: rate and memory of each part of training that reads them, and the first step.

    python -m benchmarks.stream_pairs [--rows 5000 100000] [--bytes 60000] [--work FOLDER]

Synthetic pairs with a JPEG of so many bytes each (a small picture and a comment of noise), answers
of 40 words, and the embedded model's classes, small. Each part is a process of its own, imports
included; memory is anonymous memory (RssAnon: what the page cache holds of a file is not counted),
sampled ten times a second, of the largest process and of all together. CPU seconds are of all
together and do not depend on what else the machine does. The first step ends where the first loss
is told.
"""

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image

from adapt import params
from adapt.attention.support import SIDE
from adapt.environment import cpus
from adapt.models.load import load_processor, save
from adapt.models.prompts import prompt_version
from adapt.models.tiny import build_model, build_processor, build_tokenizer
from adapt.pairs.table import Origin, Pair, PairView, read_ids, read_pairs, write_pairs
from adapt.preference.checks import check
from adapt.preference.collate import GuidedCollator
from adapt.preference.dataset import dataset
from adapt.preference.fit import fit
from adapt.preference.settings import Config
from adapt.preference.survey import FactsCache
from benchmarks.shapes import shape
from benchmarks.sides import arguments, progress, write

ROOT = Path(__file__).parents[1]
WORDS = [f"word{i}" for i in range(2000)]
SHAPE = shape(64, vision=1, text=2, heads=2, patch=8, image=64)
VIEW = PairView(image=0, kind="whole", rows=8, columns=8)
ANSWER, SOME = 40, 3000  # words of an answer; rows that are read at random
BASE, PAIRS, MARK = "base", "pairs.parquet", "mark.json"


# ---- the files -----------------------------------------------------------------------------------


def picture(number: int, size: int) -> bytes:
    """A JPEG of `size` bytes, of one colour with comments of noise; no two are the same."""
    color = (number % 256, number // 256 % 256, number // 65536)
    Image.new("RGB", (64, 64), color).save(file := io.BytesIO(), "JPEG")
    content, noise = file.getvalue(), b""
    while (left := size - len(content) - len(noise)) > 4:
        part = random.Random(number).randbytes(min(left, 65537) - 4)
        noise += b"\xff\xfe" + (len(part) + 2).to_bytes(2, "big") + part
    return content[:2] + noise + content[2:]


def pairs(rows: int, size: int) -> Iterator[Pair]:
    """So many pairs with pictures of `size` bytes."""
    chance = random.Random(0)
    for number in range(rows):
        chosen, rejected = (" ".join(chance.choices(WORDS, k=ANSWER)) for _ in range(2))
        yield Pair(
            id=str(number),
            kind="describe",
            images=(picture(number, size),),
            question="word1 word2 word3",
            chosen=chosen,
            rejected=rejected,
            chosen_score=1.0,
            rejected_score=0.0,
            anchor=tuple(chance.random() for _ in range(VIEW.rows * VIEW.columns)),
            views=(VIEW,),
            support=(chance.randbytes(SIDE * SIDE),),
        )


def make(folder: Path, rows: int, size: int) -> int:
    """A base model and a pair file, as the stages leave them."""
    processor = build_processor(build_tokenizer(WORDS), SHAPE)
    model = build_model(processor.tokenizer, SHAPE, seed=0).eval()
    save(model, processor, folder / BASE)
    origin = Origin(prompt=prompt_version(processor), model_type=model.config.model_type)
    return write_pairs(folder / PAIRS, pairs(rows, size), origin)


# ---- the parts -----------------------------------------------------------------------------------


def checked(folder: Path) -> int:
    """All that is checked of pairs before training."""
    from adapt.cluster import storage

    cache = FactsCache(
        uri=str(folder / "state" / "checked"),
        digest=lambda path: storage.digest(storage.files_of(path)),
    )
    check(settings(0), folder / BASE, folder / PAIRS, cache=cache)
    return len(read_pairs(folder / PAIRS))


def read_at_random(folder: Path) -> int:
    """Rows in the order of training, a step's at a time."""
    return sum(map(len, steps(folder)))


def batched(folder: Path) -> int:
    """The same as batches for the model: tokens, pictures decoded, pixels."""
    processor = load_processor(folder / BASE)
    ends = (processor.tokenizer.eos_token_id,)
    collate = GuidedCollator(processor=processor, ends=ends, noise=0.3, guide=False)
    return sum(len(collate(rows)["ids"]) for rows in steps(folder))


def steps(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows in a random order, as many at a time as a step takes."""
    rows = dataset(read_pairs(folder / PAIRS), read_ids(folder / PAIRS))
    order = random.Random(0).sample(range(len(rows)), min(SOME, len(rows)))
    size = settings(0).batch_pairs
    for start in range(0, len(order), size):
        yield rows.__getitems__(order[start : start + size])


def first_step(folder: Path, workers: int = 0) -> int:
    """A training until the first step has ended; on Ray's workers, to its end."""
    (out := folder / "out").mkdir(exist_ok=True)
    with_log = _Marks(folder / MARK, stops=workers == 0)
    with suppress(_Enough):
        fit(settings(workers), folder / BASE, folder / PAIRS, out, folder / "state", with_log)
    shutil.rmtree(out)
    return 0


class _Enough(Exception):
    """The first step has ended."""


class _Marks:
    """Notes when the first step has ended."""

    def __init__(self, place: Path, *, stops: bool) -> None:
        self._place, self._stops = place, stops

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step has ended."""
        if not self._place.exists():
            self._place.write_text(json.dumps(time.time()))
        if self._stops:
            raise _Enough


def settings(workers: int) -> Config:
    """The section `train` of params.yaml, without the rows that are kept beside pairs."""
    content = params.read(ROOT / "params.yaml")
    content["train"] = {**content["train"], "workers": workers, "w_keep": 0.0}
    return params.load(content | {"device": "cpu"}, "train", Config)


PARTS: dict[str, Callable[[Path], int]] = {
    "checks of all rows": checked,
    "the same again": checked,
    "rows read at random": read_at_random,
    "rows made batches": batched,
    "first step": first_step,
    "first step of the next run": first_step,
    "first step, 2 Ray workers": lambda folder: first_step(folder, 2),
}
LEFT: dict[str, tuple[str, ...]] = {"first step": ("state",)}  # what a part may not find


# ---- measured ------------------------------------------------------------------------------------


def measured(part: str, folder: Path, *words: str) -> dict[str, str]:
    """A row of the table, from a process of its own."""
    for name in (*LEFT.get(part, ()), MARK):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.stream_pairs", "--alone", part]
    command += ["--work", str(folder), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start, largest, total, used = time.time(), 0, 0, 0.0
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        options: dict[str, Any] = {"cwd": ROOT, "env": environment, "stdout": said}
        with psutil.Popen(command, stderr=wrong, **options) as process:
            while process.poll() is None:
                sizes = anonymous(process)
                largest, total = max(largest, *sizes), max(total, sum(sizes))
                used = max(used, cpu_seconds(process))
                time.sleep(0.1)
        said.seek(0)
        lines = said.read().splitlines()
        wrong.seek(0)
        if process.returncode:
            raise SystemExit(f"{part}: exit code {process.returncode}\n{wrong.read()[-2000:]}")
    rows, seconds = json.loads(lines[-1])
    mark = folder / MARK
    first = f"{json.loads(mark.read_text()) - start:.0f} s" if mark.exists() else ""
    found = {
        "part": part,
        "rows/s": f"{rows / seconds:.0f}" if rows else "",
        "first step after": first,
        "CPU seconds": f"{used:.0f}",
        "largest process": f"{largest / 2**20:.0f} MiB",
        "all processes": f"{total / 2**20:.0f} MiB",
    }
    progress(str(found))
    return found


def anonymous(process: psutil.Process) -> list[int]:
    """Bytes of anonymous memory of the process, and of each that it has started."""
    return [anonymous_of(one.pid) for one in _family(process)]


def anonymous_of(pid: int) -> int:
    """Bytes of anonymous memory of a process; 0 where there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), 0)


def cpu_seconds(process: psutil.Process) -> float:
    """Of the process, and of those that it has started, also of those that have ended."""
    total = 0.0
    for one in _family(process):
        try:
            used = one.cpu_times()
        except psutil.Error:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def alone(part: str, folder: Path, options: argparse.Namespace) -> None:
    """The child of `measured`: prints how many rows in how many seconds."""
    start = time.perf_counter()
    if part == "written":
        rows = make(folder, options.rows[0], options.bytes)
    else:
        rows = PARTS[part](folder)
    print(json.dumps([rows, time.perf_counter() - start]))


def main() -> None:
    """Measure, print and write; `--alone` is the child."""
    parser = arguments(__doc__.splitlines()[0], ["tiny"], ["tiny"], repeats=1)
    parser.add_argument("--rows", nargs="+", type=int, default=[5000])
    parser.add_argument("--bytes", type=int, default=60_000, help="of a picture")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, help="where files are made; 7 GB for 100,000 rows")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        alone(options.alone, options.work, options)
        return
    notes = [
        f"Pictures of {options.bytes / 1000:.0f} kB, answers of {ANSWER} words, {cpus()} cores,"
        " section `train` of params.yaml without kept rows. Memory without what the page cache"
        " holds. Imports and the start of processes are in the time to the first step, not in"
        " rows/s."
    ]
    table: list[dict[str, str]] = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.work) as name:
            words = ["--rows", str(rows), "--bytes", str(options.bytes)]
            for part in ("written", *options.parts):
                found = measured(part, Path(name), *(words if part == "written" else ()))
                table.append({"rows": f"{rows:,}", **found})
                # After every part, so that a long run that is stopped keeps what it has.
                write("stream_pairs", "Pairs that stream", notes, table, options)


if __name__ == "__main__":
    main()
