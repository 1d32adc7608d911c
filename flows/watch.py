"""Watch what a retraining would be made for: other data, and answers that have drifted.

    python -m flows.watch              # say what is to be seen
    python -m flows.watch --tell       # and tell Prefect's server, as the deployment does

Of data and base it looks at fingerprints, as the plan of a retraining does: of a folder or file
over contents, of object storage over names and ETags, of the hub the commit. Of the served champion
it compares what its server has logged with the champion's reference profile (`flows/watching.py`).
No stage and no model runs. What it finds is an event, once for each cause, by which Prefect's
server starts the deployment `retrain/on-change` (`infra/prefect.yaml`), a dry run as shipped.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed, State

from adapt import command, environment, names
from adapt.files import whole_file
from adapt.names import one_line
from adapt.params import InputError
from adapt.registry.away import RegistryAway
from adapt.tracking.store import Store
from adapt.watching.log import Log
from adapt.watching.settings import WatchConfig
from flows import causes, outside, plan, watching
from flows.causes import Cause
from flows.prefect_api import only_told, prefect_here
from flows.watching import Looked

ARTIFACT = "watch"


@dataclass(frozen=True)
class Seen:
    """One look at everything: what lies outside, and the answers; `away` is what was not asked."""

    outside: outside.Look
    answers: Looked
    away: tuple[str, ...] = ()


@flow(name="watch", flow_run_name="watch", validate_parameters=True)
def watch() -> State[Any]:
    """Look whether data, base or answers have changed, and tell Prefect's server if so."""
    return looked(Path.cwd())


def looked(root: Path) -> State[Any]:
    """One look, as the state of the flow run: Seen, Told, or a failure in one line."""
    try:
        with command.plainly():
            return _looked(root)
    except command.Trouble as error:
        return Failed(message=str(error))
    except InputError as error:
        return Failed(name="InputError", message=str(error))


def _looked(root: Path) -> State[Any]:
    seen = look(root, record=True)
    said = sentence(seen)
    # 1. What was compared is compared, also where nobody takes the event now.
    watching.keep(root, seen.answers.kept)
    if seen.answers.page:
        with only_told():
            create_markdown_artifact(key=ARTIFACT, markdown=seen.answers.page)
    # 2. Each cause is told once: a retraining that fails, or is a dry run, is not started again.
    found, owed = [], seen.answers.kept.owed
    is_news = seen.outside.changed and asked(root) != seen.outside.changed
    if is_news:
        found.append(of_data(seen.outside))
    if owed:
        found.append(Cause(event=causes.DRIFT, **owed))
    if not found:
        known = "; this has been told" if seen.outside.changed else ""
        return Completed(name="Seen", message=f"{said}{known}")
    starts = causes.tell(root, found)
    if is_news:
        remember(root, seen.outside.changed)
    watching.keep(root, replace(seen.answers.kept, owed={}))
    return Completed(name="Told", message=f"{said}; {starts}")


def of_data(look: outside.Look) -> Cause:
    """The event of what has changed outside."""
    why = "; ".join(look.changed.values())
    return Cause(event=causes.DATA, message=f"{_changes(look)}.", reason=why)


def look(root: Path, *, record: bool) -> Seen:
    """What has changed, and what could not be asked; forgets an earlier change that is gone.

    `record`: show the windows of answers in MLflow, too.
    """
    config = plan.configuration(root)
    store = Store(root, config["tracking"])
    found, away = outside.look(store, config), list[str]()
    if not found.changed and not found.away and asked(root):
        remember(root, {})
    try:
        answers = watching.look(store, config["watch"], record=record)
    except RegistryAway as error:
        away.append(f"answers: {error}; they are compared by a later look")
        answers = Looked(kept=watching.read(root))
    _forget(config["watch"], root)
    return Seen(found, answers, tuple(away))


def _forget(config: WatchConfig, root: Path) -> None:
    """Delete what was kept long enough, also where no server runs that would."""
    if place := config.place(root):
        Log(place).expire("texts", config.keep_days)
        if config.signals_days:
            Log(place).expire("signals", config.signals_days)


def sentence(seen: Seen) -> str:
    """In words, with what could not be asked at the end."""
    parts = [_changes(seen.outside) or "nothing has changed", *seen.answers.sentences()]
    return "; ".join([*parts, *seen.outside.away, *seen.away])


def _changes(look: outside.Look) -> str:
    return "; ".join(f"{stage}: {why}" for stage, why in look.changed.items())


def asked(root: Path) -> dict[str, str]:
    """The change that was told last: one that goes on is not told again."""
    try:
        kept = json.loads(_path(root).read_text(encoding="utf-8"))
        return {str(stage): str(why) for stage, why in kept.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def remember(root: Path, changed: Mapping[str, str]) -> None:
    """Note the change that was told."""
    with whole_file(_path(root)) as partial:
        partial.write_text(json.dumps(dict(changed)) + "\n", encoding="utf-8")


def _path(root: Path) -> Path:
    return environment.state_dir(root) / "watch.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 2 for a mistake in the settings."""
    parser = environment.parser("flows.watch", __doc__)
    parser.add_argument("--tell", action="store_true", help="tell Prefect's server what is found")
    options, root = parser.parse_args(arguments), Path.cwd()

    def work() -> int:
        if not options.tell:
            print(one_line(sentence(look(root, record=False)), command.LONGEST))
            return 0
        with prefect_here(root, "watch"):
            state = watch(return_state=True)
        line = names.one_line(state.message or "", command.LONGEST)
        print(f"watch: {line}", file=sys.stderr if state.is_failed() else sys.stdout)
        return 1 if state.is_failed() else 0

    return command.ended("watch", work)


if __name__ == "__main__":
    raise SystemExit(main())
