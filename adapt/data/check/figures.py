"""The page as values: what was understood of a source, and what stage `data` would make of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from adapt.data.check.examined import Examined
from adapt.data.check.lengths import Measure, spread
from adapt.data.check.pictures import alike, pictures
from adapt.data.check.rejections import grouped
from adapt.data.schema import SPLITS
from adapt.progress import track

AT_ONCE = 256  # rows whose texts are measured together
EXAMPLES = 5
_TEXTS = ("question", "answer", "chosen", "rejected")


def figures(
    examined: Examined, measure: Measure, benchmarks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All that the page says, as values of JSON; `benchmarks` as `benchmarks.leaks` has them."""
    said = _Said(measure)
    accepted = len(examined.rows) - len(examined.reasons)
    known = (examined.known(row) for _, row in examined.accepted())
    for some in _batches(track(known, "measuring texts", accepted)):
        said.add(some)
    return {
        "source": examined.source.named,
        "revision": examined.source.revision,
        "limit": examined.limit or None,
        "format": examined.recognised.format,
        "why": examined.recognised.why,
        "left_out": list(examined.recognised.left_out),
        "files": _files(examined),
        "rows": _rows(examined),
        **said.figures(),
        "truth": _truth(examined) | {"boxes": said.boxed},
        "pictures": pictures(examined),
        "rejected": grouped(examined.reasons, examined.place),
        "duplicates": _duplicates(examined),
        "alike": alike(examined, EXAMPLES),
        "leaks": _leaks(examined),
        "benchmarks": list(benchmarks),
        "splits": _splits(examined),
        "stops": examined.stops,
    }


# ---- texts ---------------------------------------------------------------------------------------


class _Said:
    """What the accepted rows say, added up some rows at a time."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._lengths: dict[str, list[int]] = {name: [] for name in _TEXTS}
        self._turns: list[int] = []
        self._kinds, self._notes = Counter[str](), Counter[str]()
        self.boxed = 0  # rows with a box

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows as the store of verdicts has them."""
        for known in rows:
            row = known["row"]
            self._turns.append(1 + len(row["history"]))
            self._kinds[row["kind"]] += 1
            self._notes.update(set(known["notes"]))
            self.boxed += any(thing["box"] for thing in row["objects"] or ())
        for name in _TEXTS:
            texts = [known["row"][name] for known in rows if name in known["row"]]
            self._lengths[name] += self._measure(texts)

    def figures(self) -> dict[str, Any]:
        """The parts of the page that are about texts."""
        return {
            "kinds": dict(self._kinds.most_common()),
            "turns": spread(self._turns),
            "notes": dict(self._notes.most_common()),
            "lengths": {
                "unit": self._measure.unit,
                "why": self._measure.why,
                **{name: spread(found) for name, found in self._lengths.items() if found},
            },
            "length_bias": self._bias(),
        }

    def _bias(self) -> dict[str, float] | None:
        """How much longer chosen answers are: what preference training learns as well."""
        pairs = [*zip(self._lengths["chosen"], self._lengths["rejected"], strict=True)]
        if not pairs:
            return None
        return {
            "chosen_longer": sum(chosen > rejected for chosen, rejected in pairs),
            "equal": sum(chosen == rejected for chosen, rejected in pairs),
            "rejected_longer": sum(chosen < rejected for chosen, rejected in pairs),
            "mean_difference": sum(chosen - rejected for chosen, rejected in pairs) / len(pairs),
        }


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while some := [*islice(rows, AT_ONCE)]:
        yield some


# ---- rows ----------------------------------------------------------------------------------------


def _files(examined: Examined) -> list[dict[str, Any]]:
    """Each file that holds rows of the format, with how many rows it gave."""
    counts = Counter(row.file for row in examined.rows)
    kinds = examined.recognised.kinds
    return [{"name": name, "rows": counts[name], "kind": kinds[name]} for name in kinds]


def _rows(examined: Examined) -> dict[str, int]:
    kinds = Counter(row.kind for _, row in examined.accepted())
    return {
        "read": len(examined.rows),
        "accepted": kinds.total(),
        "rejected": len(examined.reasons),
        "preference": kinds["preference"],
        "evaluation": kinds["evaluation"],
    }


def _truth(examined: Examined) -> dict[str, int]:
    """Rows by what is known of the objects in their pictures."""
    counts = [row.objects for _, row in examined.accepted()]
    states = Counter("unknown" if n < 0 else "known" if n else "none" for n in counts)
    return {state: states[state] for state in ("unknown", "none", "known")}


def _duplicates(examined: Examined) -> dict[str, int]:
    """Rows with an id that an earlier one has, and rows that say what an earlier one says."""
    reasons = examined.decided.reasons.values()
    said = [row.said for _, row in examined.accepted()]
    return {
        "same_row": sum(reason.startswith("is the same as") for reason in reasons),
        "same_id": sum(reason.startswith("id: is also") for reason in reasons),
        "said_again": len(said) - len(set(said)),
    }


def _leaks(examined: Examined) -> dict[str, Any]:
    """Pictures that given splits share: equal ones are refused, look-alikes only told."""
    decided = examined.decided
    shared = [n for n, reason in decided.reasons.items() if ": is also in " in reason]
    found = [*_parted(examined)]
    lookalikes = [
        f"{_in_split(examined, b)} is {_in_split(examined, a)}, {kind}"
        for a, b, kind in found[:EXAMPLES]
    ]
    return {
        "shared_rows": len(shared),
        "kinds": dict(Counter(kind for _, _, kind in found)),
        "examples": [f"{examined.place(n)}: {decided.reasons[n]}" for n in shared[:EXAMPLES]]
        + lookalikes,
    }


def _in_split(examined: Examined, number: int) -> str:
    return f"{examined.place(number)} ({examined.decided.splits[number]})"


def _parted(examined: Examined) -> Iterator[tuple[int, int, str]]:
    """Rows of different splits whose pictures look alike, and how: only given splits part them."""
    rows: dict[bytes, dict[str, int]] = {}
    for number, row in examined.accepted():
        for digest in row.pictures:
            rows.setdefault(digest, {}).setdefault(examined.decided.splits[number], number)
    for a, b, kind in examined.pairs:
        ours, theirs = rows.get(a, {}), rows.get(b, {})
        for split in theirs.keys() - ours.keys() if ours else ():
            yield next(iter(ours.values())), theirs[split], kind


def _splits(examined: Examined) -> dict[str, dict[str, Any]]:
    decided = examined.decided
    found: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        placed = zip(examined.rows, decided.splits, strict=True)
        inside = [row for row, place in placed if place == split]
        found[split] = {
            "rows": len(inside),
            "pictures": len({digest for row in inside for digest in row.pictures}),
            "how": "cut by picture" if split in decided.cut else "given",
        }
    found["train"]["how"] = "given" if not decided.cut else "the rest"
    return found
