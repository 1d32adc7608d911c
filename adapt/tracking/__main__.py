"""What waits to be recorded in MLflow, and how to send it.

    python -m adapt.tracking status     # what waits, since when, and why
    python -m adapt.tracking flush      # send it now
    python -m adapt.tracking move URI   # copy all runs and models to a folder or an MLflow server

Runs are recorded through journals in the state folder, so that a stage never waits for MLflow. A
process that starts with the first run sends them; `flush` is for after an outage.
"""

import sys
import time
from pathlib import Path

from adapt import addresses, command, environment
from adapt.names import one_line
from adapt.params import InputError
from adapt.tracking import drain, journal, moving, refusals, sender
from adapt.tracking.store import uri

FLUSH_S = 600


def main() -> int:
    """The command line; exit code 1 where something could not be sent."""
    parser = environment.parser("adapt.tracking", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="status|flush|move")
    commands.add_parser("status", help="say what waits, since when, and why")
    flushing = commands.add_parser("flush", help="send what waits now")
    text = f"how long to wait at most (default: {FLUSH_S})"
    flushing.add_argument("--seconds", type=float, default=FLUSH_S, help=text, metavar="N")
    moved = commands.add_parser("move", help="copy all runs and models to another store")
    moved.add_argument("uri", help="http(s)://HOST:PORT, sqlite:////FOLDER/mlflow.db or a folder")
    commands.add_parser("send")  # the process that `sender.start` starts
    given, root = parser.parse_args(), Path.cwd()
    environment.prepare(root)

    def work() -> int:
        if given.command == "send":
            drain.send(root)
            return 0
        if given.command == "move":
            return move(root, given.uri)
        return flush(root, given.seconds) if given.command == "flush" else status(root)

    return command.ended("tracking", work)


def status(root: Path) -> int:
    """Print a line for each journal that is not sent, and for what MLflow has refused."""
    waiting = journal.everything(root)
    for folder in waiting:
        print(one_line(line(folder)))
    refused = journal.home(root) / refusals.FILE
    if refused.exists():
        print(one_line(f"MLflow has refused some entries; they are in {refused}"))
    if waiting and (problem := sender.last_trouble(root)):
        print(one_line(f"MLflow at {addresses.shown(uri(root))} does not take them: {problem}"))
    if not waiting:
        print("Nothing waits; all runs are recorded in MLflow.")
    return 0


def line(folder: Path) -> str:
    """One journal in words."""
    first = next(iter(journal.entries(folder)), {})
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != journal.RESERVE]
    size = sum(path.stat().st_size for path in files)
    state = "open" if journal.is_held(folder) else "ended"
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(first.get("time", 0) / 1000))
    where = first.get("store") or "the workspace's own store"
    return f"{first.get('name', folder.name)}: {state}, begun {began}, {size >> 10} kB for {where}"


def flush(root: Path, seconds: float) -> int:
    """Send what waits, and say how that went."""
    if left := drain.flush(root, seconds):
        problem = sender.last_trouble(root) or "it is slow"
        advice = "start it and call this again, or leave it to the next retraining"
        where = f"MLflow at {addresses.shown(uri(root))}: {problem}; {advice}"
    elif left := [one for one in journal.everything(root) if one not in sender.ours(root)]:
        where = "other addresses, which `status` names; set MLFLOW_TRACKING_URI to one of them"
    else:
        print("All runs that have ended are recorded in MLflow.")
        return 0
    print(one_line(f"tracking: {len(left)} runs wait for {where}"), file=sys.stderr)
    return 1


def move(root: Path, address: str) -> int:
    """Copy all to another store, and say what was done; what waits is for the old one, so first."""
    drain.flush(root, FLUSH_S)
    if waiting := journal.everything(root):
        problem = f"{len(waiting)} runs are open or wait to be recorded (`status` says why)"
        raise InputError(f"move: {problem}; move when they are")
    print(*moving.move(root, address), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
