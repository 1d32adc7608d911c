"""The ledger for a person's eyes: how things stand, and how they came to be."""

from collections.abc import Iterator, Sequence

from adapt.names import one_line
from adapt.registry import registry
from adapt.registry.entries import name_of
from adapt.registry.ledger import Entry
from adapt.registry.standing import Standing
from adapt.tracking.store import Store

LAST = 5  # entries that `status` shows
HEAD = ("no", "when", "who", "what", "version", "champion", "data", "commit", "why")
WIDTH = 60  # characters of a reason in the table


def status(store: Store) -> list[str]:
    """Champion, previous and what waits, a sentence each, then the last entries."""
    model, stands = store.config.model, registry.shown_state(store)
    lines = [f"{model}: {_champion(stands)}"]
    if stands.previous:
        lines.append(f"previous: version {stands.previous} (`rollback` leads there)")
    if waiting := stands.waiting:
        advice = (
            f"`python -m flows.promote approve {waiting.of}` or `reject {waiting.of} --why ...`"
        )
        lines.append(f"version {waiting.of} passed the gate on {waiting.when} and awaits: {advice}")
        lines += [f"  {reason}" for reason in waiting.reasons]
    return [*map(one_line, [*lines, *_gaps(store, stands)]), *_table(stands, LAST)]


def history(store: Store) -> list[str]:
    """Every entry, oldest first, a line each; those that did not count are in brackets."""
    stands = registry.shown_state(store)
    if not stands.log.entries:
        return [f"{store.config.model}: nothing was decided yet"]
    return [*map(one_line, _gaps(store, stands)), *_table(stands)]


def _champion(stands: Standing) -> str:
    if stands.champion is None:
        return "there is no champion"
    moves = (entry for entry in stands.counted if entry.to)
    since = next((f" since {e.when} ({_move(e)}: {e.what} by {e.who})" for e in moves), "")
    return f"version {stands.champion} is the champion{since}"


def _move(entry: Entry) -> str:
    return f"{entry.against or 'none'} -> {entry.to}"


def _gaps(store: Store, stands: Standing) -> Iterator[str]:
    """What is said where somebody has taken entries out of the ledger."""
    if missing := stands.log.missing:
        which = ", ".join(map(str, missing))
        yield f"{name_of(store.config.model)}: deleted by hand, and not counted: entry {which}"


def _table(stands: Standing, last: int = 0) -> list[str]:
    shown = stands.log.entries[-last:]
    rows = [HEAD, *(_row(entry, entry.number in stands.state.ignored) for entry in shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows] if shown else []


def _row(entry: Entry, is_ignored: bool) -> tuple[str, ...]:
    move = _move(entry) if entry.to else entry.against or "none"
    what = f"({entry.what})" if is_ignored else entry.what
    why = "; ".join(entry.reasons)
    cells = [str(entry.number), entry.when, entry.who, what, entry.of or "-", move]
    cells += [entry.data[:6] or "-", entry.revision[:7] or "-"]
    return (*(one_line(cell, 40) for cell in cells), one_line(why, WIDTH))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join(cells).rstrip()
