"""A request of OpenAI's chat completions, checked and in our words.

Our own options stand under `risk`: {"policy": ..., "threshold": ..., "maps": true}. With the
official client: `extra_body={"risk": {"policy": "stop"}}`.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from adapt.params import MAX_SEED
from adapt.serving.api_errors import ApiError
from adapt.serving.asked import Policy
from adapt.serving.messages import Dialogue, dialogue
from adapt.serving.options import flag, known, number, whole, without_refused
from adapt.serving.settings import Limits

POLICIES = get_args(Policy)
HOTTEST = 2.0  # OpenAI's highest temperature
DEEPEST = 32  # levels of nesting; a request has seven
MOST_SIGNS = 100_000  # of what begins or parts values; base64 has none of them, a text may
READ = (
    *("model", "messages", "stream", "stream_options", "temperature", "seed", "logprobs"),
    *("max_tokens", "max_completion_tokens", "risk"),
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request: the dialogue, how to answer it, and the form of the reply.

    The same request with the same `seed` is answered alike; without one (None) none is.
    `policy` and `threshold` are None where the server's own hold, `max_new_tokens` where the
    model's own does.
    """

    id: str
    dialogue: Dialogue
    policy: Policy | None
    threshold: float | None
    maps: bool
    max_new_tokens: int | None
    temperature: float
    seed: int | None
    stream: bool
    usage: bool
    logprobs: bool


def parsed(body: bytes) -> Mapping[str, Any]:
    """The object in a body of JSON; `ApiError` for anything else."""
    if sum(map(body.count, (b"[", b"{", b","))) > MOST_SIGNS:
        raise ApiError("the body has too many values", code="invalid_json")
    try:
        text = body.decode("utf-8")
        content = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ApiError("the body is not a JSON object", code="invalid_json")
    _check_depth(content)
    return content


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which no key stands twice: which of them would be meant?"""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def _check_depth(content: Any) -> None:
    waiting = [(content, 1)]
    while waiting:
        one, depth = waiting.pop()
        if depth > DEEPEST:
            raise ApiError("the body is nested too deeply", code="invalid_json")
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        waiting += [(each, depth + 1) for each in inner if isinstance(each, dict | list)]


def request_of(body: bytes, model: str, limits: Limits) -> Request:
    """The request in a body; `ApiError` names the first parameter that is not as it should be.

    `model` is the one that is served.
    """
    content = without_refused(parsed(body))
    known(content, READ)
    if content.get("model") != model:
        problem = f"the model served here is {model}"
        code = "model_not_found" if "model" in content else "missing_required_parameter"
        status = 404 if "model" in content else 400
        raise ApiError(f"model: {problem}", param="model", code=code, status=status)
    risk, stream = _risk(content.get("risk", {})), flag(content, "stream")
    seed, identity = content.get("seed"), f"chatcmpl-{uuid.uuid4().hex}"
    if seed is not None and type(seed) is not int:
        raise ApiError("seed: expected a whole number", param="seed", code="invalid_type")
    return Request(
        id=identity,
        dialogue=dialogue(content.get("messages"), limits),
        policy=risk.get("policy"),
        threshold=number(risk, "threshold", 1.0, "risk."),
        maps=flag(risk, "maps", "risk."),
        max_new_tokens=_longest(content, limits),
        temperature=number(content, "temperature", HOTTEST) or 0.0,
        seed=None if seed is None else seed % MAX_SEED,
        stream=stream,
        usage=_usage(content, stream=stream),
        logprobs=flag(content, "logprobs"),
    )


def _risk(risk: Any) -> Mapping[str, Any]:
    if not isinstance(risk, Mapping):
        raise ApiError("risk: expected an object", param="risk", code="invalid_type")
    known(risk, ("policy", "threshold", "maps"), "risk.")
    if risk.get("policy") not in (None, *POLICIES):
        problem = f"expected one of {', '.join(POLICIES)}"
        raise ApiError(f"risk.policy: {problem}", param="risk.policy", code="invalid_value")
    return {name: value for name, value in risk.items() if value is not None}


def _longest(content: Mapping[str, Any], limits: Limits) -> int | None:
    names = ("max_completion_tokens", "max_tokens")
    found = [whole(content, name, 1, limits.max_new_tokens) for name in names]
    if None not in found:
        problem = "max_tokens is its old name; send one of them"
        raise ApiError(f"max_completion_tokens: {problem}", param="max_tokens")
    return found[0] or found[1]


def _usage(content: Mapping[str, Any], *, stream: bool) -> bool:
    options = content.get("stream_options", {})
    if not isinstance(options, Mapping):
        problem = "stream_options: expected an object"
        raise ApiError(problem, param="stream_options", code="invalid_type")
    if options and not stream:
        raise ApiError("stream_options: only with stream: true", param="stream_options")
    known(options, ("include_usage", "include_obfuscation"), "stream_options.")
    return flag(options, "include_usage", "stream_options.")
