"""What both answers of a pair begin with, in words and in tokens."""

import dataclasses

import pytest

from adapt.models.prompts import answer_tokens
from adapt.pairs.beginning import begun_tokens, common_beginning, given_beginning
from tests.support.families import CASES, built
from tests.support.preferences import preference


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("a red house.", "a red houseboat.", "a red"),
        ("a red house.", "a red house, a car.", "a red house"),
        ("a red house", "a red house and a car", "a red house"),
        ("A red house.", "a red house.", ""),
        ("a  red house", "a red house", "a"),
        ("two words", "two words", "two words"),
        ("it is the car's", "it is the car", "it is the car"),
        ("une maison é", "une maison e\N{COMBINING ACUTE ACCENT}", "une maison"),
        ("猫と犬", "猫と鳥", "猫と"),
        ("yes", "no", ""),
        ("", "no", ""),
    ],
)
def test_whole_words_by_hand(chosen, rejected, expected):
    assert common_beginning(chosen, rejected) == expected
    assert common_beginning(rejected, chosen) == expected


def test_answers_about_different_pictures_part_at_once():
    row = preference(0, chosen="a red car", rejected="a red bus")
    assert given_beginning(row) == "a red"
    assert given_beginning(dataclasses.replace(row, rejected_images=(b"other",))) == ""


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_those_of_both_answers(name):
    processor = built(name)[1]
    both = ("a red car, a blue house.", "a red car, a green tree.")
    prefix, ends = common_beginning(*both), (processor.tokenizer.pad_token_id,)
    count = begun_tokens(processor, prefix, both, ends)
    good, bad = answer_tokens(processor, both, ends)
    assert count > 0 and good[:count] == bad[:count] and good[count:] != bad[count:]
    assert processor.decode(good[:count]).split() == prefix.replace(",", " ,").split() or (
        processor.decode(good[:count]).strip() == prefix
    )
    assert begun_tokens(processor, "", both, ends) == 0
    # All of an answer but the token that ends it.
    shorter = ("a red car", "a red car, a house")
    assert begun_tokens(processor, shorter[0], shorter, ends) == len(
        answer_tokens(processor, shorter[:1], ends)[0][:-1]
    )
