"""Curves of a token table against means by hand."""

import numpy as np
import pandas as pd

from adapt.evaluation.degradation import BINS, DRAWN, MIN_TOKENS, curves, relative_curves


def tokens(lengths, value=lambda t: t):
    """Answers of these lengths; everything that has a curve is `value(position)`."""
    frames = []
    for n, length in enumerate(lengths):
        t = np.arange(length)
        columns = {
            "position": t,
            "relative": t / max(length - 1, 1),
            "label": np.where(t % 2, "grounded", "other"),
        }
        frames.append(
            pd.DataFrame({"id": str(n), **columns, **dict.fromkeys(DRAWN, value(t).astype(float))})
        )
    return pd.concat(frames, ignore_index=True)


def test_bands_by_position():
    rows = pd.concat([tokens([4] * 5), tokens([6] * 4)], ignore_index=True)
    rows.loc[rows.position == 1, "mass"] = [0.0, 2.0, 1.0] * 3
    found = curves(rows, "base").query("signal == 'mass' and split == 'all'")
    assert found["position"].tolist() == [0, 1, 2, 3], (
        f"positions 4 and 5 have fewer than {MIN_TOKENS} tokens"
    )
    assert found["n"].tolist() == [9] * 4
    half = 1.96 * np.std([0, 2, 1] * 3, ddof=1) / 3
    np.testing.assert_allclose(
        found.loc[found.position == 1, ["mean", "low", "high"]], [[1, 1 - half, 1 + half]]
    )
    assert set(curves(rows, "base").query("split == 'grounded'")["position"]) == {1, 3}
    assert curves(rows, "base").query("split == 'hallucinated'").empty


def test_relative_position_aligns_answers_of_all_lengths():
    """A signal that falls from 1 to 0 over each answer is one line, whatever the lengths."""
    rows = pd.concat([tokens([n], lambda t: 1 - t / t.max()).assign(id=n) for n in range(21, 41)])
    found = relative_curves(rows, "base").query("signal == 'mass' and split == 'all'")
    np.testing.assert_allclose(found["position"], (np.arange(BINS) + 0.5) / BINS)
    np.testing.assert_allclose(found["mean"], 1 - found["position"], atol=0.03)
    assert found["n"].tolist() == [20] * BINS, "an answer counts once a bin"


def test_answers_without_words_have_no_curves():
    empty = tokens([3]).iloc[:0]
    assert curves(empty, "base").empty and relative_curves(empty, "base").empty
