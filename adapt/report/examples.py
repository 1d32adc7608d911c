"""What the model was shown and what it said: panels of pictures, and a table of answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from adapt.metrics.headline import ARMS
from adapt.names import file_name
from adapt.report import pictures
from adapt.report.reading import Record
from adapt.report.telling import LETTERS, line

PICTURES = 14  # of a run
ANSWERS = 8  # rows of the table of answers
OVERVIEW = ("before_after.png", "answer_strip.png")
"""Figures of stage `evaluate` that the page's own curves and tables do not tell."""

Marked = list[tuple[str, bool]]


@dataclass(frozen=True)
class Panel:
    """A picture with what stands below it and, for those who do not see it, in its place."""

    source: Markup
    width: int
    height: int
    caption: str
    alt: str


@dataclass(frozen=True)
class Answer:
    """A question with what each column says to it, in parts that are marked or not."""

    id: str
    question: str
    texts: list[Marked]


def panels(records: Sequence[Record]) -> tuple[list[Panel], int]:
    """Pictures of one run, or of two side by side where they share them; how many are left out."""
    kept: list[tuple[tuple[bool, int, str, str], Panel]] = []
    dropped = 0
    names = [{name for name in record.pictures if name.startswith("panel_")} for record in records]
    shared = set.intersection(*names)
    for letter, record, own in zip(LETTERS, records, names, strict=False):
        wanted = [name for name in OVERVIEW if name in record.pictures]
        wanted += [*sorted(shared), *sorted(own - shared)]
        embedded, lost = pictures.embedded(record.pictures, wanted[:PICTURES])
        dropped += lost + len(wanted[PICTURES:])
        said = {file_name(row.get("id", "")): row for row in record.answers}
        whose = f"{letter}: " if len(records) > 1 else ""
        for one in embedded:
            first = OVERVIEW.index(one.name) if one.name in OVERVIEW else len(OVERVIEW)
            alone = one.name not in shared and one.name not in OVERVIEW
            place = (alone, first, one.name, letter)
            kept.append((place, _panel(one, said, whose)))
    return [panel for _, panel in sorted(kept, key=lambda one: one[0])], dropped


def _panel(picture: pictures.Picture, said: Mapping[str, Mapping[str, str]], whose: str) -> Panel:
    titles = {
        "before_after.png": "The main figures of all four arms.",
        "answer_strip.png": "One answer by token: where the model looked, and the risk told.",
    }
    name = line(picture.name.removeprefix("panel_").removesuffix(".png"))
    caption = titles.get(picture.name, name)
    alt = caption
    if picture.name not in titles:
        alt = f"Test picture {name} with heat maps of attention before and after, and the answers."
    if row := said.get(name):
        words = {ARMS[arm]: row[arm].replace("**", "") for arm in ("base", "tuned") if arm in row}
        alt += "".join(f" {title.capitalize()}: {text}" for title, text in words.items())
    return Panel(
        Markup(picture.source), picture.width, picture.height, whose + caption, line(whose + alt)
    )


def answers(records: Sequence[Record]) -> tuple[list[str], list[Answer]]:
    """Column names and rows: the questions that a tuned model answers otherwise than its base."""
    first = records[0]
    columns = [(first, "base", "before")]
    for letter, record in zip(LETTERS, records, strict=False):
        columns.append((record, "tuned", f"after {letter}" if len(records) > 1 else "after"))
    by_id = [{row.get("id", ""): row for row in record.answers} for record, _, _ in columns]
    rows: list[Answer] = []
    for identity, row in by_id[0].items():
        texts = [
            own.get(identity, {}).get(arm, "")
            for own, (_, arm, _) in zip(by_id, columns, strict=True)
        ]
        if all(texts) and len(set(texts)) > 1 and len(rows) < ANSWERS:
            question = line(row.get("question", ""))
            parts = [list(_marked(text)) for text in texts]
            rows.append(Answer(line(identity), question, parts))
    return [name for _, _, name in columns], rows


def _marked(text: str) -> Iterable[tuple[str, bool]]:
    """An answer in parts: what stands between double asterisks is marked.

    >>> list(_marked("a **cat** on a bed"))
    [('a ', False), ('cat', True), (' on a bed', False)]
    """
    parts = line(text).split("**")
    return [(part, bool(place % 2)) for place, part in enumerate(parts) if part]
