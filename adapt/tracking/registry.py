"""Registered models: versions of plain checkpoint folders, and the aliases `challenger` and
`champion`.

A version holds what `save_pretrained` wrote, with safetensors weights, and is never loaded on its
way in or out: the upload is a copy, whatever the model's size, and nobody who downloads one runs
code that somebody else has put there.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.params import InputError
from adapt.tracking.store import TrackingConfig, client, uri, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from adapt.tracking.runs import Verdict

CHALLENGER = "challenger"
CHAMPION = "champion"
MODEL = "results/train/model"
UNSAFE = {
    ".bin",
    ".ckpt",
    ".joblib",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
}  # loading one of these can run code
MISSING = (
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_PARAMETER_VALUE",
)  # the second: a model without that alias


def register(
    root: Path, cfg: TrackingConfig, model_dir: Path, run_id: str, tags: Mapping[str, str]
) -> str:
    """Upload `model_dir` as a new version that belongs to the run `run_id`; returns the version.

    `tags` say where it is from (git revision, DVC's hash of the model); the run is added to them.
    """
    from mlflow.exceptions import MlflowException

    check_weights(model_dir)
    store = client(root)
    try:
        store.create_registered_model(cfg.model)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
    # A logged model of its own rather than an artifact of the run: a server takes only this as
    # source of a version.
    experiment_id = store.get_run(run_id).info.experiment_id
    logged = store.create_logged_model(experiment_id, cfg.model, run_id, model_type="checkpoint")
    store.log_model_artifacts(logged.model_id, str(model_dir))
    store.finalize_logged_model(logged.model_id, "READY")
    origin = {"adapt.run_id": run_id, **tags}
    version = store.create_model_version(
        cfg.model,
        source=logged.artifact_location,
        run_id=run_id,
        model_id=logged.model_id,
        tags={key: without_credentials(value) for key, value in origin.items() if value},
    )
    return str(version.version)


def check_weights(folder: Path) -> None:
    """`InputError` unless `folder` holds safetensors and no file that is loaded by unpickling."""
    files = (
        [path for path in sorted(folder.rglob("*")) if path.is_file()] if folder.is_dir() else []
    )
    unsafe = [str(path.relative_to(folder)) for path in files if path.suffix.lower() in UNSAFE]
    if unsafe:
        raise InputError(
            f"{folder}: {', '.join(unsafe)} may hold pickled code; keep weights as safetensors only"
        )
    if not any(path.suffix == ".safetensors" for path in files):
        raise InputError(f"{folder}: no weights (*.safetensors) in it")


def set_alias(root: Path, cfg: TrackingConfig, alias: str, version: str) -> None:
    """Let `alias` point to `version` and to nothing else."""
    client(root).set_registered_model_alias(cfg.model, alias, version)


def tag_decision(root: Path, cfg: TrackingConfig, version: str, decision: "Verdict") -> None:
    """Write on a version whether the gate let it pass, and every reason."""
    store = client(root)
    store.set_model_version_tag(
        cfg.model, version, "adapt.decision", "promoted" if decision.promote else "refused"
    )
    store.set_model_version_tag(cfg.model, version, "adapt.reasons", "\n".join(decision.reasons))


def champion(root: Path, cfg: TrackingConfig) -> str | None:
    """The version that `champion` points to, None before the first promotion."""
    found = _find(client(root), cfg.model, CHAMPION)
    return str(found.version) if found else None


def version_with_tag(root: Path, cfg: TrackingConfig, key: str, value: str) -> str | None:
    """The newest version whose tag `key` is `value`, for instance `dvc.model`: the same weights are
    registered once.
    """
    quoted = value.replace("'", "")
    found = client(root).search_model_versions(
        f"name = '{cfg.model}' and tags.`{key}` = '{quoted}'"
    )
    return str(max(int(version.version) for version in found)) if found else None


def download(root: Path, source: str, to: Path) -> tuple[Path, str]:
    """Fetch `models:/NAME@ALIAS` or `models:/NAME/VERSION` into the folder `to`; returns it and the
    version.
    """
    from mlflow.artifacts import download_artifacts

    parts = re.fullmatch(r"models:/([^/@']+)(?:@([\w.-]+)|/(\d+))", source)
    if not parts:
        raise InputError(f"{source}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, number = parts.groups()
    store = client(root)
    found = _find(store, name, alias, number)
    if found is None:
        raise InputError(
            f"{source}: no such model in the registry {without_credentials(uri(root))}"
        )
    # Resolved here and not by MLflow, which asks the process-wide registry address for a models:/
    # URI.
    where = store.get_model_version_download_uri(name, str(found.version))
    scratch = to.parent / f".{to.name}.parts"
    try:
        fetched = Path(download_artifacts(where, dst_path=str(scratch), tracking_uri=uri(root)))
        check_weights(fetched)
        shutil.rmtree(to, ignore_errors=True)
        fetched.rename(to)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return to, str(found.version)


def _find(
    store: "MlflowClient", name: str, alias: str | None, number: str | None = None
) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return (
            store.get_model_version(name, number)
            if number
            else store.get_model_version_by_alias(name, alias)
        )
    except MlflowException as error:
        if error.error_code in MISSING:
            return None
        raise
