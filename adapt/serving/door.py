"""One replica's work without Ray: from the body of a request to its reply, whole or streamed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from adapt.params import InputError
from adapt.serving import pictures, urls
from adapt.serving.admission import Admission
from adapt.serving.api_errors import ApiError, too_slow
from adapt.serving.asked import Asked
from adapt.serving.batches import Done, Job, Pool
from adapt.serving.loaded import Loaded
from adapt.serving.messages import Picture
from adapt.serving.meters import Meters
from adapt.serving.openai_api import Request, request_of
from adapt.serving.replies import Form, failed
from adapt.serving.settings import ServeConfig

Watch = Callable[[Asked, Done], None]
SMALL = 1 << 18  # bytes of a body that is read and decoded at once, without another thread


class Door:
    """Takes requests, lets them wait, answers them.

    Args:
        settings: section `serve`.
        name: of the model, as clients say it.
        loaded: the model that answers.
        watch: is told of each answer, with its question.
    """

    def __init__(self, settings: ServeConfig, name: str, loaded: Loaded, watch: Watch) -> None:
        self.settings, self.name, self.loaded = settings, name, loaded
        self.admission = Admission(settings.limits.held_pixels)
        self.pool = Pool(loaded.model, settings.batch, self._seen)
        self.meters = Meters(lambda: self.admission.held, self.version)
        self.add: Callable[[Job], Any] = self._add_alone
        self._watch = watch

    def version(self) -> str:
        """Of the model that answers now; "" for a folder."""
        return self.loaded.answerer.version if self.loaded.answerer else ""

    async def reply(self, body: bytes) -> bytes | AsyncIterator[bytes]:
        """The body of the reply, or its events where a stream was asked for; `ApiError` else."""
        started = time.monotonic()
        request = request_of(body, self.name, self.settings.limits)
        job = await self._waiting(request)
        self._time(job, started)
        form = Form.of(request, self.name, job.asked.threshold)
        try:
            await self.add(job)
            if not request.stream:
                done = await job.done
                return form.whole(done.answer, done.version)
            # Until the first words are there, a refusal can still be a status of its own.
            events = _events(form, job)
            return _behind(await anext(events), events)
        except InputError as error:
            raise ApiError(str(error), code="not_answerable") from None
        except asyncio.CancelledError:  # the client has left
            job.gone = True
            raise

    def _time(self, job: Job, started: float) -> None:
        """Count the seconds of a request, and let it not take more than it may."""
        loop, most = asyncio.get_running_loop(), self.settings.limits.seconds
        late = too_slow(f"no answer within {most:g} s")
        timer = loop.call_later(max(0.0, most - (time.monotonic() - started)), job.give_up, late)

        def over(_: object) -> None:
            timer.cancel()
            self.meters.seconds.observe(time.monotonic() - started)

        job.done.add_done_callback(over)

    async def _waiting(self, request: Request) -> Job:
        """The question with its pictures decoded, in a room that it gives back when answered."""
        limits, named = self.settings.limits, request.dialogue.pictures
        is_small = sum(len(one.url) for one in named) < SMALL and all(
            pictures.is_data(one.url) for one in named
        )
        run = _at_once if is_small else asyncio.to_thread
        files = await run(self._files, named)
        pixels = await run(pictures.looked_at, files, limits)
        self.admission.take(pixels)
        try:
            images = await run(pictures.decoded, files)
            job = Job(self._asked(request, images), listens=request.stream)
        except BaseException:
            self.admission.give_back(pixels)
            raise
        job.done.add_done_callback(lambda _: self.admission.give_back(pixels))
        return job

    def _files(self, named: Sequence[Picture]) -> list[pictures.File]:
        limits, found = self.settings.limits, []
        for one in named:
            if pictures.is_data(one.url):
                content = pictures.content_of(one.url, one.param, limits)
            else:
                bounds = limits.picture_mib, limits.seconds
                content = urls.fetched(one.url, one.param, self.settings.urls, *bounds)
            found.append(pictures.File(content=content, param=one.param))
        return found

    def _asked(self, request: Request, images: Sequence[Any]) -> Asked:
        return Asked(
            id=request.id,
            images=images,
            question=request.dialogue.question,
            history=request.dialogue.history,
            policy=request.policy or self.settings.policy,
            threshold=self.settings.threshold if request.threshold is None else request.threshold,
            max_new_tokens=request.max_new_tokens or self.settings.limits.max_new_tokens,
            temperature=request.temperature,
            seed=request.seed,
            maps=request.maps,
        )

    async def _add_alone(self, job: Job) -> None:
        self.pool.add([job])

    def _seen(self, job: Job, done: Done) -> None:
        """Count an answer, and hand it on to whoever watches."""
        answer, meters = done.answer, self.meters
        meters.prompt_tokens.inc(answer.prompt_tokens)
        meters.tokens.inc(len(answer.tokens))
        meters.steered.inc(sum(token.steered > 0 for token in answer.tokens))
        meters.ended.labels(answer.finish).inc()
        meters.rows.observe(done.rows)
        meters.batch_seconds.inc(done.seconds / done.rows)
        if answer.risk is not None:
            meters.risk.observe(answer.risk)
            meters.risky.inc(answer.risk >= job.asked.threshold)
        self._watch(job.asked, done)

    def close(self) -> None:
        """End the thread that answers, and the one that follows the alias."""
        self.loaded.close()
        self.pool.close()


async def _at_once(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


async def _events(form: Form, job: Job) -> AsyncIterator[bytes]:
    """The events of a stream, in order; ends the answer when nobody takes them any more."""
    said, opening = "", True
    try:
        while (heard := await job.heard.get()) is not None:
            version, tokens = heard
            text = "".join(token.text for token in tokens)
            start, said, opening = form.first(version) if opening else b"", said + text, False
            yield start + form.next(text, tokens, version)
        done = await job.done
        start = form.first(done.version) if opening else b""
        rest = done.answer.text.removeprefix(said) if done.answer.text != said else ""
        if rest != done.answer.text or not said:
            start += form.next(rest, (), done.version) if rest else b""
        yield start + form.last(done.answer, done.version)
    except (InputError, ApiError) as error:
        if opening:
            raise
        if not isinstance(error, ApiError):
            error = ApiError(str(error), code="not_answerable")
        yield failed(error.body())
    finally:
        job.gone = True


async def _behind(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """All events, of which the first was taken already; closes the others when it is closed."""
    try:
        yield first
        async for event in events:
            yield event
    finally:
        await events.aclose()  # type: ignore[attr-defined]
