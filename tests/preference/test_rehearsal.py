"""Which plain rows a step takes is a matter of seed and step alone; what a batch of them is."""

import torch

from tests.support import tiny_world
from tests.support.preference_rows import plain_rows, rehearsal


def of_step(made, step: int, parts: int) -> list[int]:
    return [place for part in range(parts) for place in made.places(step, part, parts)]


def test_any_number_of_parts_takes_the_same_rows_in_the_same_order():
    made = rehearsal(plain_rows(31), count=12)
    for step in (0, 1, 7):
        whole = made.places(step, 0, 1)
        assert len(whole) == 12
        for parts in (2, 3, 4, 12):
            assert of_step(made, step, parts) == whole
            assert {len(made.places(step, part, parts)) for part in range(parts)} == {12 // parts}


def test_every_row_comes_once_before_any_comes_again():
    made = rehearsal(plain_rows(10), count=4)
    stream = [place for step in range(5) for place in made.places(step, 0, 1)]
    first, second = stream[:10], stream[10:]
    assert sorted(first) == sorted(second) == [*range(10)] and first != second
    assert made.places(2, 0, 1) == stream[8:12], "whatever was asked for before"
    other = rehearsal(plain_rows(10), count=4, seed=2)
    assert [place for step in range(5) for place in other.places(step, 0, 1)] != stream


def test_a_batch_is_prompt_answer_and_end():
    rows, tokenizer = plain_rows(4), tiny_world.processor().tokenizer
    made = rehearsal(rows)
    batch = made.batch([2, 3])
    for i, row in enumerate(rows[2:]):
        is_answer = batch["completion_mask"][i] > 0
        answer = tokenizer(row.answer, add_special_tokens=False)["input_ids"]
        assert batch["input_ids"][i][is_answer].tolist() == [*answer, tokenizer.eos_token_id]
        real = batch["attention_mask"][i] > 0
        assert not batch["attention_mask"][i][int(real.sum()) :].any(), "padded on the right"
        text = tokenizer.decode(batch["input_ids"][i][real & ~is_answer])
        assert row.question.rstrip("?.") in text and (("a tree" in text) == bool(row.history))
    assert len(batch["pixel_values"]) == 2 and made.ids([2, 3]) == ["plain-2", "plain-3"]
    torch.testing.assert_close(batch["pixel_values"][:1], made.batch([2])["pixel_values"])
