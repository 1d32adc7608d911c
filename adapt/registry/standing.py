"""One look at the registry: what the ledger amounts to, the versions, and what aliases show."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from adapt.registry import entries, ledger, marks
from adapt.registry.entries import Log
from adapt.registry.ledger import Entry, State
from adapt.registry.marks import Mark

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
WEIGHTS = "dvc.model"  # the tag of a version with DVC's hash of its model


@dataclass(frozen=True)
class Standing:
    """How things stand. `versions` has the tags of each version that there is, by number."""

    log: Log
    state: State
    versions: Mapping[str, Mapping[str, str]]

    @property
    def champion(self) -> str | None:
        """The champion's version, None before the first promotion."""
        return self.state.champion or None

    @property
    def previous(self) -> str | None:
        """Where a rollback leads: the last earlier champion that is still there."""
        return next((one for one in reversed(self.state.line) if self.has(one)), None)

    @property
    def counted(self) -> list[Entry]:
        """The entries that count, newest first."""
        return [e for e in reversed(self.log.entries) if e.number not in self.state.ignored]

    @property
    def waiting(self) -> Entry | None:
        """What a person has to approve."""
        waiting = self.state.waiting
        return waiting if waiting and self.has(waiting.of) else None

    def has(self, version: str) -> bool:
        """Whether a version is there, with the weights that the ledger knows it by.

        Numbers are given anew where a whole model was deleted.
        """
        if version not in self.versions:
            return False
        weights, known = self.weights(version), self.state.weights.get(version, "")
        return not weights or not known or weights == known

    def weights(self, version: str) -> str:
        """DVC's hash of a version's model; "" where it has none."""
        return self.versions.get(version, {}).get(WEIGHTS, "")

    def aliases(self) -> dict[str, str]:
        """The version that each alias has to show, "" for none."""
        shown = {
            CHAMPION: self.state.champion,
            PREVIOUS: self.previous or "",
            CHALLENGER: self.state.challenger,
        }
        return {alias: version if self.has(version) else "" for alias, version in shown.items()}

    def said(self, weights: str) -> str:
        """What a person said, or has to say, about weights: "rejected", "waiting", or ""."""
        if block := self.state.block("", weights):
            return block.out
        return "waiting" if self.waiting and self.waiting.weights == weights else ""

    def decision(self, version: str) -> Entry | None:
        """What was decided last about a version, or about what has equal weights."""
        latest = self.state.latest.get(version)
        block = self.state.block(version, self.weights(version))
        both = [entry for entry in (latest, block) if entry]
        return max(both, key=lambda entry: entry.number, default=None)

    def word(self, version: str) -> str:
        """What that decision comes to for the version."""
        block = self.state.block(version, self.weights(version))
        entry = self.decision(version)
        return block.out if block else entry.what if entry else ""


@dataclass(frozen=True)
class Look:
    """One look at everything: what stands, the aliases as they are, and others' marks."""

    standing: Standing
    aliases: Mapping[str, str]
    marks: Mapping[str, Mark]

    @property
    def champion(self) -> str:
        """Where the alias is."""
        return self.aliases.get(CHAMPION, "")

    @property
    def wrong(self) -> dict[str, str]:
        """The aliases that do not show what the ledger says, and what they have to show."""
        wanted = self.standing.aliases()
        return {name: to for name, to in wanted.items() if self.aliases.get(name, "") != to}

    @property
    def is_unexplained(self) -> bool:
        """Whether the alias differs, and no process that moves it, or died then, explains it."""
        explained = any(self.champion in mark.versions for mark in self.marks.values())
        return self.champion != self.standing.state.champion and not explained

    def without_ledger(self) -> Standing:
        """How things stand where nothing was ever written: the alias is all there is to know."""
        state = State(champion=self.champion)
        return replace(self.standing, state=state)


def look(client: "MlflowClient", model: str, before: Look | None = None) -> Look:
    """Read everything, the aliases last: one that is newer than the ledger has left its mark.

    Of the ledger only what has come since the look `before` is read.
    """
    log = entries.read(client, model, before.standing.log if before else None)
    kept = _model(client, entries.name_of(model))
    versions = {str(one.version): dict(one.tags) for one in entries.versions(client, model)}
    standing = Standing(log, ledger.fold(log.entries), versions)
    shown = _model(client, model)
    aliases = {alias: str(version) for alias, version in shown.aliases.items()} if shown else {}
    return Look(standing, aliases, marks.read(kept.tags) if kept else {})


def _model(client: "MlflowClient", name: str) -> Any:
    """A registered model, None where there is none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != entries.MISSING:
            raise
        return None
