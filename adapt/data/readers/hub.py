"""Data sets of the Hugging Face hub, `hf:owner/name@revision`: the commit, and where its files are.

Files are read as they stand there and no code of theirs is run. They are fetched while they are
read, unless the cache of `huggingface_hub` has them (`hf download owner/name --repo-type dataset`).
Without a network, what the cache has of the revision is read.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapt.data.readers.local import Local
from adapt.data.readers.remote import Remote, reached
from adapt.files import storage_errors
from adapt.params import InputError, plain

PREFIX = "hf:"
TIMEOUT_S = 30  # the hub answers what a data set has
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def place(named: str, counts: Callable[[str], bool]) -> tuple[Local | Remote, str]:
    """The place behind `hf:owner/name@revision` and its commit; `counts` says which files matter.

    Raises InputError for a name that is none, a data set that is not there, and without a network
    one that the cache does not have.
    """
    match = _NAME.fullmatch(named.removeprefix(PREFIX).removeprefix("//"))
    if match is None:
        raise InputError(f"{plain(named)}: expected hf:owner/name or hf:owner/name@revision")
    name, revision = match[1], match[2]
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_S)
    except storage_errors() as error:
        if answer := _answer(error):
            raise InputError(f"{plain(named)}: {answer}") from None
        if cached := _cached(name, revision):
            return Local(root=cached), cached.name
        with reached(f"{PREFIX}{name}"):
            raise
    commit = str(found.sha)
    files = [file.rfilename for file in found.siblings or () if counts(file.rfilename)]
    cached = _cached(name, commit)
    if cached is not None and all((cached / file).is_file() for file in files):
        return Local(root=cached), commit
    return Remote(url=f"hf://datasets/{name}@{commit}"), commit


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder that the cache has of a revision, whole or in part."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    options: dict[str, Any] = {"repo_type": "dataset", "local_files_only": True}
    try:
        return Path(snapshot_download(name, revision=revision, **options)).resolve()
    except LocalEntryNotFoundError:
        return None


def _answer(error: Exception) -> str:
    """What the hub answers instead of a data set; "" where it does not answer or fails itself."""
    from huggingface_hub import errors

    log_in = "log in (hf auth login, or HF_TOKEN)"
    if isinstance(error, errors.GatedRepoError):
        return f"is gated; accept its terms on its page and {log_in}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no such data set; if it is private, {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the data set has no such branch, tag or commit"
    return str(error) if isinstance(error, errors.HFValidationError) else ""
