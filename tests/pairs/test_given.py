"""Anchors of given answers are those that generation reads when the model says the same."""

import pytest
import torch

from adapt.data.schema import Turn
from adapt.generation.answer import Decoding, answer
from adapt.generation.batches import Prompt
from adapt.generation.debias import Debias
from adapt.models.prompts import answer_tokens, end_tokens
from adapt.pairs.given import forced_anchors
from tests.pairs.test_sample import config
from tests.support.anchored import answer_anchors
from tests.support.families import CASES, QUESTIONS, built, mixed
from tests.support.preference_rows import ANCHOR

K = ANCHOR["anchor_tokens"]
HISTORY = (Turn(question="is there a red car?", answer="no"),)


def prompts(name: str) -> list[Prompt]:
    """Of pictures of several sizes and numbers; the last goes on from an earlier turn."""
    pictures = mixed(name)
    histories = [()] * (len(pictures) - 1) + [HISTORY]
    asked = zip(pictures, histories, strict=True)
    return [Prompt(f"row-{i}", one, QUESTIONS[0], before) for i, (one, before) in enumerate(asked)]


@pytest.mark.parametrize("name", CASES)
def test_a_given_answer_has_the_anchor_of_the_same_answer_generated(name):
    model, processor = built(name)
    asked, settings = prompts(name), config()
    debias = Debias(model, processor, QUESTIONS[:1], settings.anchor, settings.seed)
    ids, images, questions, histories, _ = zip(*asked, strict=True)
    decoding = Decoding(
        anchor_tokens=K, max_new_tokens=2 * K, debias=debias, temperature=1.0, seed=3
    )
    said = answer(model, processor, images, questions, decoding, ids, histories)
    assert all(said.texts), "a random model says something"
    expected = answer_anchors(said, K, debias.masks)
    got, layout = forced_anchors(model, processor, asked, said.texts, K, debias)
    assert layout.counts_B.equal(said.layout.counts_B)
    # A random model also says special tokens, which no text has.
    tokens = answer_tokens(processor, said.texts, end_tokens(model, processor))
    lengths = said.mask_BT.sum(1).tolist()
    spoken = zip(said.tokens_BT.tolist(), lengths, tokens, strict=True)
    same = [ids[:length] == again[:-1] for ids, length, again in spoken]
    assert sum(same) >= 2 and same[0], "some are read as they were said"
    torch.testing.assert_close(got[same], expected[same], atol=2e-5, rtol=1e-4)


def test_an_answer_of_fewer_tokens_than_k():
    model, processor = built("llava")
    asked = [*prompts("llava")[:1] * 2]
    both, _ = forced_anchors(model, processor, asked, ["no", "a red car, a blue house"], K, None)
    alone, _ = forced_anchors(model, processor, asked[:1], ["no"], K, None)
    torch.testing.assert_close(both[:1], alone)
    assert not torch.allclose(both[0], both[1])
