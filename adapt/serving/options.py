"""Options of a chat completion: which are there, which change nothing, and which are refused.

A client that sends an option means it. What would be ignored silently is therefore refused, unless
its value asks for what happens anyway (`n: 1`, `top_p: 1`, no tools).
"""

from collections.abc import Mapping
from typing import Any

from adapt.serving.api_errors import ApiError, unsupported

NO_TOOLS = "this server calls no tools"
NOT_SAMPLED = "answers are greedy, or drawn at `temperature` from the whole distribution"
TEXT_ONLY = "this server answers with text alone"
# Of each option that is not there, the values that ask for nothing, and why it is refused.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "one answer to a question; ask again, with another seed, for another"),
    "best_of": ((1,), "one answer to a question"),
    "use_beam_search": ((False,), "no beams: answers are steered while they are made"),
    "num_beams": ((1,), "no beams: answers are steered while they are made"),
    "tools": (([],), NO_TOOLS),
    "tool_choice": (("none", "auto"), NO_TOOLS),
    "functions": (([],), NO_TOOLS),
    "function_call": (("none", "auto"), NO_TOOLS),
    "parallel_tool_calls": ((True, False), NO_TOOLS),
    "web_search_options": ((), NO_TOOLS),
    "logit_bias": (({},), "the model's own distribution is what its risk was measured on"),
    "frequency_penalty": ((0,), NOT_SAMPLED),
    "presence_penalty": ((0,), NOT_SAMPLED),
    "repetition_penalty": ((1,), NOT_SAMPLED),
    "top_p": ((1,), NOT_SAMPLED),
    "top_k": ((-1, 0), NOT_SAMPLED),
    "min_p": ((0,), NOT_SAMPLED),
    "top_logprobs": ((0,), "the tokens that were not said are not kept"),
    "stop": (([],), "an answer ends by itself, at max_completion_tokens, or by risk.policy"),
    "response_format": (({"type": "text"},), TEXT_ONLY),
    "modalities": ((["text"],), TEXT_ONLY),
    "audio": ((), TEXT_ONLY),
    "prediction": ((), "there is no predicted output"),
    "reasoning_effort": (("none",), "the model does not reason before it answers"),
    "store": ((False,), "nothing of a request is kept"),
    "service_tier": (("auto", "default"), "there is one tier"),
    "verbosity": (("medium",), "the length of an answer is the model's own"),
}
IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
"""Names that a client gives a request for its own books; they change no answer and are not kept."""


def without_refused(content: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are left to read: no null, none that changes nothing.

    `ApiError` names the first that asks for what is not there.
    """
    kept = {}
    for name, value in content.items():
        if value is None or name in IGNORED:
            continue
        if name in REFUSED:
            neutral, why = REFUSED[name]
            if not any(_is(value, one) for one in neutral):
                raise unsupported(name, why)
            continue
        kept[name] = value
    return kept


def _is(value: Any, neutral: Any) -> bool:
    """Equal, and no truth value that passes for a number."""
    return isinstance(value, bool) == isinstance(neutral, bool) and bool(value == neutral)


def whole(content: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """A whole number within bounds; None where it is not there."""
    value = content.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise ApiError(f"{name}: expected a whole number", param=name, code="invalid_type")
    if not least <= value <= most:
        problem = f"must be from {least} to {most}"
        raise ApiError(f"{name}: {problem}", param=name, code="invalid_value")
    return value


def number(content: Mapping[str, Any], name: str, most: float, where: str = "") -> float | None:
    """A finite number from 0 to `most`; None where it is not there."""
    value, param = content.get(name), where + name
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ApiError(f"{param}: expected a number", param=param, code="invalid_type")
    if not 0 <= value <= most:  # also for what is no number
        raise ApiError(f"{param}: must be from 0 to {most:g}", param=param, code="invalid_value")
    return float(value)


def flag(content: Mapping[str, Any], name: str, where: str = "") -> bool:
    """true or false, which it is where it is not there."""
    value = content.get(name, False)
    if not isinstance(value, bool):
        param = where + name
        raise ApiError(f"{param}: expected true or false", param=param, code="invalid_type")
    return value


def known(content: Mapping[str, Any], names: tuple[str, ...], where: str = "") -> None:
    """`ApiError` for a key that nothing reads."""
    for name in content:
        if name not in names:
            param = f"{where}{name}"
            raise ApiError(f"unknown parameter: {param}", param=param, code="unknown_parameter")
