"""A version of a registered model as a folder here, whatever its registry says."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import addresses
from adapt.files import storage_errors
from adapt.names import one_line
from adapt.params import InputError, require
from adapt.registry import contents, fetching

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# What MLflow answers where nothing is; the second: a model without that alias.
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def download(client: "MlflowClient", source: str, to: Path) -> tuple[Path, str]:
    """Fetch `models:/NAME@ALIAS` or `models:/NAME/VERSION` into `to`; returns it and the version.

    `InputError`, and `to` as it was, where there is no such model or loading it could run code.
    """
    parts = re.fullmatch(r"models:/([^/@']+)(?:@([\w.-]+)|/(\d{1,18}))", source)
    if not parts:
        shown = one_line(source)
        raise InputError(f"{shown}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, number = parts.groups()
    where = addresses.shown(client.tracking_uri)
    scratch = to.parent / f".{to.name}.parts"
    try:
        version = find(client, name, alias, number)
        if version is None:
            raise InputError(f"{source}: no such model in the registry {where}")
        given = str(version.version)
        require(given.isdecimal(), source, f"the registry {where} calls its version no number")
        # Resolved here, not by MLflow, which asks the process-wide registry for a models:/ address.
        origin = client.get_model_version_download_uri(name, given)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        fetching.fetch(origin, client.tracking_uri, scratch)
        contents.check_weights(scratch)
        shutil.rmtree(to, ignore_errors=True)
        scratch.rename(to)
    except InputError as error:
        known = str(error)
        raise InputError(known if known.startswith(source) else f"{source}: {known}") from None
    except _answers() as error:
        reason = one_line(addresses.shown(str(error)), 240)
        raise InputError(f"{source}: the registry {where} does not give it: {reason}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return to, given


def read_file(
    client: "MlflowClient", name: str, version: str, path: str, limit: int
) -> bytes | None:
    """One file of a version, of at most `limit` bytes; None where the version has none.

    `InputError` where it cannot be had.
    """
    source, where = f"models:/{name}/{version}", addresses.shown(client.tracking_uri)
    try:
        origin = client.get_model_version_download_uri(name, version)
        return fetching.fetch_one(origin, client.tracking_uri, path, limit)
    except InputError as error:
        raise InputError(f"{one_line(source)}: {error}") from None
    except _answers() as error:
        reason = one_line(addresses.shown(str(error)), 240)
        problem = f"the registry {where} does not give {one_line(path)}: {reason}"
        raise InputError(f"{one_line(source)}: {problem}") from None


def _answers() -> tuple[type[Exception], ...]:
    """What MLflow raises for an answer that it cannot use: what its parsers happen to raise."""
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from urllib3.exceptions import HTTPError

    parsing = (ParseError, KeyError, TypeError, AttributeError, RecursionError)
    return (MlflowException, HTTPError, *storage_errors(), *parsing)


def find(client: "MlflowClient", name: str, alias: str, number: str = "") -> "ModelVersion | None":
    """The version behind an alias, or of a number; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        if number:
            return client.get_model_version(name, number)
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in MISSING:
            return None
        raise
