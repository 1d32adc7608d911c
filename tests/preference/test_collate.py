"""What a batch holds: the tokens that a model sees when it answers, and pictures, once."""

import numpy as np
import pytest
import torch

from adapt.data.pictures import open_picture
from adapt.data.schema import Turn
from adapt.models.prompts import encode
from adapt.params import InputError
from adapt.preference.collate import ANCHOR, FLAT, GUIDED, IDS, chosen_half, part
from adapt.preference.guide import enhanced, noise_injected
from adapt.preference.prefix import cannot_share, twice
from tests.support import tiny_world
from tests.support.preference_rows import collator, rows, support


def test_an_answer_follows_its_prompt_and_ends_with_one_end_token():
    made, processor = rows()[:2], tiny_world.processor()
    batch, tokenizer = collator()(made), processor.tokenizer
    pictures = [[open_picture(row["images"][0])] for row in made]
    for i, (side, row) in enumerate((s, r) for s in ("chosen", "rejected") for r in made):
        prompt = encode(processor, [pictures[i % 2]], [row["question"]])["input_ids"][0].tolist()
        answer = tokenizer(row[side], add_special_tokens=False).input_ids
        expected = [*prompt, *answer, tokenizer.eos_token_id]
        length = len(expected)
        assert batch["input_ids"][i, :length].tolist() == expected
        assert batch["input_ids"][i, length:].eq(tokenizer.pad_token_id).all()
        assert batch["attention_mask"][i].nonzero().flatten().tolist() == [*range(length)]
        answered = batch["completion_mask"][i].nonzero().flatten().tolist()
        assert answered == [*range(len(prompt), length)]


def test_pictures_are_there_once_and_guided_ones_for_both_answers():
    made, processor = rows()[:2], tiny_world.processor()
    batch = collator()(made)
    v = [open_picture(row["images"][0]) for row in made]
    maps = [np.frombuffer(row["support"][0], np.uint8).reshape(32, 32) for row in made]
    guided = [enhanced(*one) for one in zip(v, maps, strict=True)]
    guided += [noise_injected(one, 0.3, row["id"]) for one, row in zip(v, made, strict=True)]
    for name, pictures in (("pixel_values", v), (f"{GUIDED}pixel_values", guided)):
        expected = encode(processor, [[p] for p in pictures], [""] * len(pictures))["pixel_values"]
        assert batch[name].equal(expected)
    assert not part(batch, guided=True).keys() ^ part(batch, guided=False).keys()
    assert part(batch, guided=True)["pixel_values"].equal(batch[f"{GUIDED}pixel_values"])
    assert GUIDED not in "".join(collator(guide=False)(made))


@pytest.mark.parametrize("form", ["same_text", "same_image"])
def test_the_halves_of_guided_rows_in_other_forms(form):
    """Against prompts, pictures and answers put together by hand; lengths of the answers differ."""
    made, processor = rows()[:2], tiny_world.processor()
    made[1]["rejected"] = made[1]["rejected"] + " and much more than that"
    batch = collator(form=form)(made)
    clear = [open_picture(row["images"][0]) for row in made]
    noisy = [noise_injected(one, 0.3, row["id"]) for one, row in zip(clear, made, strict=True)]
    pictures = (clear if form == "same_text" else noisy) + noisy
    expected = encode(processor, [[p] for p in pictures], [""] * 4)["pixel_values"]
    guided = part(batch, guided=True)
    assert guided["pixel_values"].equal(expected)
    second = "chosen" if form == "same_text" else "rejected"
    texts = [row[side] for side in ("chosen", second) for row in made]
    for row, text in enumerate(texts):
        answer = guided["input_ids"][row][guided["completion_mask"][row] > 0][:-1]
        assert answer.tolist() == processor.tokenizer(text, add_special_tokens=False).input_ids
    # What plain rows have is not touched.
    plain, alone = part(batch, guided=False), part(collator(guide=False)(made), guided=False)
    assert all(plain[name].equal(alone[name]) for name in alone)


def test_guided_rows_of_a_rejected_answer_with_pictures_of_its_own():
    """The same text keeps its own picture; under the same noise each answer keeps its own."""
    made = rows()[:2]
    made[0]["rejected_images"] = made[1]["images"]
    own, other = (open_picture(row["images"][0]) for row in made)
    noisy = {
        name: noise_injected(one, 0.3, "row-0") for name, one in (("own", own), ("other", other))
    }
    for form, seen in (("same_text", noisy["own"]), ("same_image", noisy["other"])):
        guided = part(collator(form=form)(made), guided=True)
        expected = encode(tiny_world.processor(), [[seen]], [""])["pixel_values"][0]
        assert guided["pixel_values"][2].equal(expected)
        assert not any(name.startswith("apart_") for name in guided)


def test_guided_pictures_depend_on_the_row_alone():
    both, second = collator()(rows()[:2]), collator()(rows()[1:2])
    guided = f"{GUIDED}pixel_values"
    torch.testing.assert_close(both[guided][[1, 3]], second[guided])
    assert not both[guided][:2].equal(both["pixel_values"])


def test_anchors_of_different_lengths_and_flat_maps():
    one, two, three = rows()[:3]
    two["anchor"], three["support"] = [0.5, 0.5], [bytes([255]) * len(support(0))]
    batch = collator()([one, two, three])
    assert batch[ANCHOR].shape == (3, 16) and batch[ANCHOR][1, 2:].eq(0).all()
    assert batch[FLAT].tolist() == [False, False, True]
    assert batch[IDS] == ["row-0", "row-1", "row-2"]


def test_the_chosen_half_has_all_pictures():
    half = chosen_half(part(collator()(rows()), guided=False))
    assert {len(value) for value in half.values()} == {4}


def test_a_rejected_answer_with_pictures_of_its_own():
    made, processor = rows()[:3], tiny_world.processor()
    other, turns = made[0]["images"], (Turn(question="is it red?", answer="no"),)
    made[1] |= {"rejected_images": other, "history": turns}
    batch, plain = collator()(made), collator()(rows()[:3])
    # 1. The chosen pictures as ever; beside them those of both answers, for rows apart.
    assert batch["pixel_values"].equal(plain["pixel_values"])
    first, second, third = batch["pixel_values"]
    assert batch["apart_pixel_values"].equal(
        torch.stack([first, second, third, first, first, third])
    )
    apart = twice(part(batch, guided=False))
    assert apart["pixel_values"].equal(batch["apart_pixel_values"])
    assert not any(key.startswith("apart_") for key in apart)
    assert cannot_share(tiny_world.model(), part(batch, guided=False)) == (
        "a rejected answer has pictures of its own"
    )
    # 2. Noise is on the pictures that the rejected answer is about.
    noisy = noise_injected(open_picture(other[0]), 0.3, "row-1")
    expected = encode(processor, [[noisy]], [""])["pixel_values"][0]
    assert batch[f"{GUIDED}pixel_values"][4].equal(expected)
    # 3. The earlier turns stand in both prompts; the chosen half knows nothing of the others.
    pictures, question = [[open_picture(made[1]["images"][0])]], [made[1]["question"]]
    prompt = encode(processor, pictures, question, histories=[turns])["input_ids"][0]
    for row in (1, 4):
        assert batch["input_ids"][row, : len(prompt)].equal(prompt)
    assert not any(key.startswith("apart_") for key in chosen_half(part(batch, guided=False)))
    assert not any(key.startswith("apart_") for key in part(batch, guided=True))


def test_a_text_with_a_special_token():
    made = rows()[:1]
    made[0]["chosen"] = "a red </s> car"
    with pytest.raises(InputError, match="</s>, a special token"):
        collator()(made)
