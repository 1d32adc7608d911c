"""Degradation curves: the signals of many answers by token position, split by grounded and hallucinated words.

The unit is one generated token: a row of the token table. Position counts from 0; an object word is judged at its
first sub-token, with the attention of the step that produced it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from adapt.attention.anchor import visual_anchor
from adapt.attention.decode import Answers, first_maps, token_ends
from adapt.attention.signals import SIGNALS, all_signals

LABELS = ("other", "grounded", "hallucinated")
MIN_TOKENS = 5  # a mean over fewer tokens is noise, not a curve
Z95 = 1.96

Span = tuple[int, int]


def token_table(
    answers: Answers,
    debias_N: Tensor,
    first: int,
    ids: Sequence[str],
    grounded: Sequence[Sequence[Span]],
    hallucinated: Sequence[Sequence[Span]],
    tokenizer: object,
) -> pd.DataFrame:
    """One row per generated token: id, position, length of its answer, label, fired, and every signal.

    Args:
        answers: of one batch, one per id. first: K.
        grounded, hallucinated: character spans of object words in each answer's text.
    """
    anchor_BN = visual_anchor(first_maps(answers, first), answers.grid, debias_N)
    signals = {name: v.numpy() for name, v in all_signals(answers.maps_BTLN.cpu(), anchor_BN.cpu(), first).items()}
    fired_BT = answers.fired_BTL.float().mean(2).cpu().numpy()
    frames = []
    for b, identity in enumerate(ids):
        length = int(answers.mask_BT[b].sum())
        ends = token_ends(tokenizer, answers.tokens_BT[b, :length].tolist())
        label = np.full(length, LABELS[0], dtype=object)
        for name, spans in (("grounded", grounded[b]), ("hallucinated", hallucinated[b])):
            label[[t for t in (_token_at(ends, start) for start, _ in spans) if t is not None]] = name
        columns = {name: values[b, :length] for name, values in signals.items()}
        frames.append(
            pd.DataFrame({"id": identity, "position": np.arange(length), "length": length, "label": label,
                          "fired": fired_BT[b, :length], **columns})
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _token_at(ends: Sequence[int], start: int) -> int | None:
    """The first token whose text reaches past character `start`; a leading space belongs to its token."""
    return next((t for t, end in enumerate(ends) if end > start), None)


def curves(tokens: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Mean and 95 % band (normal approximation) of each signal by position: all, grounded and hallucinated tokens."""
    splits = {"all": tokens, **{name: tokens[tokens.label == name] for name in LABELS[1:]}}
    parts = []
    for split, part in splits.items():
        for signal in SIGNALS:
            seen = part.groupby("position")[signal].agg(["mean", "std", "count"])
            seen = seen[seen["count"] >= MIN_TOKENS]
            half = Z95 * seen["std"] / np.sqrt(seen["count"])
            parts.append(
                pd.DataFrame({"arm": arm, "signal": signal, "split": split, "position": seen.index,
                              "mean": seen["mean"], "low": seen["mean"] - half, "high": seen["mean"] + half,
                              "n": seen["count"]})
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def late_early(tokens: pd.DataFrame) -> dict[str, float]:
    """Each signal's mean over the last third of the answers' tokens, over its mean in the first third.

    Answers of fewer than three tokens are left out. Below 1 a signal decays (drift: above 1).

    >>> tokens = pd.DataFrame({"position": [0, 1, 2], "length": 3, **{name: [4.0, 9.0, 2.0] for name in SIGNALS}})
    >>> late_early(tokens)["mass"]
    0.5
    """
    third = tokens["length"] // 3
    early, late = tokens[tokens.position < third], tokens[(tokens.position >= tokens.length - third) & (third > 0)]
    return {name: float(late[name].mean() / early[name].mean()) for name in SIGNALS}
