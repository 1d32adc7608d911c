"""Versions of registered models from one registry to another, under the numbers that they had.

People, aliases and the ledger go by these numbers. A registry counts by itself, so a number that
was deleted is made and deleted again.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import addresses
from adapt.params import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

ORIGIN = "adapt.moved_from"  # tag: the id in the store before
GAP = "adapt.moved_gap"  # tag: made for a number that has no version
_ID = re.compile(r"\b[0-9a-f]{32}\b")
# The logged model in the address of a version's files, which is all that MLflow keeps of it.
_LOGGED = re.compile(r"/models/(m-[0-9a-f]{32})/artifacts$")


@contextmanager
def fetched(client: "MlflowClient", address: str) -> Iterator[tuple[Path, list[str]]]:
    """The folder of artifacts at an address, and the names of its files.

    It is downloaded into a temporary folder, unless it lies on this machine: a model may be large.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(local_file_uri_to_path(address) if is_local_uri(address) else scratch)
        if folder == Path(scratch):
            repository = get_artifact_repository(address, tracking_uri=client.tracking_uri)
            if repository.list_artifacts():
                repository.download_artifacts("", scratch)
        yield folder, [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]


def renamed(text: str, ids: Mapping[str, str]) -> str:
    """A text that names runs, with their new ids."""
    return _ID.sub(lambda match: ids.get(match[0], match[0]), text)


@dataclass(frozen=True)
class Versions:
    """From `source` to `target`, where runs have new ids: `ids` says which."""

    source: "MlflowClient"
    target: "MlflowClient"
    ids: Mapping[str, str]

    def all(self) -> int:
        """All registered models, with their texts, tags and aliases; how many versions they have.

        `InputError` where the new registry has another version under one of their numbers.
        """
        return sum(self._model(model) for model in _models(self.source))

    def _model(self, model: "RegisteredModel") -> int:
        self._name(model)
        before, there = _versions(self.source, model.name), _versions(self.target, model.name)
        # 1. What an earlier, interrupted transfer has left over.
        for number in [number for number, one in there.items() if GAP in one.tags]:
            self.target.delete_model_version(model.name, str(number))
            del there[number]
        # 2. Refuse before anything is added.
        for number, one in there.items():
            if one.tags.get(ORIGIN) != _origin(model.name, number) and number <= max(before or [0]):
                where = addresses.shown(self.target.tracking_uri)
                problem = f"{where} has a version {number} of {model.name} of its own"
                raise InputError(f"move: {problem}; name a server without one")
        # 3. Add what is missing, in the order of numbers.
        for number in sorted(before.keys() - there.keys()):
            self._version(before[number])
        for alias, number in self.source.get_registered_model(model.name).aliases.items():
            self.target.set_registered_model_alias(model.name, alias, str(number))
        return len(before)

    def _name(self, model: "RegisteredModel") -> None:
        """Make the registered model with its texts and tags, unless it is there."""
        from mlflow.exceptions import MlflowException

        try:
            about = renamed(model.description or "", self.ids) or None
            self.target.create_registered_model(model.name, model.tags, about)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
                raise

    def _version(self, version: "ModelVersion") -> None:
        run = self.ids.get(version.run_id or "")
        source, model_id = self._files(version, run)
        about = renamed(version.description or "", self.ids) or None
        given = {"run_id": run, "description": about, "model_id": model_id, "await_creation_for": 0}
        tags = {key: renamed(text, self.ids) for key, text in version.tags.items()}
        tags[ORIGIN] = _origin(version.name, int(version.version))
        while True:
            made = self.target.create_model_version(version.name, source, tags=tags, **given)
            if int(made.version) == int(version.version):
                return
            # A number that was deleted before: it must not stay if we are killed here, so the next
            # transfer looks for the tag.
            self.target.set_model_version_tag(version.name, str(made.version), GAP, "true")
            self.target.delete_model_version(version.name, str(made.version))
            if int(made.version) > int(version.version):
                problem = f"version {version.version} of {version.name} was there and was deleted"
                raise InputError(f"move: {problem}; name a server without this model")

    def _files(self, version: "ModelVersion", run: str | None) -> tuple[str, str | None]:
        """Where the files of a version are in the new store, and the logged model they are of."""
        named = _LOGGED.search(str(version.source))
        if not named:
            return self._of_run(version, run), None
        old = self.source.get_logged_model(named[1])
        experiment = self.target.get_run(run).info.experiment_id if run else "0"
        query = f"tags.`{ORIGIN}` = '{old.model_id}'"
        found = list(self.target.search_logged_models([experiment], filter_string=query))
        tags, kind = {**old.tags, ORIGIN: old.model_id}, old.model_type
        make = self.target.create_logged_model
        new = found[0] if found else make(experiment, old.name, run, tags, old.params, kind)
        if str(new.status) != "READY":
            with fetched(self.source, old.artifact_location) as (folder, names):
                self.target.log_model_artifacts(new.model_id, str(folder))
            self._compare(version, new.model_id, names)
            self.target.finalize_logged_model(new.model_id, "READY")
        return new.artifact_location, new.model_id

    def _compare(self, version: "ModelVersion", model: str, names: list[str]) -> None:
        """`InputError` unless the logged model has every file; ours lie in no folders."""
        there = {one.path for one in self.target.list_logged_model_artifacts(model)}
        missing = {name.partition("/")[0] for name in names} - there
        if missing:
            problem = f"{len(missing)} files of version {version.version} did not arrive"
            raise InputError(f"move: {version.name}: {problem}; move again")

    def _of_run(self, version: "ModelVersion", run: str | None) -> str:
        """A version whose files are artifacts of its run, which have been moved, or elsewhere."""
        if not run:
            return str(version.source)
        before = self.source.get_run(version.run_id).info.artifact_uri
        return str(version.source).replace(before, self.target.get_run(run).info.artifact_uri, 1)


def _models(client: "MlflowClient") -> Iterator["RegisteredModel"]:
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _versions(client: "MlflowClient", name: str) -> dict[int, "ModelVersion"]:
    """The versions of a registered model that are not deleted, by their numbers."""
    token: Any = None
    found: dict[int, ModelVersion] = {}
    quoted = name.replace("'", "''")
    while True:
        page = client.search_model_versions(f"name = '{quoted}'", page_token=token)
        found |= {int(version.version): version for version in page}
        token = page.token
        if not token:
            return found


def _origin(name: str, number: int) -> str:
    """The id of a version in the store before."""
    return f"{name}/{number}"
