"""The token table against the answers it is made from, and curves against means by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapt.attention.signals import visual_mass
from adapt.evaluation.degradation import (
    BINS,
    DRAWN,
    MIN_TOKENS,
    curves,
    relative_curves,
    svar,
    token_table,
)
from adapt.generation.answer import answer
from tests.support import tiny_world

IMAGES = [tiny_world.picture(0), tiny_world.picture(1)]


WORDS = ("a red car, a blue house", "no, there is no car.")


def answers():
    """Attention and probabilities as generated, but with words that one can read: an untrained
    model says nothing.
    """
    said = answer(
        tiny_world.model(),
        tiny_world.processor(),
        IMAGES,
        tiny_world.QUESTIONS,
        anchor_tokens=3,
        max_new_tokens=9,
    )
    tokenizer = tiny_world.processor().tokenizer
    padded = tokenizer(
        [text + tokenizer.eos_token for text in WORDS],
        add_special_tokens=False,
        return_tensors="pt",
        padding="max_length",
        max_length=9,
        padding_side="right",
    )["input_ids"]
    ended = (padded == tokenizer.eos_token_id).cumsum(1) > 0
    return dataclasses.replace(said, texts=list(WORDS), tokens_BT=padded, mask_BT=~ended)


def table(said):
    debias = torch.ones(said.maps_BTLN.shape[-1])
    here, absent = [[(6, 9)], []], [[(18, 23)], [(16, 19)]]
    return token_table(said, debias, 3, ["a", "b"], here, absent, tiny_world.processor().tokenizer)


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


def test_a_row_per_token_with_what_was_recorded():
    said = answers()
    rows = table(said)
    lengths = said.mask_BT.sum(1).tolist()
    assert lengths == [7, 7]
    assert rows.groupby("id").size().reindex(["a", "b"], fill_value=0).tolist() == lengths
    assert not rows.isna().any().any()
    for column, values in (("logprob", said.logprob_BT), ("svar", svar(said.maps_BTLN))):
        want = np.concatenate([values[b, :n].numpy() for b, n in enumerate(lengths)])
        np.testing.assert_allclose(rows[column], want)
    assert rows.logprob.le(0).all()
    for _, part in rows.groupby("id"):
        assert part.relative.iloc[0] == 0 and (len(part) == 1 or part.relative.iloc[-1] == 1)
        assert part.position.tolist() == list(range(len(part)))
    judged = rows[rows.label != "other"]
    assert list(zip(judged["id"], judged["position"], judged["label"], strict=True)) == [
        ("a", 2, "grounded"),
        ("a", 6, "hallucinated"),
        ("b", 5, "hallucinated"),
    ]


@given(st.integers(1, 40))
def test_the_middle_third_has_at_least_one_layer_and_is_in_the_middle(L):
    """The mass of layer l is l: SVAR is the mean of the layers taken, the middle one by symmetry."""
    maps = torch.arange(L, dtype=torch.float)[None, None, :, None] / 2
    assert svar(maps.expand(1, 1, L, 2)).item() == pytest.approx((L - 1) / 2, abs=1e-4)
    assert visual_mass(maps.expand(1, 1, L, 2)).item() == pytest.approx((L - 1) / 2, abs=1e-4)


def test_few_layers_by_hand():
    masses = torch.tensor([0.1, 0.2, 0.3, 0.6, 0.7, 0.8])[None, None, :, None]
    assert svar(masses).item() == pytest.approx(0.45)  # layers 2 and 3 of 6
    assert svar(masses[:, :, :1]).item() == pytest.approx(0.1)


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
