"""An answer that goes on from its own beginning is the same answer, in every family."""

import contextlib
import dataclasses

import pytest
import torch

from adapt.generation.answer import Decoding, answer
from adapt.generation.batches import Prompt, answered, fitting
from adapt.generation.begun import beginning_tokens, behind
from adapt.models.prompts import encode, place_of
from adapt.params import InputError
from tests.support import tiny_world
from tests.support.families import ANSWER, CASES, QUESTIONS, built, mixed

# PaliGemma's processor warns.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
GREEDY = Decoding(anchor_tokens=2, max_new_tokens=14)
# Of different lengths, and none.
BEGINNINGS = [" ".join(ANSWER.split()[:n]) for n in (3, 0, 5, 1)]


def rows(name: str) -> tuple[list, list[str], list[str]]:
    """Pictures of three sizes, two in one prompt; two questions; a beginning for each."""
    pictures = mixed(name)
    return pictures, [QUESTIONS[i % 2] for i in range(len(pictures))], BEGINNINGS[: len(pictures)]


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_generate_says_behind_prompt_and_beginning(name):
    model, processor = built(name)
    pictures, questions, beginnings = rows(name)
    whole = answer(model, processor, pictures, questions, GREEDY, beginnings=beginnings)
    tokens = beginning_tokens(model, processor, beginnings)
    for b, begun in enumerate(tokens):
        prompt = encode(processor, [pictures[b]], [questions[b]])
        inputs = behind(processor, prompt, [begun]).to(*place_of(model))
        start, rest = inputs["input_ids"].shape[1], GREEDY.max_new_tokens - len(begun)
        assert inputs["input_ids"][0, start - len(begun) :].tolist() == begun
        own = model.generate(**inputs, max_new_tokens=rest, do_sample=False)[0, start:]
        n = int(whole.mask_BT[b].sum())
        assert n <= rest and whole.tokens_BT[b, :n].equal(own[:n])
        assert whole.texts[b] == processor.decode([*begun, *own[:n]], skip_special_tokens=True)


@pytest.mark.parametrize("name", CASES)
def test_an_answer_goes_on_from_its_own_beginning_to_its_own_end(name, monkeypatch):
    """Cut anywhere, the rest is what was said before, with the probabilities it had."""
    model, processor = built(name)
    # A random model also says what no text becomes; this one keeps to the words of a sentence.
    words = {*processor.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]}
    size = model.config.get_text_config().vocab_size
    mute = [token for token in range(size) if token not in words]
    monkeypatch.setattr(model.generation_config, "suppress_tokens", mute)
    pictures, questions, _ = rows(name)
    first = answer(model, processor, pictures, questions, GREEDY)
    spoken = first.mask_BT.sum(1).tolist()
    said = [row[:n] for row, n in zip(first.tokens_BT.tolist(), spoken, strict=True)]
    # The longest beginning that is read as it was said, of another length at most in every row.
    cuts = [readable(model, processor, row[: 3 + b]) for b, row in enumerate(said)]
    tokens = beginning_tokens(model, processor, cuts)
    assert sum(map(bool, tokens)) >= 2, "some go on"
    again = answer(model, processor, pictures, questions, GREEDY, beginnings=cuts)
    assert again.texts == first.texts
    for b, row in enumerate(said):
        k = len(tokens[b])
        n = len(row) - k
        assert again.tokens_BT[b, :n].tolist() == row[k:] and int(again.mask_BT[b].sum()) == n
        expected = first.logprob_BT[b, k : len(row)]
        torch.testing.assert_close(again.logprob_BT[b, :n], expected, atol=1e-5, rtol=1e-4)
        N = int(first.layout.counts_B[b])
        heat, want = again.heat_BTN[b, :n, :N], first.heat_BTN[b, k : len(row), :N]
        torch.testing.assert_close(heat, want, atol=1e-5, rtol=1e-4)


def readable(model, processor, row: list[int]) -> str:
    """The longest beginning of an answer whose text becomes the same tokens again, or ""."""
    for k in range(len(row), 0, -1):
        text = processor.decode(row[:k])
        with contextlib.suppress(InputError):  # a special token
            if beginning_tokens(model, processor, [text]) == [row[:k]]:
                return text
    return ""


def test_samples_go_on_apart_and_no_row_depends_on_its_batch():
    model, processor = built("qwen2_5_vl")
    pictures, questions, beginnings = rows("qwen2_5_vl")
    drawn = dataclasses.replace(GREEDY, samples=3, temperature=1.5, seed=5)
    ids = [f"row {n}" for n in range(4)]
    whole = answer(model, processor, pictures, questions, drawn, ids, None, beginnings)
    assert len({*whole.texts}) > 8, "samples differ"
    for b, begun in enumerate(beginnings):
        one = ([values[b]] for values in (pictures, questions))
        alone = answer(model, processor, *one, drawn, ids[b : b + 1], None, [begun])
        assert alone.texts == whole.texts[3 * b : 3 * b + 3]
        assert all(text.startswith(begun) for text in alone.texts)
    # Nothing to go on from is no other way of asking.
    plain = answer(model, processor, pictures, questions, drawn, ids)
    none = answer(model, processor, pictures, questions, drawn, ids, None, [""] * 4)
    assert none.tokens_BT.equal(plain.tokens_BT) and none.texts == plain.texts
    assert plain.texts[3:6] == whole.texts[3:6], "the second row has no beginning"


def test_a_beginning_counts_in_the_length_and_in_the_memory():
    model, processor = tiny_world.model(), tiny_world.processor()
    rows = [Prompt("a", [tiny_world.picture(0)], tiny_world.QUESTIONS[0], (), "a red car,")]
    decoding = Decoding(anchor_tokens=1, max_new_tokens=6, samples=2, temperature=1.0)
    ((_, said),) = answered(model, processor, rows, decoding, 1, lambda row: row)
    assert said.mask_BT.sum(1).max() <= 2, "four are there"
    assert all(text.startswith("a red car,") for text in said.texts)
    assert fitting(model, processor, rows, decoding) >= 1


def test_a_beginning_with_a_special_token():
    with pytest.raises(InputError, match="</s>, a special token"):
        beginning_tokens(tiny_world.model(), tiny_world.processor(), ["a </s>"])
