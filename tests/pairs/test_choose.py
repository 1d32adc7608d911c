"""Pairs that part where an answer goes wrong, of every kind of family's own answers."""

import dataclasses

import pytest

from adapt.data.schema import Example, SceneObject
from adapt.generation.answer import Decoding, answer
from adapt.generation.batches import prompt_of
from adapt.pairs.annotate import Answers, LeftOut
from adapt.pairs.beginning import common_beginning
from adapt.pairs.choose import Chooser
from adapt.pairs.continuation import cuts
from adapt.pairs.rank import best_and_worst, score
from tests.pairs.test_sample import WORDS, config, examples
from tests.support.families import built

SAMPLES = 6
SAID = "a red house, a green tree, a blue car. house tree car"


@pytest.fixture(params=["llava", "qwen2_5_vl", "smolvlm"])
def family(request, monkeypatch):
    """Model and processor that say the words of `SAID` alone, and rows about what is there."""
    model, processor = built(request.param)
    words = {*processor.tokenizer(SAID, add_special_tokens=False)["input_ids"]}
    size = model.config.get_text_config().vocab_size
    mute = [token for token in range(size) if token not in words]
    monkeypatch.setattr(model.generation_config, "suppress_tokens", mute)
    rows = examples(request.param)
    return model, processor, [dataclasses.replace(rows[n % 4], id=f"row {n}") for n in range(12)]


def decoding(**changes) -> Decoding:
    values = {"anchor_tokens": 2, "max_new_tokens": 12, "samples": SAMPLES, "temperature": 2.0}
    return Decoding(**{**values, "seed": 3} | changes)


def chooser(family, **changes) -> Chooser:
    settings = config(batch=3, samples=SAMPLES, temperature=2.0, **changes)
    return Chooser(settings, *family[:2], WORDS, decoding())


def texts(family, rows: list[Example]) -> list[str]:
    ids, images, questions, *_ = zip(*map(prompt_of, rows), strict=True)
    return answer(*family[:2], images, questions, decoding(), ids).texts


def test_both_answers_go_on_from_what_is_right(family):
    rows = family[2]
    said = texts(family, rows)
    found = chooser(family, unit="continuation").pairs(rows, said)
    pairs = [(i, one) for i, one in enumerate(found) if isinstance(one, Answers)]
    assert pairs and any(one.prefix for _, one in pairs)
    own = [said[i * SAMPLES : (i + 1) * SAMPLES] for i in range(len(rows))]
    for i, pair in pairs:
        bad = next(one for one in cuts(own[i], rows[i], WORDS) if one.answer == pair.rejected)
        assert pair.chosen.startswith(bad.prefix) and pair.prefix.startswith(bad.prefix)
        assert pair.prefix == common_beginning(pair.chosen, pair.rejected)
        assert pair.chosen_score == score(pair.chosen, rows[i], WORDS) > pair.rejected_score
    new = [pair.chosen for i, pair in pairs if pair.chosen not in own[i]]
    begun = [cuts(one, row, WORDS)[:1] for one, row in zip(own, rows, strict=True)]
    assert new or not any(one.prefix for first in begun for one in first), "some is said from there"


def test_a_row_has_its_pair_in_any_batch(family):
    rows = family[2]
    ours = chooser(family, unit="continuation")
    together = ours.pairs(rows, texts(family, rows))
    for i in (0, 5):
        alone = ours.pairs(rows[i : i + 1], texts(family, rows[i : i + 1]))
        assert alone == together[i : i + 1]


def test_whole_answers_are_what_they_were(family):
    rows = family[2]
    said = texts(family, rows)
    found = chooser(family).pairs(rows, said)
    for i, (row, pair) in enumerate(zip(rows, found, strict=True)):
        own = said[i * SAMPLES : (i + 1) * SAMPLES]
        best = best_and_worst([score(one, row, WORDS) for one in own], own, 1e-3)
        assert (best is None) == isinstance(pair, LeftOut)
        if best is not None:
            assert (pair.chosen, pair.rejected, pair.prefix) == (own[best[0]], own[best[1]], "")


def by_hand(rows, said, **changes):
    """Of answers that need no model."""
    settings = config(samples=len(said) // len(rows), **changes)
    return Chooser(settings, None, None, WORDS, decoding()).pairs(rows, said)


def row(**changes) -> Example:
    return dataclasses.replace(examples("llava")[0], **changes)


def test_a_short_answer_parts_at_its_word():
    asked = row(kind="colour", answer="the house is red.", objects=None)
    said = ["the house is blue.", "the house is red."]
    (pair,) = by_hand([asked], said, unit="continuation")
    assert (pair.chosen, pair.rejected, pair.prefix) == (said[1], said[0], "the house is")
    (pair,) = by_hand([asked], said)
    assert pair.prefix == ""


def test_why_there_is_no_pair():
    fine, same = ["a red house.", "a house."], ["a car.", "a tree."]
    assert by_hand([row()], fine, unit="continuation") == [LeftOut("unit")]
    assert by_hand([row()], same, unit="continuation") == [LeftOut("min_gap")]
    # Nothing is that much better than the first that goes wrong, but than the next one it is.
    said = ["a car, a red house.", "a blue house, a car, a bus.", "a red house."]
    (pair,) = by_hand([row()], said, unit="continuation", min_gap=0.6)
    assert (pair.chosen, pair.rejected, pair.prefix) == (said[2], said[1], "a")
    assert by_hand([row()], said, unit="continuation", min_gap=0.9) == [LeftOut("min_gap")]
    assert by_hand([row()], ["a red house.", "a red house"]) == [LeftOut("min_gap")]
    assert by_hand([row()], ["", "a car."]) == [LeftOut("min_gap")], "an empty answer"
    # What says something twice makes none; what is left may.
    twice, bad = "a red house red house", "a car."
    assert by_hand([row()], [twice, bad], repeats="drop") == [LeftOut("repeats")]
    assert by_hand([row()], [twice, twice], repeats="drop") == [LeftOut("repeats")]
    assert isinstance(by_hand([row()], [twice, bad])[0], Answers)
    (pair,) = by_hand([row()], [twice, bad, "a red house."], repeats="drop")
    assert (pair.chosen, pair.rejected) == ("a red house.", bad)
    assert by_hand([row()], ["a house.", "a car."], min_best=0.9) == [LeftOut("min_best")]


def test_the_better_answer_makes_nothing_up():
    """Of two things, the fullest answer names both and a third; the next leaves one out."""
    things = {"house": "red", "tree": "green"}.items()
    there = tuple(SceneObject(name=name, colour=colour, box=None) for name, colour in things)
    asked, fullest = row(objects=there), "a red house, a green tree, a car."
    said = [fullest, "a red house.", "a bus, a car."]
    for changes, better in (({}, fullest), ({"chosen": "truthful"}, "a red house.")):
        (pair,) = by_hand([asked], said, **changes)
        assert (pair.chosen, pair.rejected) == (better, "a bus, a car.")
        (parted,) = by_hand([asked], [fullest, "a blue house.", "a red house."], **changes)
        assert parted.chosen == ("a red house." if changes else fullest)
        (parted,) = by_hand([asked], said, unit="continuation", **changes)
        assert (parted.chosen, parted.rejected) == (better, "a bus, a car.")
    nothing = [fullest, "a blue house.", "a bus, a car."]
    for unit in ("answer", "continuation"):
        assert by_hand([asked], nothing, chosen="truthful", unit=unit) == [LeftOut("chosen")]
    # A colour that is not said is not made up; of short answers the right one is true.
    (pair,) = by_hand([asked], ["a house, a tree.", "a car."], chosen="truthful")
    assert pair.chosen == "a house, a tree."
    coloured = row(kind="colour", answer="the house is red.", objects=None)
    short = ["the house is blue.", "the house is red."]
    (pair,) = by_hand([coloured], short, chosen="truthful")
    assert pair.chosen == short[1]
