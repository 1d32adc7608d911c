"""What the ledger says about a version, as the description that MLflow's page of it shows.

It is written anew with every decision about the version (`adapt.registry.settling`).
"""

from collections.abc import Iterable, Mapping
from typing import get_args

from adapt.registry import card
from adapt.registry.ledger import ByGate, Entry
from adapt.tracking import presentation
from adapt.tracking.presentation import Origin, Verdict

STEERING = "adapt.steering"  # the tag of a version that says how it is steered


def version(
    model: str,
    number: str,
    tags: Mapping[str, str],
    entry: Entry,
    entries: Iterable[Entry],
    before: str = "",
) -> str:
    """The description of version `number` after the decision `entry`.

    `tags` are the version's; `entries` all of the ledger, oldest first: what a person decides has
    no figures of its own, so that those of the gate's last decision are shown. `before` is the
    description so far, of which the model card stays.
    """
    judged = [one for one in entries if one.of == number and one.figures and one.data]
    figures = entry.figures or (judged[-1].figures if judged else {})
    verdict = Verdict(
        ending=entry.what,
        against=_against(entry),
        reasons=entry.reasons,
        figures=figures,
        when=entry.when,
        who=entry.who,
    )
    origin = Origin(
        data=entry.data or (judged[-1].data if judged else ""),
        revision=tags.get("mlflow.source.git.commit", ""),
        is_dirty=tags.get("adapt.git_dirty") == "true",
        weights=tags.get("dvc.model", ""),
    )
    steering = tags.get(STEERING, "")
    told = presentation.version_note(
        model, number, verdict, origin, steering, card=card.kept(before)
    )
    return card.fitting(told)


def _against(entry: Entry) -> str:
    """What the gate compared a version with; a person compares with nothing."""
    if entry.what not in get_args(ByGate):
        return ""
    return f"version {entry.against}" if entry.against else "the base"
