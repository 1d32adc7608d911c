"""What was measured, as the rows of tables: figures before and after, parameters that differ."""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapt.metrics.headline import HEADLINES
from adapt.metrics.measures import BENCHMARKS, SPLIT, measure, parts
from adapt.report.reading import Record

UNCHANGED = 1e-9


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The change from base to tuned model with its 95 % interval, in the metric's unit."""

    low: float
    high: float
    point: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one run; a text is "" where it was not measured.

    `tone` says whether the change is for the better: "good", "bad" or "", which is also that of a
    change whose interval holds zero. `reference` is the champion that the gate compared it with,
    where that was another model than the base.
    """

    key: str
    title: str
    better: str
    before: str
    after: str
    reference: str
    change: str
    interval: Interval | None
    range: str
    tone: str


@dataclass(frozen=True)
class _Shown:
    """How a metric is spoken of."""

    title: str
    better: str
    digits: int


def headline(record: Record) -> list[Row]:
    """The few numbers that a retraining is judged by."""
    keys = sorted((number.key for number in HEADLINES), key=lambda key: key != "hal")
    return [row for key in keys if (row := _row(record, key))]


def others(record: Record) -> list[Row]:
    """Everything else that was measured of both arms: of the test split first, then benchmarks."""
    main = {number.key for number in HEADLINES}
    there = {
        key.removeprefix(f"test/{arm}/")
        for arm in ("base", "tuned")
        for key in record.metrics
        if key.startswith(f"test/{arm}/")
    }
    split = [key for key in SPLIT if key in there]
    rest = sorted(there - set(split))
    return [row for key in (*split, *rest) if key not in main and (row := _row(record, key))]


def _row(record: Record, key: str) -> Row | None:
    old, new = (record.metrics.get(f"test/{arm}/{key}") for arm in ("base", "tuned"))
    if old is None and new is None:
        return None
    shown = _shown(record, key)
    change = None if old is None or new is None else new - old
    interval = _interval(record, key)
    return Row(
        key=key,
        title=shown.title,
        better={"lower": "lower is better", "higher": "higher is better"}.get(shown.better, ""),
        before=number(old, shown.digits),
        after=number(new, shown.digits),
        reference=number(_reference(record).get(shown.title), shown.digits),
        change="" if change is None else f"{change:+z.{shown.digits}f}",
        interval=interval,
        range=_range(interval, shown.digits),
        tone=tone(change, interval, shown.better),
    )


def _shown(record: Record, key: str) -> _Shown:
    """Title, direction and decimals of a metric; the key itself for one that is not known."""
    for one in HEADLINES:
        if one.key == key:
            return _Shown(one.title, one.better, one.digits)
    label, metric = parts(key)
    names = labels(record.params)
    if key in SPLIT or (label in names and metric in BENCHMARKS.get(names[label], {})):
        found = measure(key, names)
        return _Shown(found.title[:1].upper() + found.title[1:], found.better, found.digits)
    return _Shown(key, "", 3)


def labels(params: Mapping[str, str]) -> dict[str, str]:
    """The benchmark behind each label that was asked, as far as the parameters tell it."""
    known = {name: name for name in BENCHMARKS}
    try:
        entries = ast.literal_eval(params.get("answer.benchmarks", "[]")[:100_000])
        return known | {str(one.get("label") or one["name"]): str(one["name"]) for one in entries}
    except (ValueError, SyntaxError, TypeError, KeyError, AttributeError, RecursionError):
        return known


def number(value: float | None, digits: int) -> str:
    """A value in a cell."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def tone(change: float | None, interval: Interval | None, better: str) -> str:
    """Whether a change is good or bad; "" where it may be chance, or neither."""
    if change is None or not better or abs(change) < UNCHANGED or not math.isfinite(change):
        return ""
    if interval and interval.low <= 0 <= interval.high:
        return ""
    return "good" if (change < 0) == (better == "lower") else "bad"


def _reference(record: Record) -> dict[str, float]:
    """What the gate had of the champion, by title; empty where it asked about the base."""
    if not record.tags.get("adapt.against", "").startswith("champion"):
        return {}
    try:
        told = json.loads(record.tags.get("adapt.figures", "{}"))
        return {str(title): float(old) for title, (old, _) in told.items() if old is not None}
    except (ValueError, TypeError, AttributeError):
        return {}  # cut, or not ours


def _interval(record: Record, key: str) -> Interval | None:
    ends = [record.metrics.get(f"test/difference/{key}{end}") for end in ("_low", "_high", "")]
    low, high, point = ends
    if low is None or high is None or point is None or not all(map(math.isfinite, ends)):  # type: ignore[arg-type]
        return None
    return Interval(low=low, high=high, point=point)


def _range(interval: Interval | None, digits: int) -> str:
    return f"{interval.low:+z.{digits}f} to {interval.high:+z.{digits}f}" if interval else ""


@dataclass(frozen=True)
class Difference:
    """A parameter that two runs do not share; "" where a run has none of that name."""

    key: str
    values: tuple[str, ...]


def differing(records: Sequence[Record]) -> list[Difference]:
    """The parameters in which runs differ, by name."""
    keys = sorted({key for record in records for key in record.params})
    rows = [Difference(key, tuple(one.params.get(key, "") for one in records)) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]
