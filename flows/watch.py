"""Watch what a retraining is made from, and start one when it has changed.

    python -m flows.watch              # say what has changed since the last retraining
    python -m flows.watch --start      # and start the deployment retrain/nightly on the server

It looks at fingerprints of the data and of the base, as the plan of a retraining does: of a folder
or file over contents, of object storage over names and ETags, of the hub the commit. No stage runs.
As a deployment (`infra/prefect.yaml`) it looks every few minutes; `dry_run` says only what it sees.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.deployments import run_deployment
from prefect.states import Completed, Failed, State

from adapt import command, environment, names
from adapt.files import whole_file
from adapt.names import one_line
from adapt.params import InputError
from adapt.tracking.store import Store
from flows import outside, plan
from flows.options import LONGEST_REASON
from flows.prefect_api import prefect_here

DEPLOYMENT = "retrain/nightly"
WAIT_MINUTES = 12 * 60  # for a retraining that is under way: it may have planned before the change


@flow(name="watch", flow_run_name="watch", validate_parameters=True)
def watch(dry_run: bool = True) -> State[Any]:
    """Look whether data or base have changed; unless `dry_run`, start a retraining then."""
    return looked(Path.cwd(), dry_run)


def looked(root: Path, dry_run: bool) -> State[Any]:
    """One look, as the state of the flow run: Seen, Started, or a failure in one line."""
    try:
        with command.plainly():
            return _looked(root, dry_run)
    except command.Trouble as error:
        return Failed(message=str(error))
    except InputError as error:
        return Failed(name="InputError", message=str(error))


def _looked(root: Path, dry_run: bool) -> State[Any]:
    look = seen(root)
    if dry_run or not look.changed:
        return Completed(name="Seen", message=sentence(look))
    if asked(root) == look.changed:
        return Completed(name="Seen", message=f"{sentence(look)}; a retraining was started")
    start(look.changed)
    remember(root, look.changed)
    return Completed(name="Started", message=f"{sentence(look)}; {DEPLOYMENT} is started")


def seen(root: Path) -> outside.Look:
    """What has changed, and what could not be asked; forgets an earlier change that is gone."""
    config = plan.configuration(root)
    look = outside.look(Store(root, config["tracking"]), config)
    if not look.changed and not look.away and asked(root):
        remember(root, {})
    return look


def sentence(look: outside.Look) -> str:
    """In words, with what could not be asked at the end."""
    changes = "; ".join(f"{stage}: {why}" for stage, why in look.changed.items())
    return "; ".join([changes or "nothing has changed", *look.away])


def start(changed: Mapping[str, str]) -> None:
    """Let the server run the deployment; `InputError` where there is none of that name."""
    from prefect.exceptions import ObjectNotFound

    reason = one_line("; ".join(changed.values()), LONGEST_REASON)
    # These are all of its options: the deployment's own are not added to them.
    options = {"reason": reason, "wait_minutes": WAIT_MINUTES}
    try:
        # It is not waited for: the watch has nothing to do with how it ends.
        run_deployment(DEPLOYMENT, parameters={"options": options}, timeout=0)
    except ObjectNotFound:
        problem = f"the server has no deployment {DEPLOYMENT}; `make serve` deploys it"
        raise InputError(problem) from None


def asked(root: Path) -> dict[str, str]:
    """The change for which a retraining was started last: one that fails is not started again."""
    try:
        kept = json.loads(_path(root).read_text(encoding="utf-8"))
        return {str(stage): str(why) for stage, why in kept.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def remember(root: Path, changed: Mapping[str, str]) -> None:
    """Note the change that a retraining was started for."""
    with whole_file(_path(root)) as partial:
        partial.write_text(json.dumps(dict(changed)) + "\n", encoding="utf-8")


def _path(root: Path) -> Path:
    return environment.state_dir(root) / "watch.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 2 for a mistake in the settings."""
    parser = environment.parser("flows.watch", __doc__)
    parser.add_argument("--start", action="store_true", help=f"start {DEPLOYMENT} on a change")
    options, root = parser.parse_args(arguments), Path.cwd()

    def work() -> int:
        if not options.start:
            print(one_line(sentence(seen(root))))
            return 0
        with prefect_here(root, "watch"):
            state = watch(dry_run=False, return_state=True)
        line = names.one_line(state.message or "", command.LONGEST)
        print(f"watch: {line}", file=sys.stderr if state.is_failed() else sys.stdout)
        return 1 if state.is_failed() else 0

    return command.ended("watch", work)


if __name__ == "__main__":
    raise SystemExit(main())
