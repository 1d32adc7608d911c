"""A source as stage `data` would take it in, found out without leaving anything behind."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adapt.data.formats.detection import Recognised
from adapt.data.importing import splitting
from adapt.data.importing.checking import STORE
from adapt.data.importing.gallery import Seen
from adapt.data.importing.rows import Verdict
from adapt.data.importing.splitting import Decided
from adapt.data.importing.survey import Survey, open_source, survey
from adapt.data.importing.verdicts import Verdicts
from adapt.data.likeness import near
from adapt.data.settings import Config
from adapt.data.sources import Source
from adapt.params import InputError, require


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What the first pass of an import has found, as long as the block of `examined` lasts.

    `reasons` are against rows, by their number in `rows`; `pairs` are pictures that look alike, by
    their digests, with the kind of likeness; `stops` is why stage `data` would write no splits, or
    "". `limit` is how many records were looked at, 0 for all.
    """

    found: Survey
    store: Verdicts
    rows: list[Verdict]
    reasons: dict[int, str]
    decided: Decided
    pairs: list[tuple[bytes, bytes, str]]
    stops: str
    limit: int

    @property
    def source(self) -> Source:
        """The source."""
        return self.found.checking.source

    @property
    def recognised(self) -> Recognised:
        """What its format is, and why."""
        return self.found.checking.recognised

    def accepted(self) -> Iterator[tuple[int, Verdict]]:
        """The rows that would be taken in, with their numbers."""
        return ((n, row) for n, row in enumerate(self.rows) if n not in self.reasons)

    def pictures(self) -> list[Seen]:
        """Every distinct picture of rows that passed their own checks, in no order."""
        found = (Seen.unpacked(c, self.store.picture(c) or b"") for c in sorted(self.found.came))
        return [*{one.digest: one for one in found}.values()]

    def first_rows(self) -> dict[bytes, int]:
        """The first accepted row of each picture, by the picture's digest."""
        first: dict[bytes, int] = {}
        for number, row in self.accepted():
            for digest in row.pictures:
                first.setdefault(digest, number)
        return first

    def place(self, number: int) -> str:
        """Where a row is, in words."""
        row = self.rows[number]
        return f"{row.file}: row {row.row} (id {row.id or 'missing'})"

    def known(self, row: Verdict) -> dict[str, Any]:
        """The checked texts of an accepted row, as the store of verdicts keeps them."""
        kept = self.store.row(row.key)
        assert kept is not None, "an accepted row has a verdict"
        known: dict[str, Any] = json.loads(kept)
        return known


@contextmanager
def examined(config: Config, workspace: Path, limit: int = 0) -> Iterator[Examined]:
    """Check the rows of `data.source`; what has to be kept meanwhile is gone afterwards."""
    problem = "is drawn here and has nothing to check; name a folder, a file or hf:owner/name"
    require(config.source != "scenes", "scenes", problem)
    with TemporaryDirectory(prefix="adapt-check-") as folder:
        source, recognised = open_source(config, workspace)
        source = replace(source, state=Path(folder))
        found = survey(source, recognised, limit, keep=False)
        rows, digests = found.rows(), [*found.fingerprints]
        near_ones = near([*found.fingerprints.values()])
        pairs = [(digests[i], digests[j], kind) for i, j, kind in near_ones]
        sizes, alike = config.split.sizes(), [pair[:2] for pair in pairs]
        decided = splitting.decide(rows, alike, sizes, config.seed)
        with Verdicts(source.state / STORE, writable=False) as store:
            yield Examined(
                found=found,
                store=store,
                rows=rows,
                reasons=_reasons(rows, decided),
                decided=decided,
                pairs=pairs,
                stops=_stops(rows, decided, source.named),
                limit=limit,
            )


def _reasons(rows: list[Verdict], decided: Decided) -> dict[int, str]:
    reasons = ((n, row.reason or decided.reasons.get(n, "")) for n, row in enumerate(rows))
    return {number: reason for number, reason in reasons if reason}


def _stops(rows: list[Verdict], decided: Decided, named: str) -> str:
    try:
        splitting.require_rows(rows, decided, named)
    except InputError as error:
        return str(error)
    return ""
