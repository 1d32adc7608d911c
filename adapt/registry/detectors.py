"""Detectors of the early warning that were fitted again, to labelled answers of a served version.

The registered model `<model>.detector` has a version for each; its tag `adapt.of` names the version
of the model that it warns for. It holds `detector.json` alone: the weights that answer stay what
the gate has passed, and who serves version 3 finds here whether there is a better alarm for it.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from adapt import names
from adapt.params import InputError
from adapt.registry.away import asks
from adapt.registry.download import find, read_file
from adapt.registry.entries import EXISTS
from adapt.tracking.store import Store

FILE, OF = "detector.json", "adapt.of"
LARGEST = 1 << 20  # bytes
ABOUT = (
    "Detectors of {model} that were fitted again to labelled answers of its versions; the tag "
    "`adapt.of` says of which. Written by `python -m adapt.score risk --register`."
)


def name_of(model: str) -> str:
    """The registered model that keeps the detectors of `model`."""
    return f"{model}.detector"


@asks
def register(store: Store, content: str, of: str, tags: Mapping[str, str]) -> str:
    """A new version of the detector alone, for version `of` of the model; returns its number.

    `content` is that of `detector.json`; `tags` say what it was fitted to. `InputError` where the
    registry has no version `of`.
    """
    client, model = store.client, store.config.model
    if not of.isdecimal() or find(client, model, "", of) is None:
        raise InputError(f"{names.one_line(model)} has no version {names.one_line(of)}")
    _make(store)
    # As a logged model of its own, which a server takes as a source (`registry.register`). The id
    # is not handed on: without a run, MLflow would look for it in the process's own store.
    logged = client.create_logged_model(
        store.experiment_id, name_of(model).replace(".", "-"), model_type="detector"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_text(content, encoding="utf-8")
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    shown = {key: names.tag(value) for key, value in {OF: of, **tags}.items() if value}
    made = client.create_model_version(
        name_of(model),
        logged.artifact_location,
        tags=shown,
        await_creation_for=0,
    )
    return str(made.version)


@asks
def number(store: Store, of: str) -> str:
    """The number of the last detector for version `of` of the model; "" where there is none."""
    query = f"name = '{name_of(store.config.model)}' and tags.`{OF}` = '{int(of)}'"
    numbers = [int(one.version) for one in store.client.search_model_versions(query)]
    return str(max(numbers)) if numbers else ""


@asks
def content(store: Store, number: str) -> bytes:
    """The `detector.json` of a detector; InputError where it has none."""
    name = name_of(store.config.model)
    found = read_file(store.client, name, number, FILE, LARGEST)
    if found is None:
        raise InputError(f"models:/{name}/{number}: has no {FILE}")
    return found


def _make(store: Store) -> None:
    from mlflow.exceptions import MlflowException

    model = store.config.model
    try:
        about = ABOUT.format(model=model)
        store.client.create_registered_model(name_of(model), description=about)
    except MlflowException as error:
        if error.error_code not in EXISTS:
            raise
