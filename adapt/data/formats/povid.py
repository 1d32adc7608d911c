"""POVID: LLaVA's JSON with a second, rejected conversation; its noise is added while training.

Its ids are those of pictures, which several rows share: a row's id is made of its content.
"""

from collections.abc import Iterator, Sequence

from adapt.data.formats.dialogue import answered, asked, messages, with_pictures
from adapt.data.formats.raw import Raw, Record, RowProblem, has, pictures_of, value

NAME = "povid"
KIND = "preference"
ABOUT = "POVID: conversations and rejected_conversations as {from, value}, and image"


def recognised(head: Sequence[Record]) -> str:
    """The column that nobody else has."""
    if has(head, "conversations", "rejected_conversations"):
        return "columns conversations, rejected_conversations"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row: the last turns are compared, what comes before them has to be the same."""
    before, chosen = answered(
        messages(value(record, "conversations"), "conversations"), "conversations"
    )
    other = messages(value(record, "rejected_conversations"), "rejected_conversations")
    before_rejected, rejected = answered(other, "rejected_conversations")
    if [turn.role for turn in before] != [turn.role for turn in before_rejected]:
        raise RowProblem("rejected_conversations: has other turns than conversations")
    if before and before[-1].text != before_rejected[-1].text:
        raise RowProblem("rejected_conversations: the last question is another")
    row = asked(before, "conversations")
    row |= {"chosen": chosen, "rejected": rejected}
    yield with_pictures(row, pictures_of(record, "image", "images"))
