"""The probability of each chosen token, against a second pass over the finished answer."""

import pytest
import torch

from adapt.generation import confidence
from adapt.generation.answer import Decoding, answer
from adapt.models.prompts import prompt_inputs
from tests.support import tiny_world

IMAGES = [[tiny_world.picture(0)], [tiny_world.picture(1)]]


@pytest.mark.parametrize("temperature, repeats", [(0.0, 1), (0.7, 2), (2.0, 2)])
def test_equal_to_a_pass_over_the_whole_answer(temperature, repeats):
    """Also with sampling it is the model's own, before temperature; rows end at different steps."""
    model, processor = tiny_world.model(), tiny_world.processor()
    # An untrained model would say that there is another image.
    never = sorted({*processor.tokenizer.all_special_ids} - {processor.tokenizer.eos_token_id})
    model.generation_config.suppress_tokens = never
    decoding = Decoding(
        anchor_tokens=3, max_new_tokens=10, samples=repeats, temperature=temperature
    )
    answers = answer(model, processor, IMAGES, tiny_world.QUESTIONS, decoding)
    inputs = prompt_inputs(model, processor, IMAGES, tiny_world.QUESTIONS)
    inputs = {key: value.repeat_interleave(repeats, 0) for key, value in inputs.items()}
    length = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answers.tokens_BT], 1)
    inputs["attention_mask"] = torch.cat(
        [inputs["attention_mask"], torch.ones_like(answers.tokens_BT)], 1
    )
    with torch.no_grad():
        logits = model(**inputs).logits[:, length - 1 : -1]
    logits[:, :, never] = -torch.inf
    want = logits.log_softmax(-1).gather(2, answers.tokens_BT[:, :, None])[:, :, 0]
    assert answers.logprob_BT.shape == answers.tokens_BT.shape
    torch.testing.assert_close(
        answers.logprob_BT[answers.mask_BT], want[answers.mask_BT], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kept", [0, 20, 30, 1000])
def test_scores_pass_through_unchanged_and_few_are_kept(kept, monkeypatch):
    monkeypatch.setattr(confidence, "KEPT", kept)
    asked, scores = confidence.Confidence(), torch.randn(6, 2, 5)
    tokens = torch.randint(5, (2, 6))
    sequences = torch.cat([torch.ones(2, 3, dtype=torch.long), tokens], 1)
    parts = []
    for step in range(6):
        given = scores[step]
        assert asked(sequences[:, : 3 + step], given) is given
        assert len(asked._waiting) <= max(1, kept // 10)
        if step in (2, 3):
            parts.append(asked.logprobs(sequences[:, : 4 + step], since=[0, 3][step == 3]))
    want = scores.log_softmax(2).gather(2, tokens.T[:, :, None])[:, :, 0].T
    torch.testing.assert_close(asked.logprobs(sequences), want)
    torch.testing.assert_close(torch.cat(parts, 1), want[:, :4])
    asked(sequences, scores[0])
    torch.testing.assert_close(asked.logprobs(sequences), want)  # a device ran a step further
