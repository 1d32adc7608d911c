"""Registered models: versions of checkpoint folders, and the aliases `challenger` and `champion`.

A version holds what `save_pretrained` wrote, with safetensors weights, and is never loaded on its
way in or out: the upload is a copy, whatever the model's size, and nobody who downloads one runs
code that somebody else has put there.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.params import InputError, require
from adapt.tracking.store import Store, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER = "challenger"
CHAMPION = "champion"
MODEL = "results/train/model"
# Loading one of these can run code.
UNSAFE = {".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
CODE = {".py", ".pyc", ".so", ".sh", ".ipynb"}
# What `save_pretrained` writes, and what people write about a model.
PARTS = {".safetensors", ".json", ".jinja", ".model", ".txt", ".md"}
# What MLflow answers where nothing is; the second: a model without that alias.
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def register(store: Store, folder: Path, run_id: str, tags: Mapping[str, str]) -> str:
    """Upload `folder` as a new version that belongs to the run `run_id`; returns the version.

    `tags` say where it is from (git revision, DVC's hash of the model); the run is added to them.
    """
    from mlflow.exceptions import MlflowException

    # 1. Nothing goes in that would run code on its way out.
    check_weights(folder)
    client, name = store.client, store.config.model
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
    # 2. Upload it as a logged model of its own: a server takes no artifact of a run as a source.
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, name, run_id, model_type="checkpoint")
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    # 3. Make the version only now, so that none has half a model.
    origin = {"adapt.run_id": run_id, **tags}
    shown = {key: without_credentials(value) for key, value in origin.items() if value}
    source, model_id = logged.artifact_location, logged.model_id
    made = client.create_model_version(name, source, run_id, tags=shown, model_id=model_id)
    return str(made.version)


def check_weights(folder: Path) -> None:
    """`InputError` unless `folder` holds safetensors, and nothing but what a model consists of."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for problem, is_one in FOREIGN.items():
        found = [str(path.relative_to(folder)) for path in paths if is_one(path, folder)]
        require(not found, str(folder), f"{', '.join(found)} {problem}")
    has_weights = any(path.suffix == ".safetensors" for path in paths)
    require(has_weights, str(folder), "no weights (*.safetensors) in it")


def _leaves(path: Path, folder: Path) -> bool:
    """Whether a link leads out of the folder, or to nothing, or to a folder."""
    is_inside = path.resolve().is_relative_to(folder.resolve())
    return path.is_symlink() and not (is_inside and path.is_file())


# What is no part of a version: what is said of it, and whether a path in a folder is such a one.
FOREIGN: dict[str, Callable[[Path, Path], bool]] = {
    "may hold pickled code; keep weights as safetensors only": (
        lambda path, _: path.suffix.lower() in UNSAFE
    ),
    "is a link out of the folder; put the file itself there": _leaves,
    "is code; a version holds none": lambda path, _: path.suffix.lower() in CODE,
    "is hidden; a version holds nothing that is": (
        lambda path, folder: any(part.startswith(".") for part in path.relative_to(folder).parts)
    ),
    "is no part of a model; a version holds nothing else": (
        lambda path, _: not path.is_file() or path.suffix.lower() not in PARTS
    ),
}


def set_alias(store: Store, alias: str, version: str) -> None:
    """Let `alias` point to `version` and to nothing else."""
    store.client.set_registered_model_alias(store.config.model, alias, version)


def champion(store: Store) -> str | None:
    """The version that `champion` points to, None before the first promotion."""
    return version_behind(store, store.config.model, CHAMPION)


def version_behind(store: Store, model: str, alias: str) -> str | None:
    """The version that an alias of a registered model points to, None where there is none."""
    version = _find(store.client, model, alias)
    return str(version.version) if version else None


def version_with_tag(store: Store, key: str, value: str) -> str | None:
    """The newest version with this tag, such as `dvc.model`: same weights, same version."""
    quoted = value.replace("'", "")
    query = f"name = '{store.config.model}' and tags.`{key}` = '{quoted}'"
    versions = [int(version.version) for version in store.client.search_model_versions(query)]
    return str(max(versions)) if versions else None


def tags(store: Store, version: str) -> dict[str, str]:
    """The tags of a version."""
    return dict(store.client.get_model_version(store.config.model, version).tags)


def tag(store: Store, version: str, tags: Mapping[str, str]) -> None:
    """Write tags on a version, such as whether the gate let it pass."""
    for key, value in tags.items():
        store.client.set_model_version_tag(store.config.model, version, key, value)


def download(client: "MlflowClient", source: str, to: Path) -> tuple[Path, str]:
    """Fetch `models:/NAME@ALIAS` or `models:/NAME/VERSION` into `to`; returns it and the version.

    `InputError`, and `to` as it was, where there is no such model or loading it could run code.
    """
    from mlflow.artifacts import download_artifacts

    parts = re.fullmatch(r"models:/([^/@']+)(?:@([\w.-]+)|/(\d+))", source)
    if not parts:
        raise InputError(f"{source}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, number = parts.groups()
    address = client.tracking_uri
    version = _find(client, name, alias, number)
    if version is None:
        raise InputError(f"{source}: no such model in the registry {without_credentials(address)}")
    # Resolved here and not by MLflow, which asks the process-wide registry for a models:/ address.
    origin = client.get_model_version_download_uri(name, str(version.version))
    scratch = to.parent / f".{to.name}.parts"
    try:
        fetched = Path(download_artifacts(origin, dst_path=str(scratch), tracking_uri=address))
        check_weights(fetched)
        shutil.rmtree(to, ignore_errors=True)
        fetched.rename(to)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return to, str(version.version)


def _find(client: "MlflowClient", name: str, alias: str, number: str = "") -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        if number:
            return client.get_model_version(name, number)
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in MISSING:
            return None
        raise
