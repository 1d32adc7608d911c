"""Answers in OpenAI's form, whole or in chunks, with ours beside it under `risk`.

`risk` of a whole answer, and of the last chunk of a stream:

    {"version": "4", "policy": "flag", "answer": 0.81, "threshold": 0.5, "mass": 0.21,
     "steered": 0.0, "passes": 1, "detector": "",
     "tokens": [{"end": 5, "risk": 0.1, "mass": 0.3, "focus": 0.2, "steered": 0.0}, ...],
     "named": [{"name": "house", "start": 2, "end": 7, "risk": 0.81}, ...],
     "maps": [[[...] for each picture] for each token], "grids": [[rows, columns], ...]}

`detector` is the version of one that was fitted again and warns; "" is the model's own. `end` and
`start` count characters of the answer; `maps`, row by row, only where they were asked for. A chunk
before the last has `version` and the `tokens` of that chunk.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapt.serving.asked import Answer, Token
from adapt.serving.openai_api import Request

DONE = b"data: [DONE]\n\n"
FINISH = {"stop": "stop", "length": "length", "risk": "content_filter"}


@dataclass(frozen=True, kw_only=True)
class Form:
    """What all parts of one reply share; `version` is that of the model which answered."""

    request: Request
    model: str
    created: int
    threshold: float

    @classmethod
    def of(cls, request: Request, model: str, threshold: float) -> "Form":
        """The form of a reply to a request, made now."""
        return cls(request=request, model=model, created=int(time.time()), threshold=threshold)

    def whole(self, answer: Answer, version: str) -> bytes:
        """The body of a reply that is not streamed."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(answer.tokens),
            "finish_reason": FINISH[answer.finish],
        }
        told = {"usage": usage(answer), "risk": self.summary(answer, version)}
        return _json(self._head("chat.completion", version) | {"choices": [choice]} | told)

    def first(self, version: str) -> bytes:
        """The chunk that opens a stream."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, version)

    def next(self, text: str, tokens: Sequence[Token], version: str) -> bytes:
        """A chunk of a stream: more of the answer, with the risk of each of its tokens."""
        risk = {"version": version, "tokens": [_token(token) for token in tokens]}
        logprobs = self._logprobs(tokens)
        return self._chunk({"content": text}, version, logprobs=logprobs, risk=risk)

    def last(self, answer: Answer, version: str) -> bytes:
        """What ends a stream: the reason, all about its risk, usage where it was asked for."""
        reason, risk = FINISH[answer.finish], self.summary(answer, version)
        parts = [self._chunk({}, version, finish_reason=reason, risk=risk)]
        if self.request.usage:
            head = self._head("chat.completion.chunk", version)
            parts.append(_event(head | {"choices": [], "usage": usage(answer)}))
        return b"".join([*parts, DONE])

    def summary(self, answer: Answer, version: str) -> dict[str, Any]:
        """All that is ours about an answer."""
        named = [
            {"name": one.name, "start": one.start, "end": one.end, "risk": _rounded(one.risk)}
            for one in answer.named
        ]
        told = {
            "version": version,
            "policy": answer.policy,
            "answer": _rounded(answer.risk),
            "threshold": self.threshold,
            "mass": _rounded(answer.mass),
            "steered": _rounded(answer.steered),
            "passes": answer.passes,
            "detector": answer.detector,
            "tokens": [_token(token) for token in answer.tokens],
            "named": named,
        }
        if answer.maps is None:
            return told
        maps = [[[float(f"{value:.4g}") for value in one] for one in row] for row in answer.maps]
        return told | {"maps": maps, "grids": [list(grid) for grid in answer.grids]}

    def _head(self, kind: str, version: str) -> dict[str, Any]:
        head = {"id": self.request.id, "object": kind, "created": self.created}
        return head | {"model": self.model, "system_fingerprint": f"{self.model}/{version}"}

    def _chunk(
        self,
        delta: dict[str, Any],
        version: str,
        *,
        logprobs: Any = None,
        finish_reason: str | None = None,
        risk: Any = None,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        content = self._head("chat.completion.chunk", version) | {"choices": [choice]}
        content |= {"usage": None} if self.request.usage else {}
        return _event(content | ({} if risk is None else {"risk": risk}))

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.request.logprobs:
            return None
        content = [
            {
                "token": token.text,
                "logprob": _rounded(token.logprob),
                "bytes": list(token.text.encode()),
                "top_logprobs": [],
            }
            for token in tokens
        ]
        return {"content": content, "refusal": None}


def failed(body: dict[str, Any]) -> bytes:
    """What ends a stream that has begun and cannot go on."""
    return _event(body) + DONE


def usage(answer: Answer) -> dict[str, int]:
    """Tokens of the prompt, pictures included, and of the answer."""
    asked, said = answer.prompt_tokens, len(answer.tokens)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _token(token: Token) -> dict[str, Any]:
    values = {"risk": token.risk, "mass": token.mass, "focus": token.focus}
    values["steered"] = token.steered
    return {"end": token.end, **{name: _rounded(value) for name, value in values.items()}}


def _rounded(value: float | None) -> float | None:
    """A tenth of what two runs may differ by; shorter to send than all digits of a float."""
    return None if value is None else round(float(value), 7)


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + _json(content) + b"\n\n"
