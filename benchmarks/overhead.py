"""What flow, gate and tracking add to a retraining, and how long one with nothing to do takes.

    python -m benchmarks.overhead [--seconds 2 20] [--repeats 3]

The same six stages, of a known length, are reproduced by turns: by `dvc repro --force` alone, and
by `python -m flows.retrain --force`, with Prefect's temporary server, the gate, the registry and a
run in MLflow for each stage, which logs ten points of five curves a second. What the second takes
more is a fixed time, whatever the stages take; two lengths of stages show that. Its share of longer
stages follows. Then nothing is due, and both are asked again.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from adapt import environment
from benchmarks.sides import FOLDER, by_turns, progress, ratios, spread, write
from tests.support import quick, tracked

STAGES = 6
SHARE = 0.05  # what flow and tracking may add
# Stands where the stages of the tests sleep: a stage that does nothing but log.
WORK = '''
from adapt import params
from adapt.params import Settings
from adapt.tracking import runs
from adapt.tracking.store import Store, TrackingConfig

class Config(Settings):
    """Of a stage without settings."""

def work(seconds, log):
    end, step = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        step += 1
        log(step, {f"curve {n}": 1.0 / step for n in range(5)})
        time.sleep(min(left, 0.1))

seconds = float(Path("seconds.txt").read_text())
if os.environ.get("ADAPT_PARENT_RUN"):
    tracking = params.load(params.read(Path("params.yaml")), "tracking", TrackingConfig)
    with runs.stage_run(Store(Path.cwd(), tracking), sys.argv[1], Config()) as run:
        work(seconds, run.log_step)
else:
    work(seconds, lambda step, metrics: None)
'''


def workspace(root: Path) -> Path:
    """The quick workspace of the tests, whose stages take as long as `seconds.txt` says."""
    quick.make(root)
    script = quick.STAGE.replace('os.environ["ADAPT_PARENT_RUN"] and "pairs"', '"pairs"')
    head, body = script.split("stage = sys.argv[1]\n")
    assert head != script, "the stages of the tests have changed"
    (root / "quick_stage.py").write_text(f"{head}{WORK}\nstage = sys.argv[1]\n{body}")
    with (root / ".gitignore").open("a") as file:
        file.write("seconds.txt\n")
    return root


def command(root: Path, *words: str) -> float:
    """How long a command takes, in seconds; what runs after it is waited for, and not counted."""
    env = quick.environment(root)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=root, env=env, capture_output=True, text=True
    )
    took = time.perf_counter() - start
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    tracked.settled(root, env)
    return took


def measured(root: Path, seconds: float, repeats: int) -> dict[str, list[float]]:
    """Both ways, with stages of `seconds` each."""
    (root / "seconds.txt").write_text(str(seconds))
    sides: dict[str, Callable[[], float]] = {
        "dvc repro": lambda: command(root, "dvc", "repro", "--force", "--quiet"),
        "retrain": lambda: command(root, "flows.retrain", "--force"),
    }
    return by_turns(sides, repeats, f"stages of {seconds:g} s", warm_up=0)


def row(seconds: float, values: dict[str, list[float]]) -> dict[str, str]:
    """What was seen of one length of stages."""
    added = [new - old for new, old in zip(values["retrain"], values["dvc repro"], strict=True)]
    return {
        "six stages of": f"{seconds:g} s",
        "dvc repro, s": spread(values["dvc repro"], 1),
        "retrain, s": spread(values["retrain"], 1),
        "added, s": spread(added, 1),
        "ratio": spread(ratios(values, "retrain", "dvc repro")),
    }


def notes(added: float, idle: dict[str, list[float]]) -> list[str]:
    """What the rows mean."""
    least = added / SHARE
    return [
        f"Flow, gate and tracking add {added:.1f} s, however long the stages take: "
        f"{100 * SHARE:g} % of stages that take {least / 60:.1f} min together, less of longer.",
        "",
        f"Nothing due: retrain {spread(idle['retrain'], 1)} s, "
        f"dvc repro {spread(idle['dvc repro'], 1)} s.",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module docstring."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.0, 20.0])
    parser.add_argument("--repeats", type=int, default=3, help="turns that each side takes")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the dated file")
    parser.set_defaults(device="cpu")
    options = parser.parse_args(arguments)
    environment.prepare(Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        root = workspace(Path(folder))
        # The first one makes the databases, and the first champion.
        (root / "seconds.txt").write_text("0")
        progress(f"the first retraining: {command(root, 'flows.retrain'):.1f} s")
        values = {one: measured(root, one, options.repeats) for one in options.seconds}
        idle_sides: dict[str, Callable[[], float]] = {
            "dvc repro": lambda: command(root, "dvc", "repro", "--quiet"),
            "retrain": lambda: command(root, "flows.retrain"),
        }
        idle = by_turns(idle_sides, options.repeats, "nothing due", warm_up=1)
    longest = values[max(options.seconds)]
    added = median(
        new - old for new, old in zip(longest["retrain"], longest["dvc repro"], strict=True)
    )
    rows = [row(one, of) for one, of in values.items()]
    title = "Overhead: a retraining beside its stages alone"
    write("overhead", title, notes(added, idle), rows, options)


if __name__ == "__main__":
    main()
