"""All that training may take besides, at once: none of it is in the way of another."""

from itertools import product

import pytest
import torch

from adapt.pairs.table import Pair, PairPlace
from adapt.preference.collate import GUIDED, TOKEN_WEIGHTS, part
from adapt.preference.trainer import Weights
from tests.support.preference_rows import (
    adapt_trainer,
    batch_of,
    changed,
    collator,
    data_of,
    gradients,
    loss_of,
    pairs,
    plain_rows,
    rehearsal,
)

EVERY = Weights(vag=0.3, dpo=1.0, sft=0.5, anchor=0.4, attn=0.2, keep=0.6)
MIX = dict(loss_type=["sigmoid", "bco_pair"], loss_weights=[0.8, 0.2])
PREFIX, CHOSEN, REJECTED = "a red car", "a red car and a green tree.", "a red car and a blue house."


def parted() -> list[Pair]:
    """Pairs that go apart behind their prefix: what decides is known, and where the tree is."""
    place = PairPlace(start=22, end=26, image=0, boxes=((0.0, 0.0, 0.5, 0.5),))
    facts = dict(prefix=PREFIX, chosen=CHOSEN, rejected=REJECTED, places=(place,))
    spans = dict(chosen_spans=((16, 26),), rejected_spans=((16, 26),))
    return [changed(row, **facts, **spans) for row in pairs(4)]


@pytest.mark.parametrize(
    ("form", "target"), [("same_text", "boxes"), ("same_image", "anchor"), ("paper", "early")]
)
def test_a_step_by_passes_has_the_gradients_of_the_whole_loss(base, tmp_path, form, target):
    made = [
        adapt_trainer(
            base,
            tmp_path,
            EVERY,
            data=data_of(parted()),
            form=form,
            attn_target=target,
            span_weight=4.0,
            rehearsal=rehearsal(plain_rows(6)),
            **MIX,
        )
        for _ in range(2)
    ]
    whole, stepped = made
    loss = loss_of(whole)
    loss.backward()
    stepped.current_gradient_accumulation_steps = 1
    again = stepped.training_step(stepped.model, batch_of(stepped))
    torch.testing.assert_close(again, loss.detach(), atol=1e-5, rtol=1e-5)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(
            gradients(stepped)[name], gradient, atol=1e-5, rtol=1e-4, msg=name
        )
    noted = whole._metrics["train"]
    assert {"vag/loss", "anchor/loss", "keep/loss", "attn/loss", "rewards/margins"} < noted.keys()
    assert ("attn/placed" in noted) == (target != "early")


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_guided_rows_of_the_same_text_are_trained_where_plain_ones_are(weight):
    """Their prefix is not, and what decides weighs as much: the chosen answer's, in both halves."""
    batch = collator(form="same_text", span_weight=weight)([*data_of(parted())])
    plain, guided = part(batch, guided=False), part(batch, guided=True)
    names = ["input_ids", "completion_mask"] + ([TOKEN_WEIGHTS] if weight != 1 else [])
    for name, half in product(names, (0, 1)):
        assert guided[name].chunk(2)[half].equal(plain[name].chunk(2)[0]), name
    trained = plain["completion_mask"][0].sum().item()
    assert trained == len(["and", "a", "green", "tree", ".", "</s>"])
    assert (GUIDED + TOKEN_WEIGHTS in batch) == (weight != 1)
    if weight != 1:
        is_answer = plain["completion_mask"][0] > 0
        assert plain[TOKEN_WEIGHTS][0][is_answer].tolist() == [1, 1, 4, 4, 1, 1]


def test_all_of_it_at_0_is_the_plain_loss_to_the_bit(base, tmp_path):
    """Rows that have all the facts, and rows that have none but the same answers."""
    facts = parted()
    bare = [
        changed(row, places=(), chosen_spans=(), rejected_spans=()) for row in facts
    ]  # the prefix is no switch: it says which tokens are trained
    weights = Weights(vag=1.0, dpo=1.0, sft=2.0, attn=0.1)
    first, second = (
        loss_of(adapt_trainer(base, tmp_path, weights, data=data_of(rows)))
        for rows in (facts, bare)
    )
    assert first.equal(second)
