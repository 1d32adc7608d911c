"""One arm's answers against the ground truth: objects in every answer, labels of words, metrics.

Pure over the tables of `adapt/generation/bench.py`: the stage `evaluate`, the promotion and the
comparison of arms all judge here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapt.data.schema import KINDS, Example, Vocabulary, read_vocabulary
from adapt.data.tables import read_split
from adapt.evaluation.degradation import LABELS, late_early
from adapt.metrics import chair, pope
from adapt.metrics.mentions import marked, named


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """One arm: a row per answer, a labelled row per token of the descriptions, and metrics.

    Percentages are 0..100; `length` is the mean number of tokens of a description; `fire_rate` the
    share of decoder layers and tokens after the anchor at which steering stepped in.
    """

    responses: pd.DataFrame
    tokens: pd.DataFrame
    metrics: dict[str, float]


def judge_split(
    responses: pd.DataFrame, tokens: pd.DataFrame, splits: Path, split: str, anchor_tokens: int
) -> Judged:
    """`judge` against the ground truth in the folder `splits`."""
    examples = read_split(splits / f"{split}.parquet")
    vocabulary = read_vocabulary(splits / "vocabulary.json")
    return judge(responses, tokens, examples, vocabulary, anchor_tokens)


def judge(
    responses: pd.DataFrame,
    tokens: pd.DataFrame,
    examples: Sequence[Example],
    vocabulary: Vocabulary,
    anchor_tokens: int,
) -> Judged:
    """Judge one arm on one split. `examples` are that split's, `anchor_tokens` is K."""
    by_id = {example.id: example for example in examples}
    rows = responses.reset_index(drop=True)
    pairs = zip(rows.id, rows.response, strict=True)
    counts = [chair.count(text, by_id[identity], vocabulary) for identity, text in pairs]
    columns = [_columns(*row) for row in zip(rows.kind, rows.response, counts, strict=True)]
    answers = pd.concat([rows, pd.DataFrame(columns)], axis=1)
    all_rows = zip(rows.id, counts, rows.kind, strict=True)
    described = {identity: c for identity, c, kind in all_rows if kind == "describe"}
    labelled = _labelled(tokens.reset_index(drop=True), described)
    metrics = _metrics(answers, list(described.values()), vocabulary)
    metrics |= {f"{signal}_late_early": ratio for signal, ratio in late_early(labelled).items()}
    if rows.steered.any():
        after_anchor = labelled[labelled.position >= anchor_tokens]
        metrics["fire_rate"] = 100 * float(after_anchor.fired.mean())
    return Judged(responses=answers, tokens=labelled, metrics=metrics)


def _columns(kind: str, text: str, counts: chair.Counts) -> dict[str, Any]:
    """What an answer says, against what is there."""
    # "There is no tree" mentions a tree: nothing counts as hallucinated in an answer to yes or no.
    asked = kind == "exists"
    return {
        "objects_mentioned": counts.mentioned,
        "hallucinated": [] if asked else counts.hallucinated,
        "covered": counts.covered,
        "truth": list(counts.truth),
        "targets": list(counts.targets),
        "cog": counts.cog,
        "marked": text if asked else marked(text, counts.hallucinated_spans),
        "yes": pope.parse_yes_no(text) if asked else None,
    }


def _labelled(tokens: pd.DataFrame, counts: Mapping[str, chair.Counts]) -> pd.DataFrame:
    """The token table with `label`: object words are labelled at their first sub-token."""
    label = np.full(len(tokens), LABELS[0], dtype=object)
    for identity, rows in tokens.groupby("id", sort=False).indices.items():
        ends, count = tokens["end"].to_numpy()[rows], counts[str(identity)]
        for mention in count.mentions:
            # The first token that reaches past the word's first letter, to which its space belongs.
            at = int(np.searchsorted(ends, mention.start, side="right"))
            if at < len(rows):
                label[rows[at]] = LABELS[1] if mention.name in count.truth else LABELS[2]
    return tokens.assign(label=label)


def _metrics(
    answers: pd.DataFrame, described: Sequence[chair.Counts], vocabulary: Vocabulary
) -> dict[str, float]:
    describe, exists, colour, _ = (answers[answers.kind == kind] for kind in KINDS)
    metrics = {**chair.aggregate(described), "length": float(describe.tokens.mean())}
    if len(exists):
        labels = [pope.parse_yes_no(text) for text in exists.reference]
        yes_no = pope.aggregate(labels, [bool(yes) for yes in exists.yes])
        metrics |= {f"pope_{key}": value for key, value in yes_no.items()}
    if len(colour):
        pairs = zip(colour.response, colour.reference, strict=True)
        words = vocabulary.colours
        right = sum(named(answer, words) == named(true, words) for answer, true in pairs)
        metrics["colour_accuracy"] = 100 * right / len(colour)
    return metrics
