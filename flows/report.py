"""How a retraining ends, in a few lines: before and after, promoted or not and why, what ran, where
to look.

The same record goes to the terminal, to Prefect as a table artifact, and to a file in the state
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

from adapt import environment
from adapt.tracking import store
from flows.promote import Result


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A finished retraining. `stages` says of each how long it took, or "unchanged"; `question` is
    what the decision depended on.
    """

    model: str
    result: Result
    stages: Mapping[str, str]
    seconds: float
    finished: str
    question: Mapping[str, Any]

    def rows(self) -> list[dict[str, str]]:
        """The table: one row per measure."""
        table = []
        for title, after in self.result.after.items():
            before = self.result.before.get(title, float("nan"))
            digits = 3 if "/" in title else 1
            numbers = {"before": f"{before:.{digits}f}", "after": f"{after:.{digits}f}"}
            change = f"{after - before:+z.{digits}f}"
            table.append({"": title, **numbers, "change": change})
        return table

    def lines(self) -> list[str]:
        """What the table does not say, a sentence each."""
        stages = ", ".join(f"{stage} {outcome}" for stage, outcome in self.stages.items())
        return [
            f"{self.result.sentence(self.model)}.",
            *(f"  {reason}" for reason in self.result.reasons),
            f"before = {self.result.against}; stages: {stages}; {duration(self.seconds)}",
        ]


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
    table = Table(title="retraining, on the test split")
    for name in ending.rows()[0] if ending.result.after else []:
        table.add_column(name, justify="left" if name == "" else "right")
    for row in ending.rows():
        table.add_row(*row.values())
    console.print(table)
    for line in ending.lines():
        console.print(line, markup=False)
    address = store.without_credentials(store.uri(root))
    place = address if address.startswith("http") else "make ui"
    console.print(f"Compare runs in MLflow: {place}", markup=False)


def artifact(ending: Ending) -> None:
    """Leave the table with the flow run in Prefect."""
    create_table_artifact(
        table=ending.rows(),
        key="retraining",
        description="\n".join(f"* {line.strip()}" for line in ending.lines()),
    )


def save(root: Path, ending: Ending) -> None:
    """Keep the ending for the next retraining, which may have nothing to do."""
    path = _path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(ending), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def last(root: Path) -> Ending | None:
    """The ending kept last; None when there is none, or one that an older version of this code has
    written.
    """
    try:
        content = json.loads(_path(root).read_text(encoding="utf-8"))
        result = content.pop("result")
        return Ending(result=Result(**result | {"reasons": tuple(result["reasons"])}), **content)
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return None


def _path(root: Path) -> Path:
    return environment.state_dir(root) / "retraining.json"
