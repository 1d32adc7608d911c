"""Our own rows, evaluation or preference: the columns of `adapt/data/columns.py`, in any file type.

Only a question, a picture and an answer (or two) have to be there; whatever else is missing is not
known.
"""

from collections.abc import Iterator, Sequence

from adapt.data.formats.raw import Raw, Record, columns_of, has, pictures, pictures_of, value

NAME = "parquet"
KIND = "either"
ABOUT = "our own rows: question, answer (or chosen, rejected), image or images, and more"

MARKS = ("image_id", "kind", "history", "rejected_images", "absent")
KEPT = (
    *("id", "image_id", "kind", "history", "question", "answer", "chosen", "rejected"),
    *("chosen_score", "rejected_score", "objects", "absent"),
)


def recognised(head: Sequence[Record]) -> str:
    """A pair beside a column that only we have, or a question with its answer."""
    columns = columns_of(head)
    pictured = next((name for name in ("image", "images") if name in columns), "")
    marks = [name for name in MARKS if name in columns]
    if not (pictured and "question" in columns):
        return ""
    if has(head, "chosen", "rejected") and {"id", "kind"} & columns and marks:
        return f"columns {pictured}, question, chosen, rejected, {', '.join(marks)}"
    if has(head, "answer") and not {"chosen", "rejected", "reject"} & columns:
        return f"columns {', '.join([pictured, 'question', 'answer', *marks])}"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row, its columns as they are."""
    row = {column: record[column] for column in KEPT if record.get(column) is not None}
    row["question"] = value(record, "question")
    if "chosen" not in row and "rejected" not in row:
        row["answer"] = value(record, "answer")
    row["rejected_images"] = pictures(record.get("rejected_images"), "rejected_images")
    yield row | {"images": pictures_of(record, "images", "image")}
