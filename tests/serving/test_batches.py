"""The pool of what waits, with a real model: what shares a batch, fails alone, or is left."""

import asyncio

import pytest

from adapt.attention import trace
from adapt.params import InputError
from adapt.serving.answerer import Answerer
from adapt.serving.asked import Asked
from adapt.serving.batches import Gone, Job, Pool
from tests.support import doors, tiny_world


@pytest.fixture(scope="module")
def answerer(tmp_path_factory) -> Answerer:
    return Answerer.open(doors.version(tmp_path_factory.mktemp("model")), "cpu", "3")


def asked(number: int, **options) -> Asked:
    images, question = [tiny_world.picture(number)], tiny_world.QUESTIONS[number % 2]
    return Asked(id=str(number), images=images, question=question, **options)


def answered(answerer: Answerer, questions: list[Asked], batch: int = 8, listens: bool = False):
    """What each becomes, an answer or an error, and the jobs."""

    async def run():
        pool = Pool(lambda: answerer, batch, lambda job, done: None)
        jobs = [Job(one, listens=listens) for one in questions]
        pool.add(jobs)
        found = await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)
        pool.close()
        return found, jobs

    return asyncio.run(run())


def test_questions_share_batches_and_are_answered_as_alone(answerer):
    questions = [asked(n, policy=("flag", "stop", "flag")[n % 3]) for n in range(6)]
    found, _ = answered(answerer, questions, batch=4)
    assert [one.rows for one in found] == [4, 4, 4, 4, 2, 2]
    for one, question in zip(found, questions, strict=True):
        alone = answerer.answer([question])[0]
        assert one.version == "3" and one.answer.text == alone.text
        assert one.answer.risk == pytest.approx(alone.risk, abs=1e-5)


def test_what_is_decoded_otherwise_waits_for_its_own_batch(answerer):
    questions = [asked(0), asked(1, policy="steer"), asked(2, temperature=1.0), asked(3)]
    found, _ = answered(answerer, questions)
    assert [one.rows for one in found] == [2, 1, 1, 2]


def test_a_question_that_cannot_be_asked_fails_alone(answerer):
    bad = Asked(id="bad", images=[tiny_world.picture(0)], question="is there </s> ?")
    found, _ = answered(answerer, [asked(0), bad, asked(2)])
    assert isinstance(found[1], InputError) and "special token" in str(found[1])
    assert found[0].answer.text and found[2].answer.text


def test_what_breaks_a_batch_reaches_whoever_waits_and_the_next_is_answered(answerer, monkeypatch):
    whole = answerer.answer

    def broken(questions, hear):
        if questions[0].id == "0":
            raise RuntimeError("out of memory")
        return whole(questions, hear)

    monkeypatch.setattr(answerer, "answer", broken)
    found, _ = answered(answerer, [asked(0), asked(1), asked(2)], batch=2)
    assert [type(one) for one in found[:2]] == [RuntimeError, RuntimeError]
    assert found[2].answer.text


def test_tokens_are_heard_before_the_answer_and_make_it(answerer, monkeypatch):
    monkeypatch.setattr(answerer, "pace", 0.0)
    monkeypatch.setattr(trace, "IN_FLIGHT", 1)  # heard at every step
    found, jobs = answered(answerer, [asked(0), asked(1)], listens=True)
    for one, job in zip(found, jobs, strict=True):
        heard = []
        while (part := job.heard.get_nowait()) is not None:
            heard.append(part)
        tokens = [token for _, tokens in heard for token in tokens]
        assert len(heard) > 1 and tuple(tokens) == one.answer.tokens
        assert "".join(token.text for token in tokens) == one.answer.text


def test_who_has_gone_is_not_answered(answerer):
    async def run():
        pool = Pool(lambda: answerer, 8, lambda job, done: None)
        stays, leaves, late = (Job(asked(n), listens=True) for n in range(3))
        leaves.gone = True
        pool.add([stays, leaves, late])
        await late.heard.get()
        late.give_up(TimeoutError())
        found = await asyncio.gather(stays.done, leaves.done, late.done, return_exceptions=True)
        pool.close()
        return found

    stays, leaves, late = asyncio.run(run())
    assert stays.answer.text and isinstance(leaves, Gone) and isinstance(late, TimeoutError)
