"""Which signals warn best of hallucinated words? Sets of features side by side, of finished runs.

    python -m adapt.evaluation [RESULTS ...] [--arm tuned]

Reads what stage `answer` left in a results folder and the truth beside it; loads no model and takes
seconds. Detectors are fitted on the base model's words of the validation split and judged on the
words of the test split, as stage `evaluate` does. Several folders, as of several seeds, are
averaged in a last table.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import adapt
from adapt import command, params
from adapt.environment import Parser
from adapt.evaluation import early_warning, feature_sets
from adapt.evaluation.judge import judge_split
from adapt.evaluation.settings import Config
from adapt.metrics.bootstrap import Interval
from adapt.metrics.detection import Calibration, Report
from adapt.names import one_line
from adapt.params import InputError, require

PARAMS = Path("params.yaml")
SETS = {**early_warning.VARIANTS, **feature_sets.SETS}
HELP = """\
  of this workspace:
    python -m adapt.evaluation
  of three seeds, and how well the base's detectors warn of what the tuned models say:
    python -m adapt.evaluation seed-7/results seed-8/results seed-9/results --arm tuned

AUROC: chance that a hallucinated word scores above a grounded one, with its 95 % interval from a
bootstrap over images. Lead: what a set gains over the one without the added signals, on the same
draws. Caught: hallucinated words among the 10 % of words with the highest risks. Gap: mean
distance of a risk that is told from the share that was hallucinated (calibration error).

Exit codes: 0 done, 2 a mistake in the arguments or files, 130 stopped.
"""


@dataclass(frozen=True)
class Run:
    """What one results folder says: measures of every set and signal, and the sets' calibration."""

    words: int
    hallucinated: int
    report: Report
    calibrated: Mapping[str, Calibration]

    def lead(self, name: str) -> Interval | None:
        """AUROC of a set minus that of the set without what was added; None where it adds none."""
        other = feature_sets.AGAINST.get(name)
        if other is None:
            return None
        return self.report[name]["auroc"].minus(self.report[other]["auroc"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""

    def work() -> None:
        options = _parser().parse_args(argv)
        own = Path(adapt.__file__).parents[1] / PARAMS
        file = options.params or (PARAMS if PARAMS.exists() or not own.exists() else own)
        config = params.load(params.read(file), "evaluate", Config, str(file))
        runs = []
        for folder in options.results:
            runs.append(read(folder, options.arm, config))
            _say(f"{folder}, {options.arm}: {_words(runs[-1])}", runs[-1:])
        if len(runs) > 1:
            several = f"mean of {len(runs)} folders (lead: folders whose interval is above 0)"
            _say(several, runs)

    return command.ended("adapt.evaluation", work)


def _parser() -> argparse.ArgumentParser:
    about = "Compare sets of signals that warn of hallucinated words."
    parser = Parser(prog="python -m adapt.evaluation", description=about, epilog=HELP)
    add = parser.add_argument
    where = "results folder of a finished stage `answer` (default: results)"
    add("results", nargs="*", type=Path, default=[Path("results")], metavar="RESULTS", help=where)
    whose = "whose words are judged (default: base)"
    add("--arm", choices=["base", "tuned"], default="base", help=whose)
    file = "parameters (default: params.yaml here, else the project's own)"
    add("--params", type=Path, metavar="FILE", help=file)
    return parser


def read(results: Path, arm: str, config: Config) -> Run:
    """Judge, fit and compare what lies in a results folder.

    InputError where something is missing in it, or too few words are known to be hallucinated.
    """
    answers, splits = results / "answer", results / "data" / "splits"
    parts = [answers / f"{name}.parquet" for name in ("responses", "tokens")]
    for file in (*parts, splits / "validation.parquet", splits / "test.parquet"):
        require(file.is_file(), str(file), "not found; run the pipeline up to stage answer")
    responses, tokens = (pd.read_parquet(file) for file in parts)
    feature_sets.check(tokens, str(parts[1]))

    def judged(whose: str, split: str) -> pd.DataFrame:
        said, heard = (of[(of.arm == whose) & (of.split == split)] for of in (responses, tokens))
        labelled = judge_split(said, heard, splits, split, config.anchor.anchor_tokens).tokens
        if problem := early_warning.problem(labelled):
            raise InputError(f"{parts[1]}: {whose}, {split} split: {problem}")
        return labelled

    fitted_on, words = judged("base", "validation"), judged(arm, "test")
    detectors = {**early_warning.fitted(fitted_on), **feature_sets.fitted(fitted_on)}
    directions = {**early_warning.DIRECTIONS, **feature_sets.DIRECTIONS}
    report = early_warning.judged(words, detectors, directions, config.bootstrap, config.seed)
    _, labels = early_warning.object_words(words)
    calibrated = early_warning.calibrations(words, detectors)
    return Run(len(labels), int(labels.sum()), report, calibrated)


def _say(title: str, runs: Sequence[Run]) -> None:
    for line in (title, *table(runs)):
        print(one_line(line), flush=True)


def _words(run: Run) -> str:
    return f"{run.hallucinated} of {run.words} object words of the test split are hallucinated"


def table(runs: Sequence[Run]) -> list[str]:
    """Lines of a table in Markdown, one row a signal or set; means where there are several runs."""
    names = [*runs[0].report]
    lines = ["| signal or set of features | AUROC | lead | caught | gap |", "|---|---|---|---|---|"]
    for name in sorted(names, key=lambda name: name in SETS):  # signals first, in their order
        features = f" ({', '.join(SETS[name])})" if name in SETS else ""
        auroc, caught = (_values(runs, name, measure) for measure in ("auroc", "caught"))
        errors = [run.calibrated[name].error for run in runs if name in run.calibrated]
        gap = f"{sum(errors) / len(errors):.3f}" if errors else ""
        lead = _lead([run.lead(name) for run in runs])
        share = f"{100 * sum(one.point for one in caught) / len(caught):.0f} %"
        lines.append(f"| {name}{features} | {_mean(auroc)} | {lead} | {share} | {gap} |")
    return lines


def _values(runs: Sequence[Run], name: str, measure: str) -> list[Interval]:
    return [run.report[name][measure].interval() for run in runs]


def _mean(values: Sequence[Interval]) -> str:
    """A value with its interval; of several their mean, and the smallest and largest.

    >>> _mean([Interval(0.9, 0.8, 0.95)]), _mean([Interval(0.9, 0.8, 1), Interval(0.8, 0.7, 0.9)])
    ('.900 [.800, .950]', '.850 (.800 to .900)')
    """
    points = [value.point for value in values]
    if len(values) == 1:
        (one,) = values
        return f"{_short(one.point)} [{_short(one.low)}, {_short(one.high)}]"
    mean, low, high = sum(points) / len(points), min(points), max(points)
    return f"{_short(mean)} ({_short(low)} to {_short(high)})"


def _lead(leads: Sequence[Interval | None]) -> str:
    """A lead with its interval; of several their mean, and how many are surely above 0."""
    known = [lead for lead in leads if lead is not None]
    if not known:
        return ""
    if len(known) == 1:
        return f"{known[0].point:+.3f} [{known[0].low:+.3f}, {known[0].high:+.3f}]"
    mean = sum(lead.point for lead in known) / len(known)
    return f"{mean:+.3f} ({sum(lead.low > 0 for lead in known)} of {len(known)})"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    sys.exit(main())
