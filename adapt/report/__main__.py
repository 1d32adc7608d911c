"""Write a report of a run, or of two compared, as one HTML file.

    python -m adapt.report last                    # the newest retraining
    python -m adapt.report RUN RUN2 --out two.html # two of them, by id or name

The file needs no network and no program but a browser, and can be mailed. Runs are those of
MLFLOW_TRACKING_URI or of the workspace, in the experiment that params.yaml names; an id may be of
any experiment.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from adapt import command, environment, params
from adapt.addresses import shown
from adapt.names import one_line
from adapt.params import InputError
from adapt.report import page, reading
from adapt.tracking.store import SQLITE, Store, TrackingConfig, uri


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 2 for a user's mistake."""
    root = Path.cwd()
    environment.prepare(root)
    parser = environment.parser("adapt.report", __doc__, "")
    parser.add_argument("run", metavar="RUN", help=f"an id, a name, or {reading.LAST}")
    parser.add_argument("run2", metavar="RUN2", nargs="?", help="another one, beside the first")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="file to write")
    given = parser.parse_args(arguments)

    def work() -> None:
        text = report(root, list(filter(None, [given.run, given.run2])))
        command.write(given.out, text)
        print(one_line(f"{given.out}: {len(text.encode()) / 1e6:.1f} MB, open it in a browser"))

    return command.ended("report", work)


def report(root: Path, wanted: Sequence[str]) -> str:
    """The page of the runs `wanted`, each an id, a name or "last"."""
    address = uri(root)
    is_missing = address.startswith(SQLITE) and not Path(address.removeprefix(SQLITE)).exists()
    if is_missing:
        raise InputError(f"{shown(address)}: nothing is recorded there yet; `make run` does it")
    config = params.load(params.read(root / "params.yaml"), "tracking", TrackingConfig)
    store = Store(root, config)
    found = [reading.find(store.client, [store.experiment_id], name) for name in wanted]
    records = [reading.read(store.client, run, address, config.model) for run in found]
    return page.render(records, footer(records[0].address))


def footer(address: str) -> str:
    """When the page was made, and from what."""
    source = f"MLflow at {shown(address)}" if address else "the MLflow store of the workspace"
    return (
        f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from {source}, with python -m adapt.report."
    )


if __name__ == "__main__":
    sys.exit(main())
