"""The answering core on a tiny model: equal to generation, and what each policy makes of risk."""

import dataclasses

import numpy as np
import pytest

from adapt.attention import trace
from adapt.generation.answer import Decoding, answer
from adapt.generation.written import Written
from adapt.serving.answerer import VALUES, Answerer
from adapt.serving.asked import Asked, Token
from adapt.serving.spoken import Row, Spoken, Vocabulary
from tests.support import doors, tiny_world
from tests.support.doors import DETECTOR, LONGEST, K

FEATURES = DETECTOR.features


@pytest.fixture(scope="module")
def answerer(tmp_path_factory) -> Answerer:
    folder = doors.version(tmp_path_factory.mktemp("answerer") / "version")
    return Answerer.open(folder, "cpu", "3")


def asked(n: int, **options) -> Asked:
    images = [tiny_world.picture(n)]
    return Asked(id=str(n), images=images, question=tiny_world.QUESTIONS[n % 2], **options)


def test_answers_and_signals_are_those_of_generation(answerer):
    questions = [asked(n) for n in range(4)]
    decoding = Decoding(anchor_tokens=K, max_new_tokens=LONGEST, debias=answerer._debias)
    images = [one.images for one in questions]
    texts = [one.question for one in questions]
    alone = answer(answerer.model, answerer.processor, images, texts, decoding)
    signals = alone.signals(alone.layout.counts_B, alone.mask_BT, K) | {"logprob": alone.logprob_BT}
    for b, one in enumerate(answerer.answer(questions)):
        length = int(alone.mask_BT[b].sum())
        assert one.text == alone.texts[b] and len(one.tokens) == length
        values = {name: signals[name][b, :length].double().numpy() for name in FEATURES}
        for name in FEATURES:
            got = [getattr(token, name) for token in one.tokens]
            assert np.allclose(got, values[name], atol=1e-6), name
        assert np.allclose([t.risk for t in one.tokens], DETECTOR.risk(values), atol=1e-6)
        assert "".join(token.text for token in one.tokens) == one.text
        assert one.prompt_tokens > 0 and one.passes == 1 and one.steered == 0


def test_one_question_alone_is_answered_as_among_others(answerer):
    together = answerer.answer([asked(n) for n in range(4)])
    for n, one in enumerate(together):
        (alone,) = answerer.answer([asked(n)])
        assert alone.text == one.text
        assert np.allclose([t.risk for t in alone.tokens], [t.risk for t in one.tokens], atol=1e-5)


@pytest.mark.parametrize("policy", ["flag", "steer", "retry", "stop"])
def test_what_is_streamed_is_the_answer(answerer, policy):
    heard: dict[int, list[Token]] = {n: [] for n in range(4)}

    def hear(row, tokens) -> bool:
        heard[row] += tokens
        return True

    answers = answerer.answer([asked(n, policy=policy, threshold=0.4) for n in range(4)], hear)
    for n, one in enumerate(answers):
        assert tuple(heard[n]) == one.tokens
        assert one.policy == policy


def test_stop_ends_before_the_first_risky_name(answerer):
    flagged = answerer.answer([asked(n) for n in range(6)])
    named = [one for one in flagged if one.named]
    assert named, "the tiny model names something"
    threshold = float(np.median([one.named[0].risk for one in named]))
    stopped = answerer.answer([asked(n, policy="stop", threshold=threshold) for n in range(6)])
    for before, after in zip(flagged, stopped, strict=True):
        risky = next((one for one in before.named if one.risk >= threshold), None)
        if risky is None:
            assert after.text == before.text and after.finish == before.finish
        else:
            assert after.finish == "risk"
            assert after.text == before.text[: risky.start].rstrip()
            assert after.risk < threshold
    assert any(one.finish == "risk" for one in stopped)


def test_a_seed_names_what_is_sampled(answerer):
    def said(name: str, **options) -> str:
        question = dataclasses.replace(asked(0, temperature=2.0, **options), id=name)
        return answerer.answer([question])[0].text

    assert said("a", seed=3) == said("b", seed=3) != said("a", seed=4)
    assert said("a") == said("a") != said("b")


def test_retry_keeps_the_less_risky(answerer):
    flagged = answerer.answer([asked(n) for n in range(6)])
    retried = answerer.answer([asked(n, policy="retry", threshold=0.0) for n in range(6)])
    assert all(one.passes == 2 for one in retried)
    assert all(b.risk <= a.risk for a, b in zip(flagged, retried, strict=True))


def test_steering_needs_risk(answerer):
    never = answerer.answer([asked(0, policy="steer", threshold=1.1)])[0]
    always = answerer.answer([asked(0, policy="steer", threshold=0.0)])[0]
    assert never.steered == 0 < always.steered
    assert never.text == answerer.answer([asked(0)])[0].text


def test_nobody_listens(answerer, monkeypatch):
    monkeypatch.setattr(answerer, "pace", 0.0)
    monkeypatch.setattr(trace, "IN_FLIGHT", 1)  # heard at every step
    (whole,) = answerer.answer([asked(0)])
    (cut,) = answerer.answer([asked(0)], lambda row, tokens: False)
    assert len(cut.tokens) == K < len(whole.tokens)


def test_maps_say_where_each_token_looked(answerer):
    (one,) = answerer.answer([asked(0, maps=True)])
    ((rows, columns),) = one.grids
    assert len(one.maps) == len(one.tokens)
    assert all(len(maps) == 1 and maps[0].shape == (rows * columns,) for maps in one.maps)
    masses = [float(maps[0].sum()) for maps in one.maps]
    assert np.allclose(masses, [token.mass for token in one.tokens], atol=1e-5)


def test_a_model_of_which_nothing_is_known():
    plain = Answerer(tiny_world.model(), tiny_world.processor(), None)
    (one,) = plain.answer([asked(0, policy="stop", max_new_tokens=5)])
    assert one.risk is None and one.named == () and one.finish == "length"
    assert len(one.tokens) == 5 and one.tokens[0].risk is None


def letters(ids) -> str:
    """A tokenizer of bytes: `\ufffd` stands for what is no letter yet."""
    return bytes(ids).decode("utf-8", errors="replace")


def row(byte: int, risk: float = 0.0) -> Row:
    return byte, (*[0.0] * len(VALUES), risk)


def test_half_a_letter_is_told_when_it_is_whole():
    spoken = Spoken(asked(0), Written(letters), None)
    content = "aé€b".encode()
    spoken.add([row(byte) for byte in content])
    assert [token.text for token in spoken.told()] == ["a", "", "é", "", "", "€", "b"]
    assert spoken.text == "aé€b"


def test_a_word_of_several_tokens_is_held_until_it_is_whole():
    question = dataclasses.replace(asked(0), policy="stop")
    words = Vocabulary({"light": ["traffic light"]})
    spoken = Spoken(question, Written(letters), words)
    spoken.add([row(byte) for byte in b"a traffic"])
    assert "".join(token.text for token in spoken.told()) == "a "
    spoken.add([row(byte) for byte in b" jam"])
    assert "".join(token.text for token in spoken.told()) == "traffic jam"
    spoken.add([row(ord(" ")), row(ord("t"), risk=0.9)])
    spoken.add([row(byte) for byte in b"raffic light"])
    assert not spoken.ended_by_risk
    spoken.add([row(ord("."))])
    assert spoken.ended_by_risk and spoken.text == "a traffic jam "


@pytest.mark.parametrize("most", [1, 3, 8])
def test_values_do_not_hang_on_when_they_are_heard(answerer, monkeypatch, most):
    numbers = 2 * 2 * 16 * 4 + 3 * 2 * 2 * 23  # of a step of two questions
    monkeypatch.setattr(trace, "IN_FLIGHT", most * numbers)
    told = []
    for pace in (0.0, 0.002, 60.0):
        monkeypatch.setattr(answerer, "pace", pace)
        told.append(answerer.answer([asked(0), asked(1)]))
    assert told[0] == told[1] == told[2]
