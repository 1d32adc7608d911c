"""Log-probabilities of given answers are the model's; the report compares them with its own."""

import dataclasses

import pytest
import torch

from adapt.data.schema import Preference
from adapt.generation.answer import Decoding
from adapt.generation.batches import answered, prompt_of
from adapt.pairs.likelihood import Likelihood, measured, token_log_probs
from tests.support import tiny_world
from tests.support.families import CASES, QUESTIONS, built
from tests.support.preferences import config, preference


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "paligemma"])
def test_they_are_those_of_a_whole_pass(name):
    model, processor = built(name)
    row = preference(0, question=QUESTIONS[0], chosen="a red car, a blue house.")
    got = token_log_probs(model, processor, prompt_of(row), row.chosen)
    tokens = processor.tokenizer(row.chosen, add_special_tokens=False).input_ids
    assert len(got) == len(tokens) and CASES[name]
    # The first alone and in the whole answer: a token does not see what comes after it.
    first = processor.tokenizer.decode(tokens[:1])
    torch.testing.assert_close(
        token_log_probs(model, processor, prompt_of(row), first), got[:1], atol=1e-5, rtol=1e-4
    )


def spoken(seed: int) -> list[tuple[Preference, torch.Tensor]]:
    """Rows whose chosen answers the model has drawn, and the log-probabilities of their tokens.

    Without those in which it drew a special token, which no text has.
    """
    model, processor = tiny_world.model(), tiny_world.processor()
    rows = [preference(i) for i in range(40)]
    decoding = Decoding(anchor_tokens=1, max_new_tokens=3, temperature=1.0, seed=seed)
    ((_, said),) = answered(model, processor, rows, decoding, 40, prompt_of)
    lengths, found = said.mask_BT.sum(1).tolist(), []
    for row, text, tokens_T, logprob_T, n in zip(
        rows, said.texts, said.tokens_BT.tolist(), said.logprob_BT, lengths, strict=True
    ):
        again = processor.tokenizer(text, add_special_tokens=False).input_ids
        if n and again == tokens_T[:n]:
            found.append((dataclasses.replace(row, chosen=text), logprob_T[:n]))
    assert len(found) > 3
    return found


def test_an_answer_of_the_models_own_is_as_likely_as_when_it_was_said():
    model, processor = tiny_world.model(), tiny_world.processor()
    for row, logprob_T in spoken(seed=3):
        got = token_log_probs(model, processor, prompt_of(row), row.chosen)
        torch.testing.assert_close(got, logprob_T, atol=1e-4, rtol=1e-4)


def test_what_a_model_says_itself_is_not_off_policy():
    model, processor = tiny_world.model(), tiny_world.processor()
    own = [row for row, _ in spoken(seed=9)]
    given = [preference(int(row.image_id)) for row in own]
    far, near = (measured(config(), model, processor, rows) for rows in (given, own))
    assert far.rows == near.rows == len(own) and near.own == far.own
    assert near.own - near.chosen < 2 < far.own - far.chosen and far.warning()


def test_the_warning_begins_at_e_times():
    figures = {"rejected": -3.0, "own": -1.0, "rows": 5, "own_rows": 2}
    assert not Likelihood(chosen=-1.9, **figures).warning()
    assert "7.39 times less likely" in Likelihood(chosen=-3.0, **figures).warning()
    assert (
        "chosen answers -3.00, rejected ones -3.00" in Likelihood(chosen=-3, **figures).sentence()
    )
