"""Every family: the texts of plain `generate`, and nothing that depends on the batch."""

import dataclasses

import pytest
import torch

from adapt.generation.answer import Decoding, answer
from tests.support import families
from tests.support.families import CASES, built, picture

# PaliGemma's processor warns.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NAMES = list(CASES)
DECODING = Decoding(anchor_tokens=3, max_new_tokens=10, similarity=True)


def rows(name):
    """Eight rows: pictures of both sizes in turn, and two questions of different lengths."""
    sizes = list(CASES[name].views)
    pictures = [[picture(sizes[n % len(sizes)], seed=n)] for n in range(8)]
    return pictures, [families.QUESTIONS[n // 2 % 2] for n in range(8)]


IDS = [f"row {n}" for n in range(8)]
SAMPLED = dataclasses.replace(DECODING, temperature=1.5, seed=5)


@pytest.fixture(params=NAMES)
def family(request, monkeypatch):
    """Model and processor, with a list of end tokens at which answers end early and at once."""
    model, processor = built(request.param)
    pictures, questions = rows(request.param)
    # Words that some answers say at once, and others later or never.
    greedy, sampled = (
        answer(model, processor, pictures, questions, decoding, IDS).tokens_BT
        for decoding in (DECODING, SAMPLED)
    )
    ends = [processor.tokenizer.eos_token_id, int(greedy[0, 4]), int(sampled[5, 1])]
    monkeypatch.setattr(model.generation_config, "eos_token_id", ends)
    return model, processor, (pictures, questions)


@pytest.mark.parametrize("decoding", [DECODING, SAMPLED], ids=["greedy", "sampled"])
def test_one_batch_of_eight_equals_eight_of_one(family, decoding):
    model, processor, (pictures, questions) = family
    whole = answer(model, processor, pictures, questions, decoding, IDS)
    lengths, counts = whole.mask_BT.sum(1), whole.layout.counts_B
    if decoding is SAMPLED:
        assert lengths.min() < lengths.max(), "answers of different lengths"
    signals = whole.signals(counts, whole.mask_BT, 3)
    for b in range(8):
        part = pictures[b : b + 1], questions[b : b + 1]
        alone = answer(model, processor, *part, decoding, IDS[b : b + 1])
        n, N = int(lengths[b]), int(counts[b])
        assert alone.texts == [whole.texts[b]]
        assert int(alone.mask_BT.sum()) == n and int(alone.layout.counts_B) == N
        assert torch.equal(alone.tokens_BT[0, :n], whole.tokens_BT[b, :n])
        for name, values in alone.signals(alone.layout.counts_B, alone.mask_BT, 3).items():
            torch.testing.assert_close(values[0, :n], signals[name][b, :n], atol=1e-4, rtol=1e-4)
        close = {"atol": 1e-5, "rtol": 1e-4}
        torch.testing.assert_close(alone.logprob_BT[0, :n], whole.logprob_BT[b, :n], **close)
        torch.testing.assert_close(alone.heat_BTN[0, :n], whole.heat_BTN[b, :n, :N], **close)
        torch.testing.assert_close(alone.anchor_BN[0], whole.anchor_BN[b, :N], **close)
        for field in ("prelim_BTL", "similarity_BTPM"):
            ours, theirs = (getattr(part, field) for part in (alone, whole))
            torch.testing.assert_close(ours[0, :n], theirs[b, :n], atol=1e-5, rtol=1e-4)
        assert not whole.heat_BTN[b, :n, N:].any(), "nothing at padding"


def test_the_texts_are_those_of_plain_generate_on_the_published_prompt(family):
    model, processor, (pictures, questions) = family
    ours = answer(model, processor, pictures, questions, DECODING)
    for b, (images, question) in enumerate(zip(pictures, questions, strict=True)):
        shown = [{"type": "image", "image": image} for image in images]
        turns = [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]
        options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        inputs = processor.apply_chat_template(turns, tokenize=True, **options)
        tokens = model.generate(**inputs, max_new_tokens=10)[0, inputs["input_ids"].shape[1] :]
        ends = model.generation_config.eos_token_id
        said = [token for token in tokens.tolist() if token not in ends]
        assert ours.texts[b] == processor.decode(said, skip_special_tokens=True)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_a_row_do_not_depend_on_its_batch(name):
    model, processor = built(name)
    pictures, questions = rows(name)
    drawn = Decoding(anchor_tokens=2, max_new_tokens=6, samples=2, temperature=1.5, seed=5)
    whole = answer(model, processor, pictures, questions, drawn, IDS)
    assert len({*whole.texts}) > 8, "samples differ"
    for part in ([6], [3, 0, 5]):
        asked = [[values[n] for n in part] for values in (pictures, questions)]
        some = answer(model, processor, *asked, drawn, [IDS[n] for n in part])
        for at, n in enumerate(part):
            pair = slice(2 * n, 2 * n + 2)
            assert some.texts[2 * at : 2 * at + 2] == whole.texts[pair]
            N, T = int(some.layout.counts_B[at]), some.tokens_BT.shape[1]
            first = some.first_BKLN[2 * at : 2 * at + 2, :, :, :N]
            want = whole.first_BKLN[pair, :T, :, :N]
            torch.testing.assert_close(first, want, atol=1e-5, rtol=1e-4)
