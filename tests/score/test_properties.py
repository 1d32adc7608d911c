"""What must hold of the text metrics for any answers: order, repetition, more that is true, and
silence.
"""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapt.score import amber_discriminative as discriminative
from adapt.score import amber_generative as generative
from adapt.score.chair import Synonyms, score
from adapt.score.scored import Mode, Scored
from adapt.score.text.negation import NEGATIONS, negated

WORDS = ("dog", "cat", "tree", "sun", "light", "kennel")
ASSOCIATED = {word: [other] for word, other in zip(WORDS, (*WORDS[1:], "dog"), strict=True)}
AMBER = generative.Words(ASSOCIATED, {"light"}, {("kennel", "dog"), ("dog", "kennel")})
LISTED = Synonyms("ours", {word: word for word in WORDS})

words = st.lists(st.sampled_from(WORDS), max_size=6)
Rows = list[tuple[list[str], list[str]]]
modes = st.sampled_from(["official", "strict"])
# Captions of words of the list and others, and what is there.
samples = st.lists(
    st.tuples(st.lists(st.sampled_from((*WORDS, "near", "no", ",", ".")), max_size=8), words),
    max_size=5,
)
quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def amber(
    mentioned: Sequence[str], truth: Sequence[str], targets: Sequence[str]
) -> generative.Counted:
    return generative.count(mentioned, truth, targets, AMBER)


def chair(rows: Rows, mode: Mode) -> Scored:
    captions = [(str(i), " ".join(said)) for i, (said, _) in enumerate(rows)]
    return score(
        captions, {str(i): there for i, (_, there) in enumerate(rows)}, LISTED, "maxlinn", mode
    )


needs_nltk = pytest.mark.usefixtures("nltk_data")


@quick
@given(words, words, words)
def test_amber_counts_stay_within_their_denominators(
    mentioned: list[str], truth: list[str], targets: list[str]
) -> None:
    counted = amber(mentioned, truth, targets)
    assert 0 <= counted.chair_score <= counted.chair_num == len(mentioned)
    assert 0 <= counted.safe_cover_score <= counted.safe_cover_num == len(truth)
    assert 0 <= counted.hallu_cover_score <= counted.hallu_cover_num == len(targets)
    assert counted.non_hallu_score == (counted.chair_score == 0)


@quick
@given(words, words, words, st.randoms())
def test_amber_knows_no_order_of_mentions(
    mentioned: list[str], truth: list[str], targets: list[str], random: Random
) -> None:
    shuffled = random.sample(mentioned, len(mentioned))
    assert amber(shuffled, truth, targets) == amber(mentioned, truth, targets)


@quick
@given(words, st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), words)
def test_a_grounded_word_never_adds_a_hallucination_to_amber(
    said: list[str], truth: list[str], targets: list[str]
) -> None:
    before, after = amber(said, truth, targets), amber([*said, truth[0]], truth, targets)
    assert after.chair_score == before.chair_score and after.chair_num == before.chair_num + 1
    assert after.safe_cover_score >= before.safe_cover_score


@quick
@given(words, words)
def test_silence_hallucinates_and_covers_nothing(truth: list[str], targets: list[str]) -> None:
    assert amber([], truth, targets) == (0, 0, 0, len(truth), 0, len(targets), 1, 1)


@needs_nltk
@quick
@given(samples, modes, st.randoms())
def test_chair_knows_no_order_of_captions(rows: Rows, mode: Mode, random: Random) -> None:
    shuffled = random.sample(rows, len(rows))
    assert chair(shuffled, mode).counts == chair(rows, mode).counts
    assert chair(shuffled, mode).metrics == chair(rows, mode).metrics


@needs_nltk
@quick
@given(samples, modes)
def test_chair_of_everything_twice_is_the_same(rows: Rows, mode: Mode) -> None:
    once, twice = chair(rows, mode), chair([*rows, *rows], mode)
    assert twice.metrics == once.metrics
    assert twice.counts == {name: 2 * value for name, value in once.counts.items()}


@needs_nltk
@quick
@given(samples.filter(lambda rows: rows and rows[0][1]), modes)
def test_a_grounded_word_adds_no_hallucination_to_chair(rows: Rows, mode: Mode) -> None:
    said, there = rows[0]
    before, after = chair(rows, mode), chair([([*said, ".", there[0]], there), *rows[1:]], mode)
    assert after.counts["hallucinated_word_count"] == before.counts["hallucinated_word_count"]
    assert after.counts["coco_word_count"] == before.counts["coco_word_count"] + 1
    assert after.metrics["recall"] >= before.metrics["recall"]


@needs_nltk
@quick
@given(samples, words, modes)
def test_an_empty_caption_hallucinates_nothing(rows: Rows, there: list[str], mode: Mode) -> None:
    before, after = chair(rows, mode).counts, chair([*rows, ([], there)], mode).counts
    grown = {"num_caps": 1, "num_gt_objects": len(set(there))}
    assert after == {name: value + grown.get(name, 0) for name, value in before.items()}


@needs_nltk
@quick
@given(samples)
def test_strict_reading_only_leaves_mentions_out_of_plain_words(rows: Rows) -> None:
    quirky, mended = chair(rows, "official").counts, chair(rows, "strict").counts
    assert mended["coco_word_count"] <= quirky["coco_word_count"]
    assert mended["hallucinated_word_count"] <= quirky["hallucinated_word_count"]


@quick
@given(
    st.lists(st.sampled_from(("No", "Yes", "no.", "")), max_size=8), st.sampled_from(["yes", "no"])
)
def test_amber_answers_stay_between_0_and_100(answers: list[str], truth: str) -> None:
    every_mode: tuple[Mode, ...] = ("official", "strict")
    for mode in every_mode:
        totals = dict.fromkeys(discriminative.COUNTERS, 0.001 if mode == "official" else 0.0)
        for answer in answers:
            counted = discriminative.counters("relation", discriminative.count(answer, truth, mode))
            totals |= {name: totals[name] + value for name, value in counted.items()}
        assert all(0 <= value <= 100.1 for value in discriminative.rates(totals, mode).values())


@quick
@given(st.lists(st.sampled_from(("no", "n't", "dog", "or", "on", ",", "without")), max_size=12))
def test_a_negation_needs_a_negating_word_before_it(said: list[str]) -> None:
    reached = negated(said)
    assert len(reached) == len(said)
    assert all(not gone or NEGATIONS & set(said[: i + 1]) for i, gone in enumerate(reached))
