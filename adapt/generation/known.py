"""The pictures of the validation split in which somebody knows what there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapt.data.schema import Example, Vocabulary, read_vocabulary
from adapt.data.tables import read_split
from adapt.metrics.split import own_words


@dataclass(frozen=True, kw_only=True)
class Known:
    """Questions for descriptions of validation pictures whose objects are known, and the words.

    `file` is that of the whole split.
    """

    file: Path
    rows: Sequence[Example]
    words: Vocabulary

    @classmethod
    def of(cls, splits: Path) -> "Known":
        """Those of a folder of splits; none where nobody knows what is in the pictures."""
        file = splits / "validation.parquet"
        every = read_split(file)
        named = read_vocabulary(splits / "vocabulary.json")
        words = named or Vocabulary(objects=own_words(every), colours=())
        return cls(file=file, rows=described(every), words=words)


def described(rows: Sequence[Example]) -> list[Example]:
    """The questions for descriptions of pictures whose objects are known."""
    return [row for row in rows if row.kind == "describe" and row.objects is not None]
