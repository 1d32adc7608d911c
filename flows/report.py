"""How a retraining ends: before and after, promoted or not and why, what ran, where to look.

The same ending goes to the terminal, to Prefect as a table artifact, and to a file in the state
folder, from which a retraining that finds nothing to do shows the last result again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact
from rich.console import Console
from rich.table import Table

from adapt import addresses, environment
from adapt.files import whole_file
from adapt.tracking.presentation import plain, version_page
from adapt.tracking.store import uri
from flows.promote.ending import Promotion


@dataclass(frozen=True)
class Ending:
    """A finished retraining: durations (or "unchanged") by stage, the `question` of the gate."""

    model: str
    promotion: Promotion
    stages: Mapping[str, str]
    seconds: float
    finished: str
    question: Mapping[str, Any]

    def rows(self) -> list[dict[str, str]]:
        """The table: one row per metric; a cell is empty where it was not measured."""
        before, after = self.promotion.before, self.promotion.after
        table = []
        for title, places in self.promotion.digits.items():
            old, new = before.get(title), after.get(title)
            if old is None and new is None:
                continue
            numbers = {
                name: "" if value is None else f"{value:.{places}f}"
                for name, value in (("before", old), ("after", new))
            }
            change = "" if old is None or new is None else f"{new - old:+z.{places}f}"
            table.append({"": title, **numbers, "change": change})
        return table

    def lines(self) -> list[str]:
        """What the table does not say, a sentence each."""
        stages = ", ".join(f"{stage} {took}" for stage, took in self.stages.items())
        basis = f"before = {self.promotion.against}; stages: {stages}; {duration(self.seconds)}"
        reasons = [f"  {reason}" for reason in self.promotion.reasons]
        return [f"{self.promotion.sentence(self.model)}.", *reasons, basis]


def duration(seconds: float) -> str:
    """
    >>> duration(7.4), duration(635)
    ('7 s', '10 min 35 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def show(root: Path, ending: Ending) -> None:
    """Print the ending to the terminal; a log file gets the same without colours."""
    console = Console(highlight=False, soft_wrap=True)
    rows = ending.rows()
    table = Table(title="retraining, on the test split")
    for name in rows[0] if rows else []:
        table.add_column(name, justify="left" if name == "" else "right")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    address = addresses.shown(uri(root))
    where = address if address.startswith("http") else "make ui"
    for line in (*ending.lines(), f"Compare runs in MLflow: {where}"):
        console.print(line, markup=False)


def artifact(ending: Ending, page: str = "") -> None:
    """Leave the table with the flow run in Prefect, with links to the run's `page` in MLflow."""
    description = "\n".join(f"* {plain(line.strip())}" for line in ending.lines())
    if page:
        server, version = page.partition("/#/")[0], ending.promotion.version
        model = f"{server}/{version_page(ending.model, version)}"
        links = {"run": page, "report": f"{page}/artifacts/report.html", "version": model}
        description += "\n\nIn MLflow: " + ", ".join(f"[{k}]({v})" for k, v in links.items())
    create_table_artifact(table=ending.rows(), key="retraining", description=description)


def save(root: Path, ending: Ending) -> None:
    """Keep the ending for the next retraining, which may have nothing to do."""
    with whole_file(_path(root)) as partial:
        partial.write_text(json.dumps(asdict(ending), indent=2) + "\n", encoding="utf-8")


def last(root: Path) -> Ending | None:
    """The ending kept last; None when there is none, or one of an older version."""
    try:
        kept = json.loads(_path(root).read_text(encoding="utf-8"))
        promotion = kept.pop("promotion")
        reasons = tuple(promotion.pop("reasons"))
        return Ending(promotion=Promotion(**promotion, reasons=reasons), **kept)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _path(root: Path) -> Path:
    """In the state folder; that of another revision's folder in it has a name of its own."""
    state = environment.state_dir(root)
    if root.resolve().parent == state / "revisions":
        return state / "revisions" / f"{root.name}.json"
    return state / "retraining.json"
