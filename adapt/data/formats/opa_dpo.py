"""OPA-DPO: the model's own answer against the one that a stronger model corrected."""

from collections.abc import Iterator, Sequence

from adapt.data.formats.raw import Raw, Record, has, pictures, text, value

NAME = "opa-dpo"
KIND = "preference"
ABOUT = "OPA-DPO: queries, image_bytes, original_generate_response, AI_pseudo_response"


def recognised(head: Sequence[Record]) -> str:
    """The two answers' own names."""
    if has(head, "original_generate_response", "AI_pseudo_response"):
        return "columns queries, image_bytes, original_generate_response, AI_pseudo_response"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row; the report of scores by sentence is not read."""
    yield {
        "images": pictures(value(record, "image_bytes", "image"), "image_bytes"),
        "question": text(record, "queries"),
        "chosen": text(record, "AI_pseudo_response"),
        "rejected": _unrepeated(text(record, "original_generate_response")),
    }


def _unrepeated(answer: str) -> str:
    """An answer that got stuck, up to the first time that it says its last sentence.

    >>> _unrepeated("A dog. It is red. It is red. It is red.")
    'A dog. It is red.'
    """
    sentences = answer.split(". ")
    last = sentences[-1].rstrip(".")
    while len(sentences) > 1 and sentences[-2].rstrip(".") == last:
        del sentences[-2]
    return ". ".join(sentences)
