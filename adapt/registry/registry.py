"""Registered models: versions of checkpoint folders, and what one asks about the champion.

A version holds what `save_pretrained` wrote, with safetensors weights, and is never loaded on its
way in or out: the upload is a copy, whatever the model's size, and nobody who downloads one runs
code that somebody else has put there.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import names
from adapt.registry import card, contents, settling
from adapt.registry.away import asks
from adapt.registry.download import find
from adapt.registry.entries import EXISTS
from adapt.registry.standing import CHAMPION, WEIGHTS, Standing
from adapt.tracking import experiment, presentation
from adapt.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL = "results/train/model"
log = logging.getLogger(__name__)


@asks
def register(
    store: Store, folder: Path, run_id: str, tags: Mapping[str, str], about: str = ""
) -> str:
    """The version that holds `folder`: uploaded now, as one of the run `run_id`, if there is none.

    `tags` say where it is from (git revision, DVC's hash of the model); the run is added to them.
    `about` is its description until something is decided, such as its model card.
    Weights of one hash are one version, also where several workspaces register them at once.
    """
    # 1. Nothing goes in that would run code on its way out.
    contents.check_weights(folder)
    client, name, weights = store.client, store.config.model, tags.get(WEIGHTS, "")
    if known := version_of(store, weights):
        return known
    _make(client, name)
    experiment.describe(store)
    # 2. Upload it as a logged model of its own: a server takes no artifact of a run as a source.
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, name, run_id, model_type="checkpoint")
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    # 3. Make the version only now, so that none has half a model.
    origin = {"adapt.run_id": run_id, **tags}
    shown = {key: names.tag(value) for key, value in origin.items() if value}
    source, model_id = logged.artifact_location, logged.model_id
    made = client.create_model_version(
        name,
        source,
        run_id,
        tags=shown,
        description=card.fitting(about) or None,
        model_id=model_id,
        await_creation_for=0,
    )
    # 4. Of several that came to the same the lowest number stays: everybody sees that one, since a
    #    number is given only where all below it can be read.
    first = version_of(store, weights) or str(made.version)
    if first != str(made.version):
        # A request that was answered too late arrives twice: then both are of this upload.
        is_shared = client.get_model_version(name, first).source == made.source
        client.delete_model_version(name, str(made.version))
        if not is_shared:
            _delete_upload(client, model_id, source)
    return first


def _make(client: "MlflowClient", name: str) -> None:
    """The registered model, unless it is there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=presentation.model_note(name))
    except MlflowException as error:
        if error.error_code not in EXISTS:
            raise


def _delete_upload(client: "MlflowClient", model_id: str, source: str) -> None:
    """Take away what no version needs; files that cannot be deleted are only room that is lost."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        get_artifact_repository(source, tracking_uri=client.tracking_uri).delete_artifacts()
        client.delete_logged_model(model_id)
    except (MlflowException, NotImplementedError, OSError) as error:
        log.warning(
            "%s: a second upload could not be deleted (%s)",
            names.one_line(model_id),
            names.one_line(type(error).__name__),
        )


def champion(store: Store) -> str | None:
    """The champion's version, None before the first promotion; its alias shows the same then."""
    return settling.settled(store).champion


def shown_state(store: Store) -> Standing:
    """Champion, previous, what waits, and the log of how they came to be."""
    return settling.settled(store)


@asks
def version_behind(store: Store, model: str, alias: str) -> str | None:
    """The version that an alias of a registered model points to, None where there is none."""
    if model == store.config.model and alias == CHAMPION:
        return champion(store)
    version = find(store.client, model, alias)
    return str(version.version) if version else None


@asks
def version_of(store: Store, weights: str) -> str | None:
    """The version that holds the weights of this hash (tag `dvc.model`); the lowest of several."""
    quoted = weights.replace("'", "")
    query = f"name = '{store.config.model}' and tags.`{WEIGHTS}` = '{quoted}'"
    found = store.client.search_model_versions(query) if weights else []
    return str(min(int(version.version) for version in found)) if found else None


@asks
def tags(store: Store, version: str) -> dict[str, str]:
    """The tags of a version."""
    return dict(store.client.get_model_version(store.config.model, version).tags)
