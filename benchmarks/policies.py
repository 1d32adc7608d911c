"""What each policy on risk does without training: Hal, CHAIR_i, Cover, and its cost.

    python -m benchmarks.policies                   # base and tuned model of results/
    python -m benchmarks.policies --results A B C   # pooled over several retrainings
    python -m benchmarks.policies --alpha 0.8       # steer so, where alpha 0 was chosen

Every description of the test split is asked of the served version (`adapt/serving/answerer.py`), by
every policy, in the same batches. Cost is the time of its answers by that of `flag`, batch by
batch, the policies in turn; `flag` itself costs what being watched costs. Where a model was chosen
to be steered with alpha 0, `steer` and `retry` change nothing, unless --alpha says otherwise.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt.data.schema import Example, open_images
from adapt.data.tables import read_split
from adapt.generation.known import Known
from adapt.generation.settings import SteerConfig
from adapt.metrics import chair
from adapt.serving import bundle
from adapt.serving.answerer import Answerer
from adapt.serving.asked import POLICIES, Answer, Asked
from benchmarks.sides import FOLDER, progress, ratios, spread, write

STAGES: dict[bundle.Model, str] = {"base": "base", "tuned": "train"}


def served(
    results: Path, which: bundle.Model, alpha: float | None, device: Any, folder: Path
) -> Answerer:
    """The model as a promotion would register it."""
    shutil.copytree(results / STAGES[which] / "model", folder)
    bundle.compose(results, which, "", folder)
    answerer = Answerer.open(folder, device)
    if alpha is not None and answerer.steer is None:
        rule = {"tau": 0.9, "trigger": "mass", "anchor_share": 0.1, "layers": (0, 1)}
        answerer.steer = SteerConfig(alpha=alpha, **rule)
    return answerer


def asked(rows: Sequence[Example], policy: Any, threshold: float) -> list[Asked]:
    """The questions, by one policy."""
    named = {"policy": policy, "threshold": threshold}
    return [Asked(id=r.id, images=open_images(r), question=r.question, **named) for r in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    lines = []
    for which in STAGES:
        counts: dict[str, list[chair.Counts]] = {policy: [] for policy in POLICIES}
        said: dict[str, list[Answer]] = {policy: [] for policy in POLICIES}
        seconds: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        for results in options.results:
            splits = results / "data" / "splits"
            words = Known.of(splits).words
            rows = [r for r in read_split(splits / "test.parquet") if r.kind == "describe"]
            with tempfile.TemporaryDirectory() as scratch:
                answerer = served(
                    results, which, options.alpha, options.device, Path(scratch) / "model"
                )
            for start in range(0, len(rows), options.batch):
                part = rows[start : start + options.batch]
                for policy in POLICIES:
                    questions = asked(part, policy, options.threshold)
                    begun = time.perf_counter()
                    answers = answerer.answer(questions)
                    seconds[policy].append(time.perf_counter() - begun)
                    said[policy] += answers
                    pairs = zip(answers, part, strict=True)
                    counts[policy] += [chair.count(one.text, row, words) for one, row in pairs]
            progress(f"{which}: {results} is done")
        lines += _rows(which, counts, said, seconds)
    alpha = "as chosen" if options.alpha is None else f"{options.alpha:g} where 0 was chosen"
    notes = [
        f"{len(options.results)} retrainings, all descriptions of their test splits.",
        f"Threshold {options.threshold:g}, batches of {options.batch}, alpha {alpha}.",
    ]
    write("policies", "Policies on risk", notes, lines, options)


def _rows(
    which: str,
    counts: dict[str, list[chair.Counts]],
    said: dict[str, list[Answer]],
    seconds: dict[str, list[float]],
) -> list[dict[str, str]]:
    rows = []
    for policy in POLICIES:
        of = chair.aggregate(counts[policy])
        cost = ratios(seconds, policy, "flag")
        acted = sum(one.finish == "risk" or one.passes > 1 for one in said[policy])
        titles = {"Hal": "hal", "CHAIR_i": "chair_i", "Cover": "cover"}
        rows.append(
            {"model": which, "policy": policy}
            | {title: f"{of[key]:.1f}" for title, key in titles.items()}
            | {"time by flag": spread(cost)}
            | {"ended or retried": f"{100 * acted / len(said[policy]):.1f} %"}
        )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.policies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--results", nargs="+", type=Path, default=[Path("results")], help="folders of results")
    add("--threshold", type=float, default=0.5, help="risk from which a policy acts (0.5)")
    add("--alpha", type=float, help="strength of steering where 0 was chosen")
    add("--batch", type=int, default=50, help="questions at once (50)")
    add("--device", default="cpu", help="where the models answer (cpu)")
    add("--out", type=Path, default=FOLDER, help="folder of the table (benchmarks)")
    return parser


if __name__ == "__main__":
    main()
