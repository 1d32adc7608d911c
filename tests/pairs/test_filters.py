"""What each filter takes: by hand, and by the model's own logits."""

import pytest
import torch

from adapt.generation.batches import prompt_of
from adapt.models.prompts import answer_tokens, end_tokens
from adapt.pairs.annotate import Answers, LeftOut
from adapt.pairs.filters import Filters, active, repeats
from adapt.pairs.forced import sequences
from adapt.pairs.likelihood import token_log_probs
from tests.pairs.test_sample import config
from tests.support import tiny_world
from tests.support.families import built
from tests.support.preference_rows import png
from tests.support.preferences import preference


def answers(**changes) -> Answers:
    given = {"chosen": tiny_world.ANSWERS[0], "rejected": tiny_world.ANSWERS[1]}
    return Answers(**{**given, "chosen_score": 0.5, "rejected_score": 0.1} | changes)


def filters(**changes) -> Filters:
    return Filters(config(**changes), tiny_world.model(), tiny_world.processor())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red house, a green tree, a red house.", True),
        ("A red house; a red house", True),
        ("a car, a bus, a car.", False),
        ("there is a car. there is a tree.", False),
        ("a red house and a red house and a red house", True),
        ("a red house, a red tree", False),
        ("no no no no", True),
        ("no, no.", False),
        ("very very red", False),
        ("", False),
    ],
)
def test_what_is_said_twice(text, expected):
    assert repeats(text) is expected


def test_all_pass_by_default():
    assert filters().left_out(preference(0), answers(chosen="a a a a", chosen_score=-5.0)) is None
    assert active(config()) == {}
    assert filters().unrepeated(["a a a a"]) == ["a a a a"]
    assert active(config(min_best=0.5, repeats="drop")) == {"min_best": 0.5, "repeats": "drop"}


def test_the_better_one_must_be_good():
    ours, row = filters(min_best=0.5), preference(0)
    assert ours.left_out(row, answers(chosen_score=0.5)) is None
    assert ours.left_out(row, answers(chosen_score=0.4)) == LeftOut("min_best")
    assert ours.left_out(row, answers(chosen_score=None)) is None, "a score that nobody gave"


def test_answers_that_say_something_twice():
    ours, row = filters(repeats="drop"), preference(0)
    assert ours.left_out(row, answers()) is None
    for side in ("chosen", "rejected"):
        assert ours.left_out(row, answers(**{side: "red red red red"})) == LeftOut("repeats")
    assert ours.unrepeated(["a car", "a car a car"]) == ["a car"]


def mean_by_hand(model, processor, row, text: str, begun: int) -> float:
    tokens = answer_tokens(processor, [text], end_tokens(model, processor))[0]
    batch, _ = sequences(model, processor, [prompt_of(row)], [tokens])
    mask = batch.pop("completion_mask")[0, 1:] > 0
    with torch.no_grad():
        logits = model(**batch).logits[0, :-1].log_softmax(-1)
    own = logits.gather(-1, batch["input_ids"][0, 1:, None])[:, 0]
    return own[mask][begun:].mean().item()


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "smolvlm", "paligemma"])
def test_the_likelihood_is_of_the_tokens_that_are_trained(name):
    model, processor = built(name)
    row = preference(0)
    both = ("a red car, a blue house.", "a red car, a green tree.")
    said = answers(chosen=both[0], rejected=both[1], prefix="a red car, a")
    own = Filters(config(), model, processor)
    begun = len(answer_tokens(processor, ["a red car, a"], (0,))[0]) - 1
    want = [mean_by_hand(model, processor, row, text, begun) for text in both]
    assert [*own.likelihoods(row, said)] == pytest.approx(want, abs=1e-5)
    whole = [*own.likelihoods(row, answers(chosen=both[0], rejected=both[1]))]
    want = [mean_by_hand(model, processor, row, text, 0) for text in both]
    assert whole == pytest.approx(want, abs=1e-5)
    # What ends an answer is a token of it here.
    spoken = token_log_probs(model, processor, prompt_of(row), both[0])
    assert abs(whole[0] * (len(spoken) + 1) - spoken.sum().item()) > 1e-3
    # Both must be inside.
    low, high = min(whole), max(whole)
    for window, passes in (
        ((low - 1, high + 1), True),
        ((low - 1, (low + high) / 2), False),
        (((low + high) / 2, high + 1), False),
    ):
        found = Filters(config(likelihood=list(window)), model, processor).left_out(
            row, answers(chosen=both[0], rejected=both[1])
        )
        assert (found is None) is passes and found in (None, LeftOut("likelihood"))


def test_a_rejected_answer_is_as_likely_as_its_own_pictures_make_it():
    other = preference(0, rejected_images=(png(tiny_world.picture(9)),))
    same, apart = ([*filters().likelihoods(row, answers())] for row in (preference(0), other))
    assert same[0] == apart[0] and same[1] != apart[1]


def test_an_answer_that_ends_where_the_other_goes_on():
    said = answers(chosen="a red car", rejected="a red car, a blue house", prefix="a red car")
    good, bad = filters().likelihoods(preference(0), said)
    assert good < 0 and bad < 0
