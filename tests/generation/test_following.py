"""Answers followed token by token: what is heard on the way is what is there at the end."""

import pytest
import torch

from adapt.attention import trace
from adapt.generation.answer import Decoding, answer
from adapt.generation.following import Heard, Ruling
from adapt.generation.settings import SteerConfig
from tests.support import tiny_world

IMAGES = [[tiny_world.picture(n)] for n in range(4)]
QUESTIONS = (tiny_world.QUESTIONS * 4)[:4]
STEER = SteerConfig(alpha=0.8, tau=2.0, trigger="mass", anchor_share=0.1, layers="all")


def followed(hear, K=3, images=IMAGES, **options):
    how = {name: options.pop(name) for name in ("steer", "waits") if name in options}
    decoding = Decoding(anchor_tokens=K, max_new_tokens=12, **how)
    model, processor = tiny_world.model(), tiny_world.processor()
    rows = images, QUESTIONS[: len(images)]
    return answer(model, processor, *rows, decoding, hear=hear, **options)


def plain(**options):
    return followed(None, **options)


@pytest.mark.parametrize("steer", [None, STEER])
@pytest.mark.parametrize("K", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("longest", [None, [1, 2, 7, 12], [1, 1, 1, 1]])
def test_what_is_heard_equals_what_is_read_afterwards(K, longest, steer):
    heard: list[Heard] = []

    def hear(one: Heard) -> Ruling:
        heard.append(one)
        return Ruling()

    answers = followed(hear, K=K, longest=longest, steer=steer)
    alone = plain(K=K, longest=longest, steer=steer)
    # 1. Following changes nothing.
    assert answers.texts == alone.texts
    T = heard[-1].start + heard[-1].tokens_BT.shape[1]
    assert torch.equal(alone.mask_BT[:, :T], answers.mask_BT[:, :T])
    assert not alone.mask_BT[:, T:].any()
    # 2. Steps come once and in order.
    assert [one.start for one in heard] == [
        sum(before.tokens_BT.shape[1] for before in heard[:n]) for n in range(len(heard))
    ]
    # 3. All that is heard of a token is what is read when all is over.
    said_BT = torch.cat([one.said_BT for one in heard], 1)
    assert torch.equal(said_BT, alone.mask_BT[:, :T])
    expected = alone.signals(alone.layout.counts_B, alone.mask_BT, K)
    expected |= {"logprob": alone.logprob_BT, "fired": alone.fired_BTL.float().mean(2)}
    for name, value_BT in expected.items():
        fields = {"logprob": "logprob_BT", "fired": "fired_BT"}
        parts = [
            getattr(one, fields[name]) if name in fields else one.signals[name] for one in heard
        ]
        got_BT = torch.cat(parts, 1)
        assert torch.allclose(got_BT[said_BT], value_BT[:, :T][said_BT], atol=1e-6), name


def test_an_answer_can_be_ended(monkeypatch):
    monkeypatch.setattr(trace, "IN_FLIGHT", 1)  # heard at every step

    def hear(one: Heard) -> Ruling:
        ends = [one.start + one.tokens_BT.shape[1] >= 4, False, False, False]
        return Ruling(ends=ends)

    answers, alone = followed(hear), plain()
    assert answers.mask_BT[0].sum() == 4 < alone.mask_BT[0].sum()
    assert answers.texts[1:] == alone.texts[1:]
    assert alone.texts[0].startswith(answers.texts[0])


@pytest.mark.parametrize("K", [1, 3])
def test_steering_waits_until_it_is_allowed(K):
    def never(one: Heard) -> Ruling:
        return Ruling(steered=[False] * 4)

    def first_row(one: Heard) -> Ruling:
        return Ruling(steered=[True, False, False, False])

    assert plain(K=K, steer=STEER).fired_BTL[:, 4:].any(2).any(1).all()
    assert not followed(never, K=K, steer=STEER, waits=True).fired_BTL.any()
    fired = followed(first_row, K=K, steer=STEER, waits=True).fired_BTL.any(2).any(1)
    assert fired.tolist() == [True, False, False, False]
