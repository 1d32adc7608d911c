"""Degradation curves: signals by token position, split by grounded and hallucinated words.

The unit is one generated token: a row of the token table (`adapt/generation/bench.py`). Position
counts from 0, relative position runs from 0 (the first token of an answer) to 1 (its last); an
object word is judged at its first sub-token, with the attention of the step that produced it.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from adapt.attention.settings import SIGNALS

LABELS = ("other", "grounded", "hallucinated")
MIN_TOKENS = 5  # a mean over fewer tokens is noise, not a curve
Z95 = 1.96
BINS = 10  # of relative position
DRAWN = (*SIGNALS, "fired")
"""What has a curve: the signals, and the share of layers at which steering stepped in."""


def curves(tokens: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Mean and 95 % band (normal approximation) of what is `DRAWN`, by position and split.

    Columns arm, signal, split (all, grounded, hallucinated), position, mean, low, high, n;
    positions with fewer than five tokens are left out.
    """
    return _bands(_splits(tokens), arm)


def relative_curves(tokens: pd.DataFrame, arm: str) -> pd.DataFrame:
    """`curves` by relative position, in the middles of ten bins; an answer counts once in each.

    >>> tokens = pd.DataFrame({"relative": [0.0, 0.04, 1.0], **dict.fromkeys(DRAWN, 0.5)})
    >>> tokens = pd.concat([tokens.assign(id=name, label="other") for name in "abcde"])
    >>> mass = relative_curves(tokens, "base").query("signal == 'mass'")
    >>> mass[["split", "position", "mean", "n"]].values.tolist()
    [['all', 0.05, 0.5, 5], ['all', 0.95, 0.5, 5]]
    """
    return _bands({split: _once_a_bin(part) for split, part in _splits(tokens).items()}, arm)


def _splits(tokens: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"all": tokens, **{name: tokens[tokens.label == name] for name in LABELS[1:]}}


def _once_a_bin(tokens: pd.DataFrame) -> pd.DataFrame:
    bin_ = np.minimum((tokens["relative"] * BINS).astype(int), BINS - 1)
    binned = tokens.assign(position=((bin_ + 0.5) / BINS).round(6))
    return binned.groupby(["id", "position"], as_index=False)[list(DRAWN)].mean()


def _bands(splits: Mapping[str, pd.DataFrame], arm: str) -> pd.DataFrame:
    parts = []
    for split, part in splits.items():
        for signal in DRAWN:
            at = part.groupby("position")[signal].agg(["mean", "std", "count"])
            at = at[at["count"] >= MIN_TOKENS]
            mean, half = at["mean"], Z95 * at["std"] / np.sqrt(at["count"])
            names = {"arm": arm, "signal": signal, "split": split, "position": at.index}
            band = {"mean": mean, "low": mean - half, "high": mean + half, "n": at["count"]}
            parts.append(pd.DataFrame(names | band))
    return pd.concat(parts, ignore_index=True)


def late_early(tokens: pd.DataFrame) -> dict[str, float]:
    """Each signal's mean over the last third of the answers' tokens, over that of the first third.

    Answers of fewer than three tokens are left out. Below 1 a signal decays (drift: above 1).

    >>> values = {name: [4.0, 9.0, 2.0] for name in SIGNALS}
    >>> tokens = pd.DataFrame({"position": [0, 1, 2], "length": 3, **values})
    >>> late_early(tokens)["mass"]
    0.5
    """
    third = tokens["length"] // 3
    early = tokens[tokens.position < third]
    late = tokens[(tokens.position >= tokens.length - third) & (third > 0)]
    return {name: float(late[name].mean() / early[name].mean()) for name in SIGNALS}
