"""The champion, by hand: see how things stand, approve, reject, roll back.

    python -m flows.promote status                  # champion, previous, what waits for approval
    python -m flows.promote history                 # who decided what, when and why
    python -m flows.promote approve 7               # it passed the gate: make it the champion
    python -m flows.promote reject 7 --why "..."    # never promote version 7 or its equals
    python -m flows.promote rollback --why "..."    # back to the champion before this one
    python -m flows.promote rollback --to 3 --why "..."

What is decided here stays so: a retraining does not undo it.
"""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from adapt import command, environment, params
from adapt.environment import Parser
from adapt.tracking.store import Store, TrackingConfig
from flows.promote import hand, told
from flows.promote.announced import carried_out

CODES = "exit code: 0 done, 2 a mistake in what you gave, or a registry that does not answer"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; answers in words."""

    def work() -> None:
        given = parser().parse_args(arguments)
        environment.prepare(Path.cwd())
        print("\n".join(answer(opened(Path.cwd()), given)))

    return command.ended("promote", work)


def opened(root: Path) -> Store:
    """The store of a workspace; only its section of params.yaml is looked at."""
    content = params.read(root / "params.yaml")
    return Store(root, params.load(content, "tracking", TrackingConfig))


def answer(store: Store, given: Namespace) -> list[str]:
    """Do what was asked for; what to say about it, a line each."""
    if given.command == "status":
        return told.status(store)
    if given.command == "history":
        return told.history(store)
    who, why = given.who or hand.person(), given.why
    if given.command == "rollback":
        return [carried_out(store, lambda store: hand.rollback(store, given.to, who, why))]
    decide = hand.approve if given.command == "approve" else hand.reject
    return [carried_out(store, lambda store: decide(store, given.version, who, why))]


def parser() -> Parser:
    """The commands and their options."""
    whole = Parser(prog="python -m flows.promote", description=__doc__, epilog=CODES)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, needs_why in (
        ("status", "how things stand", None),
        ("history", "the ledger as a table", None),
        ("approve", "make a version that passed the gate the champion", False),
        ("reject", "keep a version, and all of equal weights, from being promoted", True),
        ("rollback", "make an earlier champion the champion again", True),
    ):
        one = commands.add_parser(name, help=text, description=text)
        if needs_why is not None:
            one.add_argument("--why", required=needs_why, default="", help="for the record")
            one.add_argument("--who", default="", help="for the record (default: your user name)")
        if name in ("approve", "reject"):
            one.add_argument("version", metavar="N", type=version, help="the version's number")
        if name == "rollback":
            one.add_argument(
                "--to", metavar="N", type=version, help="which (default: the last one)"
            )
    return whole


def version(text: str) -> str:
    """A version's number as MLflow shows it."""
    if not text.isdecimal() or int(text) < 1:
        problem = f"expected the number of a version, such as 7, got {params.shown(text)}"
        raise ArgumentTypeError(problem)
    return str(int(text))


if __name__ == "__main__":
    raise SystemExit(main())
