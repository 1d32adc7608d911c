"""The pairs stage: which rows, what is known of them, what is worked out, and the file.

Rows are looked at twice: for their keys (`adapt/preference/kept.py`), and when the file is written.
In between only those are worked out that are not known. No more rows than a batch are in memory.
"""

import itertools
from pathlib import Path
from typing import get_args

from adapt.data.schema import read_vocabulary
from adapt.environment import state_dir
from adapt.params import InputError
from adapt.preference import report
from adapt.preference.kept import kept
from adapt.preference.likelihood import measured
from adapt.preference.pairs import write_pairs
from adapt.preference.selected import asked_rows, decided, given_rows, say
from adapt.preference.settings import Kind, PairsConfig
from adapt.preference.work import Loaded
from adapt.progress import Log


def make_pairs(
    config: PairsConfig, splits: Path, base: Path, out: Path, log: Log
) -> dict[str, float]:
    """Write `out/pairs.parquet` and `out/report.json`; returns the stage's metrics."""
    train, state = splits / "train.parquet", state_dir(splits.parents[2])
    vocabulary = read_vocabulary(splits / "vocabulary.json")
    source = decided(config, train)
    given = given_rows(config, train) if source in ("given", "both") else []
    asked = asked_rows(config, train, vocabulary) if source in ("sample", "both") else []
    model = Loaded.of(config, base, state / "debias")
    works = [model.given(given)] if given else []
    works += [model.sampled(asked, vocabulary, also_given=bool(given))] if asked else []
    tally = report.Tally(model.tokens)
    with kept(state / "pairs") as store:
        keys = [work.do(store, log) for work in works]
        made = (work.pairs(store, own) for work, own in zip(works, keys, strict=True))
        pairs = itertools.chain.from_iterable(made)
        total = write_pairs(out / "pairs.parquet", tally.passing(pairs), model.origin())
        store.trim()
    if not total:
        problem = f"no two of {config.samples} answers differ by {config.min_gap}; no pairs"
        raise InputError(f"pairs.min_gap: {problem}")
    likelihood = measured(config, model.model, model.processor, given) if given else None
    content = report.report(tally, likelihood)
    (out / "report.json").write_text(report.written(content), encoding="utf-8")
    if given:
        say(*report.lines(content))
    metrics = pair_metrics(tally, len(given) + len(asked))
    return metrics | (report.metrics(content) if given else {})


def pair_metrics(tally: report.Tally, rows: int) -> dict[str, float]:
    """How many pairs, of which kinds, how far apart, and how often the rejected one is longer."""
    kinds = {f"pairs_{kind}": float(tally.kinds[kind]) for kind in get_args(Kind)}
    if tally.kinds["other"]:
        kinds["pairs_other"] = float(tally.kinds["other"])
    gap = {"mean_gap": tally.gap / tally.known_scores} if tally.known_scores else {}
    shares = {"yield": tally.pairs / rows, **gap, "rejected_longer": tally.more_words / tally.pairs}
    return {"pairs": float(tally.pairs), **kinds, **shares}
