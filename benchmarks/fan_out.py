"""How much faster a split is answered by two actors than by one, and by one than in this process.

    python -m benchmarks.fan_out

A model with random weights describes pictures of noise, plainly, through the bench of stage
`answer` and nothing kept; each process has one thread. Both crews have the model open before the
clock starts and are at work by turns, so that the start of Ray, some seconds a stage, is told apart
from the passes. Machines shared with others give two processes less than two: the share of the
CPUs that was ours is in the table.
"""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from adapt import environment
from adapt.attention.settings import AnchorConfig
from adapt.cluster.fan import Fan
from adapt.cluster.local import ray_here
from adapt.data.schema import Example
from adapt.generation.bench import Bench
from adapt.generation.crew import Crew
from adapt.generation.settings import Config, SteerGrid, Steering
from adapt.models.load import save
from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer
from benchmarks import sides

SHAPES = {
    "tiny": Shape(width=96, vision_layers=2, text_layers=3, heads=4, patch_size=8, image_size=48),
    "medium": Shape(
        width=384, vision_layers=4, text_layers=8, heads=8, patch_size=14, image_size=224
    ),
}
QUESTION = "describe the picture."
WORDS = ("a red car, a blue house and a green tree.", QUESTION)
BATCH = 8
STEERING = {"alpha": 0.0, "tau": 0.9, "trigger": "mass", "anchor_share": 0.1, "layers": "all"}


def config(tokens: int) -> Config:
    """Section `answer`."""
    grid = SteerGrid(alpha=(0.0,), tau=(0.9,), layers=("all",), descriptions=0)
    return Config(
        batch=BATCH,
        actors=0,
        actor_cpus=1,
        traces=0,
        questions=0,
        benchmarks=(),
        anchor=AnchorConfig(anchor_tokens=5, noise_images=BATCH),
        steer=Steering(**STEERING, grid=grid),  # type: ignore[arg-type]
        device="cpu",
        max_new_tokens=tokens,
        seed=7,
    )


def made(shape: Shape, folder: Path) -> None:
    """A model that never ends an answer, so that all are equally long."""
    processor = build_processor(build_tokenizer(WORDS), shape)
    model = build_model(processor.tokenizer, shape, 0)
    model.generation_config.suppress_tokens = [processor.tokenizer.eos_token_id]
    save(model, processor, folder)


def questions(count: int, side: int) -> list[Example]:
    """About pictures of noise."""
    rng, rows = np.random.default_rng(0), []
    for i in range(count):
        file = BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "png")
        rows.append(
            Example(
                id=f"{i:05d}",
                image_id=f"{i:05d}",
                images=(file.getvalue(),),
                kind="describe",
                history=(),
                question=QUESTION,
                answer="",
                objects=None,
                absent=None,
            )
        )
    return rows


class Ours:
    """Seconds of the clock and of the CPUs that this process and those below it have had."""

    def __init__(self) -> None:
        self.shares: dict[str, list[float]] = {}

    def side(self, name: str, run: Callable[[], Any]) -> Callable[[], float]:
        """What takes the time of a run, and notes how many CPUs it had."""

        def seconds() -> float:
            start, used = time.perf_counter(), _used()
            run()
            wall = time.perf_counter() - start
            self.shares.setdefault(name, []).append((_used() - used) / wall)
            return wall

        return seconds


def _used() -> float:
    me = psutil.Process()
    times = [one.cpu_times() for one in (me, *me.children(recursive=True)) if one.is_running()]
    return sum(one.user + one.system for one in times)


@contextmanager
def crews(folder: Path, counts: tuple[int, ...]) -> Any:
    """A crew for each number of actors, in one Ray."""
    begun = time.perf_counter()
    with ray_here(sum(counts), include_dashboard=False):
        found = [Fan(count, 1, "cpu", "answer") for count in counts]
        yield found, time.perf_counter() - begun
        for one in found:
            one.close()


def main() -> None:
    """Measure, and write the table."""
    parser = sides.arguments(__doc__ or "", list(SHAPES), list(SHAPES), repeats=5)
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    options.threads = 1
    environment.prepare(Path.cwd())
    torch.set_num_threads(1)
    rows = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as work:
            rows.append(row(size, Path(work), options))
    notes = [
        f"{options.questions} descriptions of {options.tokens} tokens, {BATCH} at once, one thread"
        " a process; time of a pass with the model open, medians of turns with their quartiles."
        " `CPUs had`: seconds of CPU over seconds of the clock, this process and its actors.",
    ]
    sides.write("fan_out", "Answers by actors", notes, rows, options)


def row(size: str, work: Path, options: Any) -> dict[str, str]:
    """One size: in this process, by one actor, and by two."""
    shape = SHAPES[size]
    made(shape, work / "model")
    asked = questions(options.questions, shape.image_size)
    with crews(work / "model", (1, 2)) as ((one, two), start):
        opened = time.perf_counter()
        tables: dict[str, bytes] = {}

        def bench(name: str, crew: Crew | None) -> Callable[[], None]:
            bench = Bench(work / "model", "test", asked, config(options.tokens), crew=crew)

            def run() -> None:
                said = bench.ask("base", None)
                said.tokens.to_parquet(work / name)
                tables[name] = (work / name).read_bytes()

            return run

        ours = Ours()
        runs = {"here": bench("here", None), "1 actor": bench("1 actor", one)}
        runs["2 actors"] = bench("2 actors", two)
        begun = time.perf_counter() - opened
        timed = {name: ours.side(name, run) for name, run in runs.items()}
        values = sides.by_turns(timed, options.repeats, size)
        assert len({*tables.values()}) == 1, "the same tables"
    gains = sides.ratios(values, "1 actor", "2 actors")
    return {
        "model": f"{size}, {os.path.getsize(work / 'model' / 'model.safetensors') / 4e6:.1f} M",
        "here s": sides.spread(values["here"], 1),
        "1 actor s": sides.spread(values["1 actor"], 1),
        "2 actors s": sides.spread(values["2 actors"], 1),
        "1 actor / 2 actors": sides.spread(gains, 2),
        "CPUs had": ", ".join(
            f"{sum(of[1:]) / len(of[1:]):.2f}" for of in (ours.shares[name] for name in runs)
        ),
        "start s": f"{start + begun:.0f}",
    }


if __name__ == "__main__":
    main()
