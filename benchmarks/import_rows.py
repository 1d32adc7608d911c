"""Rate and memory of stage `data` on many rows, and what more rows cost on another day.

    python -m benchmarks.import_rows [--rows 5000 100000] [--work FOLDER]

Preferences in the columns of RLAIF-V, with JPEGs of 640 x 480 pixels and about 60 kB inside: random
blotches of colour under a texture of noise. No two have the same bytes, and every 20th looks like
an earlier one (a comment in the file sets it apart), as where a picture has several rows. The whole
command (`python -m adapt.stages.data`, tracking and start included) runs in a workspace of its own:
on all rows, then with 1,000 more. Resident memory is the sum over the process and all that it
starts, sampled ten times a second; pages that several processes share count for each of them. CPU
seconds are of all of them too, and do not depend on what else the machine does.
"""

import argparse
import io
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from adapt.environment import cpus
from benchmarks.sides import arguments, progress, write

ROOT = Path(__file__).parents[1]
SIZE, ALIKE, GRAIN, QUALITY = (640, 480), 20, 14, 75
ROWS_A_FILE, MORE = 5000, 1000
PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
TEXTS = dict.fromkeys(("question", "chosen", "rejected", "origin_dataset", "idx"), pa.string())
SCHEMA = pa.schema({**TEXTS, "image": PICTURE})


def picture(number: int) -> bytes:
    """JPEG number so and so: of all that look like it, it alone has its comment."""
    content, comment = _drawn(number // ALIKE), f"picture {number}".encode()
    return content[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + content[2:]


@lru_cache(maxsize=2)
def _drawn(number: int) -> bytes:
    rng = np.random.default_rng(number)
    blotches = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(blotches.resize(SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
    shown = Image.fromarray((pixels + _grain()).clip(0, 255).astype(np.uint8))
    shown.save(buffer := io.BytesIO(), "JPEG", quality=QUALITY)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    shape = (SIZE[1], SIZE[0], 1)
    return np.random.default_rng(0).integers(-GRAIN, GRAIN + 1, shape, dtype=np.int16)


def file_of_rows(path: Path, first: int, last: int) -> int:
    """Write the rows first..last-1; returns the bytes of their pictures."""
    size = 0
    with pq.ParquetWriter(path, SCHEMA, compression="none") as writer:
        for start in range(first, last, 100):
            rows = [_row(number) for number in range(start, min(start + 100, last))]
            size += sum(len(row["image"]["bytes"]) for row in rows)
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    return size


def _row(number: int) -> dict[str, object]:
    said = f"There are blotches of many colours in picture {number}, under a fine grain, and "
    return {
        "question": "What is in the picture? Say it in detail.",
        "chosen": said + "nothing else can be made out. " * 12,
        "rejected": said + "a man with a red umbrella walks by. " * 12,
        "origin_dataset": "drawn",
        "idx": str(number),
        "image": {"bytes": picture(number), "path": f"{number}.jpg"},
    }


def make(folder: Path, first: int, last: int) -> int:
    """Files of rows, in as many processes as there are cores; returns the bytes of pictures."""
    folder.mkdir(exist_ok=True)
    starts = range(first, last, ROWS_A_FILE)
    with ProcessPoolExecutor(cpus()) as pool:
        jobs = [
            pool.submit(file_of_rows, folder / f"{at:08}.parquet", at, min(at + ROWS_A_FILE, last))
            for at in starts
        ]
        return sum(job.result() for job in jobs)


def run(workspace: Path, rows: int) -> dict[str, str]:
    """The stage once; a row of the table."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command, peak = [sys.executable, "-m", "adapt.stages.data"], 0
    log = workspace / "log.txt"
    start, before = time.perf_counter(), _cpu_seconds()
    with log.open("w") as output:
        options = {"cwd": workspace, "env": environment, "stdout": output, "stderr": output}
        stage = psutil.Popen(command, **options)
        while stage.poll() is None:
            peak = max(peak, resident(stage))
            time.sleep(0.1)
    seconds = time.perf_counter() - start
    text = log.read_text()
    if stage.returncode:
        raise SystemExit(text[-2000:])
    known = re.findall(r"adapt data: .* known, .* checked", text)
    return {
        "rows": f"{rows:,}",
        "of which": known[0].partition(": ")[2].partition(": ")[2],
        "seconds": f"{seconds:.0f}",
        "rows/s": f"{rows / seconds:.0f}",
        "CPU seconds": f"{_cpu_seconds() - before:.0f}",
        "resident at the peak": f"{peak / 2**20:.0f} MiB",
    }


def _cpu_seconds() -> float:
    """Of the processes that have ended, and of those that they had started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident(process: psutil.Process) -> int:
    """Bytes of the process and of all that it has started."""
    total = 0
    for one in [process, *_children(process)]:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _children(process: psutil.Process) -> Iterator[psutil.Process]:
    try:
        yield from process.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def measured(rows: int, folder: Path) -> list[dict[str, str]]:
    """All rows, and 1,000 more."""
    workspace = folder / f"rows-{rows}"
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    parameters["data"] |= {"source": "rows"}
    (workspace / "params.yaml").write_text(yaml.safe_dump(parameters))
    size = make(workspace / "rows", 0, rows)
    progress(f"{rows} rows of {size / rows / 1000:.1f} kB are made")
    found = [run(workspace, rows)]
    progress(f"{found[-1]}")
    make(workspace / "rows", rows, rows + MORE)
    found.append(run(workspace, rows + MORE))
    progress(f"{found[-1]}")
    shutil.rmtree(workspace)
    return [{"pictures": f"{size / rows / 1000:.1f} kB", **one} for one in found]


def main() -> None:
    """Measure, print and write."""
    parser = arguments(__doc__.splitlines()[0], ["rlaif-v"], ["rlaif-v"], repeats=1)
    parser.add_argument("--rows", nargs="+", type=int, default=[5000])
    parser.add_argument("--work", type=Path, help="where files are made; 14 GB for 100,000 rows")
    options: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        table = [row for rows in options.rows for row in measured(rows, Path(folder))]
    notes = [
        f"RLAIF-V's columns, JPEGs of {SIZE[0]} x {SIZE[1]} in parquet, {cpus()} workers; the"
        " whole command, tracking and start included. Then with 1,000 rows more."
    ]
    write("import_rows", "Stage `data` on many rows", notes, table, options)


if __name__ == "__main__":
    main()
