"""The pairs stage: which rows, what is known of them, what is worked out, and the file.

Rows are looked at twice: for their keys (`adapt/pairs/kept.py`), and when the file is written.
In between only those are worked out that are not known. No more rows than a batch are in memory.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from adapt.cluster.fan import crew
from adapt.data.schema import read_vocabulary
from adapt.environment import state_dir
from adapt.pairs import report
from adapt.pairs.annotate import Reason
from adapt.pairs.filters import active
from adapt.pairs.kept import kept
from adapt.pairs.likelihood import Likelihood
from adapt.pairs.plain import NAME, described, plain_rows, write_plain
from adapt.pairs.selected import asked_rows, decided, given_rows, say
from adapt.pairs.settings import Kind, PairsConfig
from adapt.pairs.table import write_pairs
from adapt.pairs.work import Loaded, Work
from adapt.params import InputError
from adapt.progress import Log


def make_pairs(
    config: PairsConfig, splits: Path, base: Path, out: Path, log: Log
) -> dict[str, float]:
    """Write pairs, plain rows and `report.json` into `out`; returns the stage's metrics."""
    train, state = splits / "train.parquet", state_dir(splits.parents[2])
    vocabulary = read_vocabulary(splits / "vocabulary.json")
    source = decided(config, train)
    given = given_rows(config, train) if source in ("given", "both") else []
    is_asked = source in ("sample", "both")
    asked, skipped = asked_rows(config, train, vocabulary) if is_asked else ([], [])
    # Pictures of other rounds are no newer to training than those of this one.
    paired = (row.image_id for rows in (given, asked) for row in rows)
    plain = plain_rows(config, train, [*paired, *skipped])
    write_plain(out / NAME, plain)
    with crew(config.actors, config.actor_cpus, config.device, "pairs") as others:
        model = Loaded.of(config, base, state / "debias", others)
        works = [model.given(given, vocabulary)] if given else []
        works += [model.sampled(asked, vocabulary, also_given=bool(given))] if asked else []
        tally, likelihood = _worked(model, works, state / "pairs", out, log, given)
    content = report.report(tally, likelihood) | described(config, plain)
    (out / "report.json").write_text(report.written(content), encoding="utf-8")
    if given or config.unit == "continuation" or active(config):
        say(*report.lines(content))
    metrics = pair_metrics(tally, len(given) + len(asked))
    metrics |= {"keep_rows": float(len(plain))} if plain else {}
    return metrics | (report.metrics(content) if given else {})


def _worked(
    model: Loaded, works: Sequence[Work], state: Path, out: Path, log: Log, given: Sequence[Any]
) -> tuple[report.Tally, Likelihood | None]:
    """Work everything out that is not known, and write the pairs; what is to be told of them."""
    tally = report.Tally(model.tokens, model.inside)
    with kept(state) as store:
        keys = [work.do(store, log) for work in works]
        made = (work.pairs(store, own, tally.left) for work, own in zip(works, keys, strict=True))
        pairs = itertools.chain.from_iterable(made)
        total = write_pairs(out / "pairs.parquet", tally.passing(pairs), model.origin())
        store.trim()
    if not total:
        raise InputError(_nothing(model.config, tally.left))
    return tally, model.likelihood(given) if given else None


def pair_metrics(tally: report.Tally, rows: int) -> dict[str, float]:
    """How many pairs, of which kinds, how far apart, and how often the rejected one is longer.

    Of each side, the share of tokens that decide, where the tokenizer tells; the share of pairs
    whose chosen answer names a thing whose box is known; how many rows have no pair, by the key
    that took them; and what the answers share, where they do.
    """
    kinds = {f"pairs_{kind}": float(tally.kinds[kind]) for kind in get_args(Kind)}
    if tally.kinds["other"]:
        kinds["pairs_other"] = float(tally.kinds["other"])
    gap = {"mean_gap": tally.gap / tally.known_scores} if tally.known_scores else {}
    shares = {"yield": tally.pairs / rows, **gap, "rejected_longer": tally.more_words / tally.pairs}
    shares["more_tokens"] = tally.more_tokens / tally.pairs
    if tally.begun:
        shares["begun"] = tally.begun / tally.pairs
        shares["begun_tokens"] = tally.begun_tokens / tally.pairs
    shares |= {**tally.inside(), "placed": tally.placed_pairs / tally.pairs}
    left = {f"left_{reason}": float(count) for reason, count in sorted(tally.left.items())}
    return {"pairs": float(tally.pairs), **kinds, **shares, **left}


def _nothing(config: PairsConfig, left: Mapping[Reason, int]) -> str:
    """Why there are no pairs, by the key that took the most rows."""
    reason = max(left, key=lambda reason: left[reason])
    problems: dict[Reason, str] = {
        "min_gap": f"no two of {config.samples} answers differ by {config.min_gap}",
        "chosen": f"each of {config.samples} answers makes something up; set it to any",
        "unit": "no answer makes anything up, so that none goes on from there; set it to answer",
        "repeats": "answers say something twice; set it to keep",
        "min_best": f"no better answer reaches a score of {config.min_best}; lower it",
        "likelihood": "no two answers are both inside; widen it, or set it to any",
    }
    return f"pairs.{reason}: {problems[reason]}; no pairs"
