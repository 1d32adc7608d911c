"""The page in words: sections of facts, the same on a terminal and in HTML.

Whatever comes from outside has been made printable here; HTML escapes it besides.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from adapt.data.formats.detection import SHOWN
from adapt.params import plain

REASONS = 20  # groups of reasons that the page lists; --json has all
WIDTH = 100  # columns of a terminal
LABEL = 18

Figures = Mapping[str, Any]


class Fact(NamedTuple):
    """A line of the page."""

    label: str
    text: str


class Section(NamedTuple):
    """A title and what there is to say under it."""

    title: str
    facts: list[Fact]


def sections(figures: Figures) -> list[Section]:
    """The whole page, without the sections that have nothing to say."""
    found = (Section(title, [*make(figures)]) for title, make in _SECTIONS.items())
    return [one for one in found if one.facts]


def verdict(figures: Figures) -> str:
    """The page in one sentence."""
    rows = figures["rows"]
    refused = f"{_count(rows['rejected'], 'row')} of {rows['read']:,} would be rejected"
    said = refused if rows["rejected"] else f"all {rows['read']:,} rows would be taken in"
    return f"{said}; no splits would be written" if figures["stops"] else said


def terminal(figures: Figures) -> str:
    """The page as lines of text."""
    lines = [f"{plain(figures['source'])}: {verdict(figures)}"]
    indent = " " * (LABEL + 3)
    for title, facts in sections(figures):
        lines += ["", title]
        for label, text in facts:
            wrapped = textwrap.wrap(text, WIDTH - len(indent), break_long_words=False)
            lines += [f"  {label:<{LABEL}} {line}" for line in wrapped[:1]]
            lines += [f"{indent}{line}" for line in wrapped[1:]]
    return "\n".join(lines)


# ---- the sections --------------------------------------------------------------------------------


def _source(figures: Figures) -> Iterator[Fact]:
    yield Fact("format", f"{figures['format']}: {plain(figures['why'])}")
    if figures["revision"]:
        yield Fact("revision", plain(figures["revision"]))
    files = [f"{plain(file['name'])} ({_count(file['rows'], 'row')})" for file in figures["files"]]
    yield Fact("files", _listed(files))
    if figures["left_out"]:
        yield Fact("left out", f"of another format: {_listed([*map(plain, figures['left_out'])])}")
    if figures["limit"]:
        looked = f"the first {figures['limit']:,} records only; everything below is about these"
        yield Fact("looked at", looked)


def _rows(figures: Figures) -> Iterator[Fact]:
    rows, truth, again = figures["rows"], figures["truth"], figures["duplicates"]
    kinds = [f"{rows[kind]:,} {kind}" for kind in ("preference", "evaluation") if rows[kind]]
    taken = f"{rows['accepted']:,} of {rows['read']:,}"
    yield Fact("taken in", f"{taken} ({', '.join(kinds)})" if kinds else taken)
    if figures["kinds"]:
        yield Fact("questions", _counted(figures["kinds"]))
    if figures["turns"]:
        yield Fact("turns", _spread(figures["turns"]))
    states = {"unknown": "unknown", "none": "known to be none", "known": "known"}
    objects = [f"{states[state]} in {truth[state]:,}" for state in states if truth[state]]
    if objects:
        rows_in = f"{', '.join(objects)} of the rows; boxes in {truth['boxes']:,}"
        yield Fact("objects", rows_in)
    for note, count in figures["notes"].items():
        yield Fact("note", f"{plain(note)} ({_count(count, 'row')})")
    same = f"{again['same_row']:,} repeat a row, {again['said_again']:,} under an id of their own"
    yield Fact("duplicates", f"{same}; {again['same_id']:,} have the id of another row")


def _lengths(figures: Figures) -> Iterator[Fact]:
    lengths = figures["lengths"]
    yield Fact("counted in", f"{lengths['unit']}: {lengths['why']}")
    for name in ("question", "answer", "chosen", "rejected"):
        if name in lengths:
            yield Fact(name, _spread(lengths[name]))
    if bias := figures["length_bias"]:
        longer = f"chosen is longer in {_count(bias['chosen_longer'], 'row')}, rejected in"
        mean = f"chosen has {bias['mean_difference']:+.1f} {lengths['unit']} on average"
        yield Fact("length bias", f"{longer} {bias['rejected_longer']:,}; {mean}")


def _pictures(figures: Figures) -> Iterator[Fact]:
    found, alike = figures["pictures"], figures["alike"]
    shared = f"{alike['in_several_rows']:,} of them in several rows"
    yield Fact("distinct", f"{found['distinct']:,}, {shared}")
    if not found["distinct"]:
        return
    yield Fact("in a row", _spread(found["a_row"] or {}))
    if found["with_rejected"]:
        rejected = _count(found["with_rejected"], "row")
        yield Fact("rejected pictures", f"{rejected} with pictures of the rejected answer")
    yield Fact("kinds", _counted(found["formats"]))
    yield Fact("modes", _counted(found["modes"]))
    yield Fact("width", f"{_spread(found['width'])} pixels")
    yield Fact("height", f"{_spread(found['height'])} pixels")
    for note, count in found["notes"].items():
        yield Fact("note", f"{note} ({_count(count, 'picture')})")


def _alike(figures: Figures) -> Iterator[Fact]:
    found = figures["alike"]
    meant = {"identical": "identical, with several image ids"}
    kinds = {meant.get(kind, kind): n for kind, n in found["kinds"].items() if n}
    yield Fact("found", _counted(kinds) or "none")
    yield Fact("how sure", found["false_alarms"])
    yield from (Fact("for example", plain(one)) for one in found["examples"])


def _leaks(figures: Figures) -> Iterator[Fact]:
    found = figures["leaks"]
    shared = f"{_count(found['shared_rows'], 'row')} with a picture of another split, rejected"
    alike = f"pictures that look like one of another split: {_counted(found['kinds']) or 'none'}"
    is_clean = not found["shared_rows"] and not found["kinds"]
    yield Fact("given splits", "none" if is_clean else f"{shared}; {alike}")
    yield from (Fact("for example", plain(one)) for one in found["examples"])
    for one in figures["benchmarks"]:
        where = f"{one['pictures']:,} pictures of {plain(one['path'])}"
        unreadable = f"; {one['unreadable']:,} more cannot be read" if one["unreadable"] else ""
        leaked = f"{_count(one['leaked'], 'picture')} in {_count(one['rows'], 'row')}"
        said = f"{leaked} ({_counted(one['kinds'])})" if one["leaked"] else "none"
        yield Fact(plain(one["name"]), f"{said}, among {where}{unreadable}")
        yield from (Fact("for example", plain(example)) for example in one["examples"])


def _rejected(figures: Figures) -> Iterator[Fact]:
    groups: Sequence[Mapping[str, Any]] = figures["rejected"]
    for group in groups[:REASONS]:
        label = _count(group["count"], "row")
        yield Fact(label, f"{plain(group['reason'])}. First: {plain(group['example'])}")
    if len(groups) > REASONS:
        yield Fact("and more", f"{len(groups) - REASONS} other reasons; --json lists them")


def _splits(figures: Figures) -> Iterator[Fact]:
    for split, one in figures["splits"].items():
        rows, pictures = _count(one["rows"], "row"), _count(one["pictures"], "picture")
        yield Fact(split, f"{rows} about {pictures}, {one['how']}")
    if figures["stops"]:
        yield Fact("stage data stops", plain(figures["stops"]))


_SECTIONS: dict[str, Callable[[Figures], Iterator[Fact]]] = {
    "What it is": _source,
    "Rows": _rows,
    "Lengths (least, median, 95th percentile, most)": _lengths,
    "Pictures": _pictures,
    "Pictures that look alike": _alike,
    "Leaks": _leaks,
    "What would be rejected": _rejected,
    "Splits that stage data would write": _splits,
}


# ---- words ---------------------------------------------------------------------------------------


def _count(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{plain(name)} {count:,}" for name, count in counts.items())


def _spread(found: Mapping[str, float]) -> str:
    values = [f"{value:,.10g}" for value in found.values()]
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
