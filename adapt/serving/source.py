"""Where the model comes from that answers: a folder, or a version in the registry of a workspace.

The alias is read as it stands: who is champion is settled by promotion, and serving asks only.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adapt.names import one_line
from adapt.params import InputError, require

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from adapt.tracking.store import Store

_REGISTERED = re.compile(r"models:/([^/@']+)(?:@([\w.-]+)|/(\d{1,18}))")


class Source(Protocol):
    """Where a model comes from; both methods raise `InputError` in one line."""

    def version(self) -> str:
        """The version that is to be served now; "" where there are none."""

    def folder(self, version: str, to: Path) -> Path:
        """The folder of a version, fetched to `to` where it is not here."""

    def detector(self, version: str) -> str:
        """The last detector that was fitted again for a version; "" where there is none."""

    def fitted_again(self, number: str) -> bytes:
        """The content of that detector's file."""


@dataclass(frozen=True)
class Folder:
    """A model folder of this machine; it has no versions."""

    path: Path

    def version(self) -> str:
        """There are none."""
        return ""

    def folder(self, version: str, to: Path) -> Path:
        """The folder itself."""
        require(self.path.is_dir(), one_line(str(self.path)), "no such model folder")
        return self.path

    def detector(self, version: str) -> str:
        """There is none."""
        return ""

    def fitted_again(self, number: str) -> bytes:
        """There is none."""
        raise InputError(f"{one_line(str(self.path))}: no detector beside the model's own")


@dataclass(frozen=True)
class Registered:
    """A model of the registry: by an alias, which may move, or a version."""

    root: Path
    name: str
    alias: str
    number: str

    @cached_property
    def _store(self) -> "Store":
        from adapt.tracking.store import Store, TrackingConfig

        return Store(self.root, TrackingConfig(experiment=self.name, model=self.name))

    @property
    def _client(self) -> "MlflowClient":
        return self._store.client

    @property
    def shown(self) -> str:
        """Its address."""
        return f"models:/{self.name}" + (f"@{self.alias}" if self.alias else f"/{self.number}")

    def version(self) -> str:
        """The version behind the alias at this moment."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        from adapt.registry.download import find
        from adapt.tracking import store

        try:
            found = find(self._client, self.name, self.alias, self.number)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise InputError(f"{self.shown}: the registry: {store.reason(error)}") from None
        if found is None:
            raise InputError(f"{self.shown}: no such model; `make run` registers and promotes one")
        return str(found.version)

    def folder(self, version: str, to: Path) -> Path:
        """Fetched and checked as everything is that comes out of a registry."""
        from adapt.registry.download import download

        return download(self._client, f"models:/{self.name}/{version}", to)[0]

    def detector(self, version: str) -> str:
        """Its number; asked as often as the alias is."""
        from adapt.registry import detectors

        return detectors.number(self._store, version)

    def fitted_again(self, number: str) -> bytes:
        """Read from the registry."""
        from adapt.registry import detectors

        return detectors.content(self._store, number)


def source_of(given: str, root: Path) -> Source:
    """The source that a text names: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a folder."""
    if parts := _REGISTERED.fullmatch(given):
        name, alias, number = parts.groups()
        return Registered(root, name, alias or "", number or "")
    problem = "expected models:/NAME@ALIAS, models:/NAME/VERSION or a folder"
    require(not given.startswith("models:"), one_line(given), problem)
    return Folder((root / given).absolute())
