"""POPE's questions as evaluation data: JSON lines with question_id, image, text and label."""

from collections.abc import Iterator, Sequence

from adapt.data.formats.raw import Raw, Record, RowProblem, has, pictures_of, text
from adapt.params import shown

NAME = "pope"
KIND = "evaluation"
ABOUT = "POPE: question_id, image, text, label (yes or no)"


def recognised(head: Sequence[Record]) -> str:
    """The columns of a question file; an answer file has no label."""
    if has(head, "question_id", "image", "text", "label"):
        return "columns question_id, image, text, label"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One yes/no question."""
    label = str(record.get("label")).strip().lower()
    if label not in ("yes", "no"):
        raise RowProblem(f"label: expected yes or no, got {shown(record.get('label'))}")
    yield {
        "id": record.get("question_id"),
        "images": pictures_of(record, "image"),
        "kind": "exists",
        "question": text(record, "text"),
        "answer": label,
    }
