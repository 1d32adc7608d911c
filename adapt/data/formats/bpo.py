"""BPO: a ranked list of completions a row; the first is the truth, the others are made worse."""

from collections.abc import Iterator, Mapping, Sequence

from adapt.data.formats.raw import (
    Raw,
    Record,
    RowProblem,
    example,
    has,
    pictures_of,
    rows_of,
    text,
    value,
)

NAME = "bpo"
KIND = "preference"
ABOUT = "BPO: prompt, image, and completions as a ranked list of {score, response, type}"


def recognised(head: Sequence[Record]) -> str:
    """Completions with a score, and without annotations."""
    found = example(head, "completions")
    first = found[0] if isinstance(found, list | tuple) and found else found
    if has(head, "prompt") and isinstance(first, Mapping) and {"score", "response"} <= set(first):
        return "columns prompt, completions with score and response"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """The first completion against each of the others."""
    best, *others = rows_of(value(record, "completions"), "completions") or [{}]
    if not others:
        raise RowProblem("completions: has no two of them")
    for other in others:
        yield {
            "images": pictures_of(record, "image", "images"),
            "question": text(record, "prompt"),
            "chosen": text(best, "response"),
            "rejected": text(other, "response"),
            "chosen_score": best.get("score"),
            "rejected_score": other.get("score"),
        }
