"""One arm's answers against the ground truth: objects in every answer, labels of words, metrics.

Pure over the tables of `adapt/generation/bench.py`: the stage `evaluate`, the promotion and the
comparison of arms all judge here.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapt.data.schema import Example, Vocabulary, read_vocabulary
from adapt.data.tables import read_split
from adapt.evaluation.degradation import LABELS, late_early
from adapt.metrics import chair, pope
from adapt.metrics.mentions import find, first_token, marked
from adapt.metrics.split import FREE, Answered, own_words, same_colours

KNOWN = ("hallucinated", "covered", "truth", "targets", "cog")
"""Columns of judged answers that are empty (None) where nobody knows what is in the picture."""
COLUMNS = (*KNOWN, "objects_mentioned", "marked", "yes", "right")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """One arm: a row per answer, a labelled row per token of the longer answers, and metrics.

    Percentages are 0..100; `length` is the mean number of tokens of the answers to questions of the
    kinds in `FREE`; `fire_rate` the share of decoder layers and tokens after the anchor at which
    steering stepped in.
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
    examples: Iterable[Example],
    vocabulary: Vocabulary | None,
    anchor_tokens: int,
) -> Judged:
    """Judge one arm on one split. `examples` are that split's, `anchor_tokens` is K.

    Where nobody knows what is in a picture, nothing said about it is right or wrong; a metric that
    nothing is known for is absent. Without a vocabulary the split's own names are the words.
    """
    by_id = {example.id: example for example in examples}
    words = vocabulary or Vocabulary(objects=own_words(by_id.values()), colours=())
    rows = responses.reset_index(drop=True)
    pairs = list(zip(rows.id, rows.response, strict=True))
    counts = [_counted(text, by_id[identity], words) for identity, text in pairs]
    columns = [
        _columns(row, text, found, words)
        for (_, text), row, found in zip(pairs, rows.itertuples(), counts, strict=True)
    ]
    answers = pd.concat([rows, pd.DataFrame(columns, rows.index, COLUMNS)], axis=1)
    all_rows = zip(rows.id, counts, rows.kind, strict=True)
    described = {i: found for i, found, kind in all_rows if found and kind == "describe"}
    labelled = _labelled(tokens.reset_index(drop=True), described)
    metrics = _metrics(answers, list(described.values()))
    ratios = late_early(labelled).items()
    metrics |= {f"{name}_late_early": ratio for name, ratio in ratios if math.isfinite(ratio)}
    after_anchor = labelled[labelled.position >= anchor_tokens]
    if rows.steered.any() and len(after_anchor):
        metrics["fire_rate"] = 100 * float(after_anchor.fired.mean())
    return Judged(responses=answers, tokens=labelled, metrics=metrics)


def _counted(text: str, example: Example, words: Vocabulary) -> chair.Counts | None:
    """What an answer says against what is there; None where nobody knows that."""
    return None if example.objects is None else chair.count(text, example, words)


def _columns(row: Any, text: str, counts: chair.Counts | None, words: Vocabulary) -> dict[str, Any]:
    """What an answer says, and whether it is right as far as that is known."""
    # "There is no tree" mentions a tree: nothing counts as hallucinated in an answer to yes or no.
    asked = row.kind == "exists"
    columns: dict[str, Any] = dict.fromkeys(COLUMNS) | {"marked": text}
    columns["objects_mentioned"] = [mention.name for mention in find(text, words.objects)]
    if counts:
        columns |= {
            "hallucinated": [] if asked else counts.hallucinated,
            "covered": counts.covered,
            "truth": list(counts.truth),
            "targets": list(counts.targets),
            "cog": counts.cog,
            "marked": text if asked else marked(text, counts.hallucinated_spans),
        }
    if asked:
        columns["yes"] = pope.parse_yes_no(text)
        columns["right"] = columns["yes"] == pope.parse_yes_no(row.reference)
    if row.kind == "colour" and words.colours:
        columns["right"] = same_colours(text, row.reference, words.colours)
    return columns


def _labelled(tokens: pd.DataFrame, counts: Mapping[str, chair.Counts]) -> pd.DataFrame:
    """The token table with `label`: object words are labelled at their first sub-token."""
    label = np.full(len(tokens), LABELS[0], dtype=object)
    for identity, rows in tokens.groupby("id", sort=False).indices.items():
        if (count := counts.get(str(identity))) is None:
            continue
        ends = tokens["end"].to_numpy()[rows].tolist()
        for mention in count.mentions:
            at = first_token(ends, mention)
            if at < len(rows):
                label[rows[at]] = LABELS[1] if mention.name in count.truth else LABELS[2]
    return tokens.assign(label=label)


def _metrics(answers: pd.DataFrame, described: Sequence[chair.Counts]) -> dict[str, float]:
    exists = answers[answers.kind == "exists"]
    said = exists.yes.astype(bool)
    labels = said == exists.right.astype(bool)
    colour = answers[(answers.kind == "colour") & answers.right.notna()]
    yes_no = list(zip(labels.tolist(), said.tolist(), strict=True))
    metrics = Answered(list(described), yes_no, colour.right.tolist()).metrics()
    if len(free := answers[answers.kind.isin(FREE)]):
        metrics["length"] = float(free.tokens.mean())
    return metrics
