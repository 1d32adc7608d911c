"""What every benchmark does: sides by turns, ratios with their spread, a table in a dated file.

A machine slows down and speeds up in the course of a run. So the sides take turns, each repeat
gives one ratio to the first side, and a row shows the median and the quartiles of these ratios.
"""

import argparse
import datetime
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent
# For a process that measures its memory: freed memory goes back at once, so that the resident set
# is what is in use and not what the allocator keeps.
IN_USE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def arguments(
    description: str, sizes: Sequence[str], default: Sequence[str], repeats: int
) -> argparse.ArgumentParser:
    """The options that all benchmarks share: --sizes, --repeats, --threads, --device, --out."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=sizes, default=list(default))
    parser.add_argument("--repeats", type=int, default=repeats, help="turns that every side takes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of torch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the dated file")
    return parser


def by_turns(
    sides: Mapping[str, Callable[[], float]], repeats: int, label: str, warm_up: int = 1
) -> dict[str, list[float]]:
    """Run every side `repeats` times, by turns and in changing order, after unmeasured rounds.

    A side returns its own value (seconds, for example).
    """
    names = list(sides)
    values: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warm_up, repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            value = sides[name]()
            if turn >= 0:
                values[name].append(value)
        progress(f"{label}: turn {turn + 1} of {repeats}")
    return values


def progress(line: str) -> None:
    """One line on stderr with the time; long work is never silent."""
    print(f"{datetime.datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and quartiles.

    >>> spread([1.0, 1.2, 1.1, 1.4, 1.3], 2)
    '1.20 (1.10 to 1.30)'
    """
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratios(values: Mapping[str, Sequence[float]], name: str, base: str) -> list[float]:
    """The side's value over the base's of the same turn."""
    return [one / other for one, other in zip(values[name], values[base], strict=True)]


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of equal keys as a Markdown table, aligned for a terminal as well."""
    heads = list(rows[0])
    width = {head: max(len(head), *(len(row[head]) for row in rows)) for head in heads}
    lines = [
        heads,
        ["-" * width[head] for head in heads],
        *([row[head] for head in heads] for row in rows),
    ]
    return "\n".join(
        "| " + " | ".join(c.ljust(width[h]) for c, h in zip(line, heads, strict=True)) + " |"
        for line in lines
    )


def hardware(device: str) -> str:
    """A word for file names: the GPU, or the CPU and the threads in use."""
    name = (
        torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"{_cpu()} {torch.get_num_threads()} threads"
    )
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return name[1] if name else platform.machine()


def write(
    theme: str,
    title: str,
    notes: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    options: argparse.Namespace,
    module: str = "",
) -> None:
    """Print the table and write `<theme>_<hardware>_<date>.md`; `module`, where it has more."""
    today = datetime.date.today().isoformat()
    load = f"load average at the end {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    machine = hardware(options.device)
    text = [
        f"# {title}",
        "",
        *notes,
        "",
        table(rows),
        "",
        f"`{_command(module or theme)}`, {today}; {machine}; {versions()}; {load}.",
        "",
    ]
    path = options.out / f"{theme}_{machine}_{today}.md"
    path.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))
    print(path)


def _command(theme: str) -> str:
    """The command as anybody would type it: where this machine put the file is of no use."""
    words = ["python", "-m", f"benchmarks.{theme}", *sys.argv[1:]]
    for option in ("--out", "--work"):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    if "--model" in words:
        words[words.index("--model") + 1] = "FOLDER"
    return " ".join(words)


class GrowingTable:
    """A table in `<theme>_<hardware>_<date>.md` whose rows are there as soon as they are known.

    For runs with a limit of time: one that is cut off leaves what it has measured.
    """

    def __init__(self, theme: str, title: str, notes: str, options: argparse.Namespace) -> None:
        today, machine = datetime.date.today().isoformat(), hardware(options.device)
        self._path = options.out / f"{theme}_{machine}_{today}.md"
        self._head: tuple[str, ...] = ()
        made = f"`{_command(theme)}`, {today}; {machine}; {versions()}."
        self._append(f"## {title}\n\n{notes}\n{made}\n")

    def row(self, **cells: str) -> None:
        """One row; the names of the first one's cells make the head."""
        if not self._head:
            self._head = tuple(cells)
            heads = [name.replace("_", " ") for name in cells]
            self._append("\n" + _line(heads) + _line(["---"] * len(heads)))
        assert tuple(cells) == self._head, "all rows have the same cells"
        self._append(_line([*cells.values()]))

    def close(self) -> None:
        """What comes next is no row."""
        self._append("\n")

    def _append(self, text: str) -> None:
        print(text, end="", flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


class Clock:
    """Time and peak memory on a device; a CPU has no peak that could be asked for."""

    def __init__(self, device: str) -> None:
        self._is_cuda = device.startswith("cuda")

    def seconds(self, run: Callable[[], Any]) -> float:
        """How long it takes until the device has done it."""
        self._synchronise()
        start = time.perf_counter()
        run()
        self._synchronise()
        return time.perf_counter() - start

    def _synchronise(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize()

    def reset_peak(self) -> None:
        """Forget what was taken before."""
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        """Bytes that were taken at once since `reset_peak`; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() if self._is_cuda else 0


def versions() -> str:
    """Of the libraries that a time depends on."""
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
