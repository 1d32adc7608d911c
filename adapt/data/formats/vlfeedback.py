"""VLFeedback: four models' answers a row, each rated from 1 to 5 in three respects.

The pair is the best and the worst by Visual Faithfulness; a row whose answers are all rated alike
holds none.
"""

from collections.abc import Iterator, Mapping, Sequence

from adapt.data.formats.raw import (
    Raw,
    Record,
    example,
    expect,
    has,
    pictures_of,
    rows_of,
    text,
    value,
)

NAME = "vlfeedback"
KIND = "preference"
ABOUT = "VLFeedback: prompt, completions with annotations and response, and img_path"

RESPECT = "Visual Faithfulness"


def recognised(head: Sequence[Record]) -> str:
    """Completions that are annotated."""
    found = example(head, "completions")
    first = found[0] if isinstance(found, list | tuple) and found else found
    if has(head, "prompt") and isinstance(first, Mapping) and "annotations" in first:
        return "columns prompt, completions with annotations"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """The best answer against the worst; of equally rated ones the first in the row."""
    completions = rows_of(value(record, "completions"), "completions")
    rated = [(rating, one) for one in completions if (rating := _rating(one)) is not None]
    if not rated:
        return
    best = max(rated, key=lambda pair: pair[0])
    worst = min(rated, key=lambda pair: pair[0])
    if best[0] == worst[0]:
        return
    yield {
        "id": record.get("id"),
        "images": pictures_of(record, "img_path", "image", "images"),
        "question": text(record, "prompt"),
        "chosen": text(best[1], "response"),
        "rejected": text(worst[1], "response"),
        "chosen_score": best[0],
        "rejected_score": worst[0],
    }


def _rating(completion: Record) -> float | None:
    """A rating is a text; "N/A" and other words are none."""
    annotations = expect(value(completion, "annotations"), dict, "annotations")
    found = annotations.get(RESPECT)
    if isinstance(found, Sequence) and not isinstance(found, str) and found:
        found = found[0]
    rating = found.get("Rating") if isinstance(found, Mapping) else found
    try:
        number = float(str(rating))
    except ValueError:
        return None
    return number if 0 <= number <= 10 else None
