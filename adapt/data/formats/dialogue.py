"""Conversations as they are published, to earlier turns and a question.

Messages are {role, content} or {from, value}; content is a text or a list of parts, in which a
picture becomes the tag `<image>`. A record has no place for a system turn: it is left out, and the
row says so in its notes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapt.data.formats.raw import Raw, RowProblem, expect, listed, pictures
from adapt.data.schema import IMAGE_TAG
from adapt.params import shown

ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    "system": "system",
}
SYSTEM_DROPPED = "a system turn was left out"


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, what is said, and the pictures that the turn itself brings along."""

    role: str
    text: str
    pictures: tuple[dict[str, Any], ...] = ()


def messages(found: Any, column: str) -> list[Message]:
    """A list of messages, or one, in any of the published forms."""
    turns = [found] if isinstance(found, Mapping) else listed(found)
    if not isinstance(turns, list | tuple):
        raise RowProblem(f"{column}: expected a text or messages, got {shown(found)}")
    return [_message(expect(turn, dict, column), column) for turn in turns]


def messages_of(found: Any, column: str) -> list[Message]:
    """A question given as a text, or as the messages up to it."""
    return [Message("user", found)] if isinstance(found, str) else messages(found, column)


def _message(turn: Mapping[str, Any], column: str) -> Message:
    role = turn.get("role") if turn.get("role") is not None else turn.get("from")
    if not isinstance(role, str) or role not in ROLES:
        raise RowProblem(f"{column}: a turn of {shown(role)}; known: {', '.join(ROLES)}")
    content = turn.get("content") if "content" in turn else turn.get("value")
    if isinstance(content, str):
        return Message(ROLES[role], content)
    parts = [_part(expect(part, dict, column), column) for part in expect(content, list, column)]
    brought = tuple(picture for _, found in parts for picture in found)
    return Message(ROLES[role], "".join(said for said, _ in parts), brought)


def _part(part: Mapping[str, Any], column: str) -> tuple[str, list[dict[str, Any]]]:
    """The text of a part, and the picture in it if it brings one."""
    kind = part.get("type") or ("text" if part.get("text") is not None else "image")
    if kind == "text":
        return expect(part.get("text"), str, column), []
    if kind not in ("image", "image_url"):
        raise RowProblem(f"{column}: a part of type {shown(kind)}; only text and image are read")
    brought = next(
        (part[key] for key in ("image", "image_url", "url", "path") if part.get(key)), None
    )
    return IMAGE_TAG, pictures(brought, column)


def asked(turns: Sequence[Message], column: str) -> Raw:
    """A conversation that ends with a question: history, question, notes, and pictures it brings.

    >>> asked([Message("user", "Is it red?")], "prompt")["question"]
    'Is it red?'
    """
    spoken = [turn for turn in turns if turn.role != "system"]
    roles = [turn.role for turn in spoken]
    if not spoken or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise RowProblem(f"{column}: user and assistant do not take turns up to a user's question")
    pairs = zip(spoken[0:-1:2], spoken[1::2], strict=True)
    return {
        "history": [{"question": user.text, "answer": reply.text} for user, reply in pairs],
        "question": spoken[-1].text,
        "notes": [SYSTEM_DROPPED] if len(spoken) < len(turns) else [],
        "brought": [picture for turn in spoken for picture in turn.pictures],
    }


def answered(turns: Sequence[Message], column: str) -> tuple[list[Message], str]:
    """A conversation that ends with an answer: what comes before it, and the answer."""
    if not turns or turns[-1].role != "assistant":
        raise RowProblem(f"{column}: does not end with a turn of the assistant")
    return list(turns[:-1]), turns[-1].text


def answer(found: Any, column: str) -> tuple[list[Message], str]:
    """An answer given as text, as a message, or as a conversation; and the turns before it."""
    if isinstance(found, str):
        return [], found
    return answered(messages(found, column), column)


def compared(prompt: Sequence[Message], chosen: Any, rejected: Any) -> Raw:
    """A question with two answers, either of which may repeat the conversation before it.

    Where both answers bring a conversation, it has to be the same one.
    """
    before_chosen, better = answer(chosen, "chosen")
    before_rejected, worse = answer(rejected, "rejected")
    if before_rejected and before_rejected != before_chosen:
        raise RowProblem("rejected: its conversation is another than that of chosen")
    turns = list(prompt)
    if before_chosen:  # the prompt again, or its continuation, or (without a prompt) all there is
        repeats = [t.text for t in before_chosen][: len(turns)] == [t.text for t in turns]
        turns = before_chosen if repeats else turns + before_chosen
    return asked(turns, "prompt") | {"chosen": better, "rejected": worse}


def alternating(pairs: Sequence[Any], column: str) -> list[Message]:
    """History as alpaca's [[question, answer], ...]."""
    turns = []
    for pair in pairs:
        if len(both := expect(pair, list, column)) != 2:
            raise RowProblem(f"{column}: expected pairs of question and answer, got {shown(pair)}")
        question, reply = both
        turns += [Message("user", expect(question, str, column))]
        turns += [Message("assistant", expect(reply, str, column))]
    return turns


def with_pictures(raw: Raw, found: Sequence[dict[str, Any]]) -> Raw:
    """The row with its pictures: those of its column, or those that its messages bring along."""
    brought = raw.pop("brought", [])
    return {**raw, "images": list(found) or brought}
