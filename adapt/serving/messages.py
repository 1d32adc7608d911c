"""The messages of a chat completion as one question: its pictures, and the turns before it.

A dialogue alternates between `user` and `assistant` and ends with a question. Pictures that stand
before all words stay there; where one follows a word, `<image>` marks the place of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapt.data.schema import IMAGE_TAG, Turn
from adapt.serving.api_errors import ApiError, unsupported
from adapt.serving.options import known
from adapt.serving.settings import Limits

EMPTY = ("refusal", "audio", "function_call", "tool_calls", "annotations", "name")
"""What a client sends back with an answer of ours: nothing in it, or a name that is not read."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as it is named: its URL, and the parameter that has it."""

    url: str
    param: str


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """What was asked, and the turns before; pictures in the order of their places."""

    question: str
    history: tuple[Turn, ...]
    pictures: tuple[Picture, ...]


def dialogue(messages: Any, limits: Limits) -> Dialogue:
    """The dialogue in `messages`; `ApiError` names what is not as it should be."""
    # 1. A list of turns that alternate, a question last.
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "expected a list of messages")
    if len(messages) > 2 * limits.turns - 1:
        raise _wrong("messages", f"at most {limits.turns} questions in a dialogue")
    if len(messages) % 2 == 0:
        raise _wrong("messages", "the last message must be a question of the user's")
    read = [_message(one, number) for number, one in enumerate(messages)]
    # 2. Where its pictures stand: before all words, or at tags.
    parts = [part for one in read for part in one]
    pictures = tuple(part for part in parts if isinstance(part, Picture))
    _check_counts(pictures, parts, limits)
    is_tagged = any(
        isinstance(part, Picture) and any(isinstance(one, str) for one in parts[:place])
        for place, part in enumerate(parts)
    )
    texts = [_text(one, is_tagged=is_tagged) for one in read]
    # 3. Questions and answers in pairs.
    pairs = zip(texts[:-1:2], texts[1::2], strict=True)
    history = tuple(Turn(question=question, answer=answer) for question, answer in pairs)
    return Dialogue(question=texts[-1], history=history, pictures=pictures)


def _wrong(param: str, problem: str, code: str = "invalid_value") -> ApiError:
    return ApiError(f"{param}: {problem}", param=param, code=code)


def _check_counts(pictures: tuple[Picture, ...], parts: list[Any], limits: Limits) -> None:
    if not pictures:
        raise _wrong("messages", "expected a picture, as a part of type image_url")
    if len(pictures) > limits.pictures:
        raise _wrong(pictures[limits.pictures].param, f"at most {limits.pictures} pictures")
    count = sum(len(part) for part in parts if isinstance(part, str))
    if count > limits.question_chars:
        raise _wrong("messages", f"more than {limits.question_chars} characters of text")


def _message(message: Any, number: int) -> list[Picture | str]:
    """Pictures and texts of a message, in order."""
    where = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise _wrong(where, "expected a message with role and content")
    role, expected = message.get("role"), "assistant" if number % 2 else "user"
    if role in ("system", "developer"):
        why = "the model's own prompt is part of what was measured; section prompt sets it"
        raise unsupported(f"{where}.role", why)
    if role in ("tool", "function"):
        raise unsupported(f"{where}.role", "this server calls no tools")
    if role != expected:
        raise _wrong(f"{where}.role", f"expected {expected}: turns alternate, the user begins")
    for name in EMPTY:
        if name != "name" and message.get(name):
            raise unsupported(f"{where}.{name}", "turns are text, and pictures of the user's")
    known(message, ("role", "content", *EMPTY), f"{where}.")
    found = _content(message.get("content"), f"{where}.content", expected)
    if not any(isinstance(part, str) and part.strip() for part in found):
        raise _wrong(f"{where}.content", "expected a text")
    return found


def _content(content: Any, where: str, role: str) -> list[Picture | str]:
    if isinstance(content, str):
        return [_checked(content, where)]
    if not isinstance(content, list):
        raise _wrong(where, "expected a text or a list of parts", "invalid_type")
    found: list[Picture | str] = []
    for number, part in enumerate(content):
        place = f"{where}[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            known(part, ("type", "text"), f"{place}.")
            found.append(_checked(part.get("text"), f"{place}.text"))
        elif kind == "image_url" and role == "user":
            known(part, ("type", "image_url"), f"{place}.")
            found.append(_picture(part.get("image_url"), f"{place}.image_url"))
        else:
            raise _wrong(f"{place}.type", "expected text, or image_url in a question")
    return found


def _picture(named: Any, where: str) -> Picture:
    url = named.get("url") if isinstance(named, Mapping) else None
    if not isinstance(url, str):
        raise _wrong(f"{where}.url", "expected a data URL", "invalid_type")
    known(named, ("url", "detail"), f"{where}.")
    if named.get("detail", "auto") not in ("auto", "low", "high", None):
        raise _wrong(f"{where}.detail", "expected auto, low or high")
    return Picture(url=url, param=f"{where}.url")


def _checked(text: Any, where: str) -> str:
    if not isinstance(text, str):
        raise _wrong(where, "expected a text", "invalid_type")
    if IMAGE_TAG in text:
        raise _wrong(where, f"{IMAGE_TAG} stands for a picture; send it as a part of its own")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise _wrong(where, "holds half a character")
    return text


def _text(parts: list[Picture | str], *, is_tagged: bool) -> str:
    """A message as one text, its pictures marked or left out.

    >>> _text(["What", Picture(url="", param=""), "is this?"], is_tagged=True)
    'What\\n<image>\\nis this?'
    """
    if is_tagged:
        return "\n".join(part if isinstance(part, str) else IMAGE_TAG for part in parts)
    return "\n".join(part for part in parts if isinstance(part, str))
