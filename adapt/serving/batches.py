"""Questions that wait are answered together: those that may share a batch, as many as fit.

What comes while the model is busy waits in one pool, so that the next batch is as full as it can
be. One thread answers; streams and whole answers share its batches.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adapt.params import InputError
from adapt.serving.asked import Answer, Asked, Token

if TYPE_CHECKING:
    from adapt.serving.answerer import Answerer


Heard = tuple[str, Sequence[Token]] | None


@dataclass(frozen=True, kw_only=True)
class Done:
    """An answer, and what made it: `version` of the model, `seconds` of its batch of `rows`."""

    answer: Answer
    version: str
    seconds: float
    rows: int


@dataclass(eq=False)
class Job:
    """A question that waits or is being answered; made in the event loop that waits for it.

    `heard` gets (version, tokens) as they are made, None at the end, where `listens`. Whoever does
    not want the answer any more sets `gone`.
    """

    asked: Asked
    listens: bool = False
    gone: bool = False
    heard: "asyncio.Queue[Heard]" = field(default_factory=asyncio.Queue)
    done: "asyncio.Future[Done]" = field(default_factory=lambda: _future())

    def hear(self, version: str, tokens: Sequence[Token]) -> bool:
        """Called by the thread that answers; whether the answer is still wanted."""
        if self.listens and not self.gone:
            loop = self.done.get_loop()
            loop.call_soon_threadsafe(self.heard.put_nowait, (version, tokens))
        return not self.gone

    def give_up(self, why: Exception) -> None:
        """Called in the event loop: the answer is wanted no longer."""
        self.gone = True
        self.end(why)

    def end(self, result: Done | Exception) -> None:
        """Called in the event loop: the answer is there, or will not be."""
        if self.done.done():
            return
        self.heard.put_nowait(None)
        if isinstance(result, Exception):
            self.done.set_exception(result)
            self.done.exception()  # whoever has gone does not ask for it
        else:
            self.done.set_result(result)


def _future() -> "asyncio.Future[Done]":
    return asyncio.get_running_loop().create_future()


class Gone(Exception):
    """Nobody waits for this answer any more."""


class Pool:
    """What waits for the model; used from one event loop.

    Args:
        model: gives the answerer of the moment; a batch keeps the one that it began with.
        batch: how many questions are answered at once.
        seen: is told of each answer, in the event loop.
    """

    def __init__(
        self, model: "Callable[[], Answerer]", batch: int, seen: Callable[[Job, Done], None]
    ) -> None:
        self._model, self._batch, self._seen = model, batch, seen
        self._waiting: list[Job] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")

    def add(self, jobs: Sequence[Job]) -> None:
        """Let them be answered; each says itself when it is."""
        self._waiting += jobs
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            jobs = self._next()
            if not jobs:
                continue
            results = await loop.run_in_executor(self._thread, self._answered, jobs)
            for job, result in zip(jobs, results, strict=True):
                if isinstance(result, Done):
                    self._seen(job, result)
                job.end(result)

    def _next(self) -> list[Job]:
        """The first that waits, and others that can be answered with it."""
        for job in [job for job in self._waiting if job.gone]:
            job.end(Gone())
        self._waiting = [job for job in self._waiting if not job.gone]
        if not self._waiting:
            return []
        kind = shared(self._waiting[0].asked)
        chosen = [job for job in self._waiting if shared(job.asked) == kind][: self._batch]
        self._waiting = [job for job in self._waiting if job not in chosen]
        return chosen

    def _answered(self, jobs: Sequence[Job]) -> list[Done | Exception]:
        """Answers of one batch, in the thread; a question that cannot be asked fails alone."""
        model, started = self._model(), time.monotonic()
        version = model.version

        def hear(row: int, tokens: Sequence[Token]) -> bool:
            return jobs[row].hear(version, tokens)

        # An `InputError` comes before the first token: nobody hears one twice.
        try:
            answers = model.answer([job.asked for job in jobs], hear)
        except InputError as error:
            return [error] if len(jobs) == 1 else [self._answered([job])[0] for job in jobs]
        except Exception as error:  # each that waits gets it, and the next batch goes on
            return [error] * len(jobs)
        seconds = time.monotonic() - started
        rows = len(jobs)
        return [Done(answer=one, version=version, seconds=seconds, rows=rows) for one in answers]

    def close(self) -> None:
        """End the thread, after its batch."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def shared(asked: Asked) -> tuple[object, ...]:
    """What questions of one generation have in common; a second pass would keep others waiting."""
    return asked.temperature, asked.policy if asked.policy in ("steer", "retry") else ""
