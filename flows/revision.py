"""A retraining of another revision, or with a recipe: in a folder of its own, beside the workspace.

The folder is a git worktree under `revisions/` in the state folder, named by the commit and the
recipe. It shares DVC's cache, the MLflow store and the champion with the workspace, and begins with
the workspace's results, of which DVC keeps what is the same there. Code and params.yaml are those
of the commit; with a recipe alone, the code of HEAD and the params.yaml that lies in the workspace.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adapt import environment, params, recipe
from adapt.files import is_held, locked, whole_file
from adapt.names import file_name, one_line
from adapt.params import InputError, require
from flows.options import Retraining

KEPT = 3  # folders; older ones make room
DIGITS = 12  # of the commit, in the name of a folder
BROUGHT = (("data", "source"), ("data", "pictures"), ("base", "source"), ("prompt", "template"))


@contextmanager
def place(root: Path, options: Retraining) -> Iterator[Path]:
    """Where a retraining works: in the workspace, or in the folder of its revision and recipe.

    Asked again inside that folder it answers the same: `HEAD~1` there would be another commit.
    """
    state = environment.state_dir(root)
    home = state / "revisions"
    if not (options.revision or options.recipe) or root.resolve().parent == home.resolve():
        yield root
        return
    with locked(home / ".lock"):
        folder = prepared(root, home, options)
        used = _users(folder).open("a")
        fcntl.flock(used, fcntl.LOCK_SH)
    before = os.environ.get("ADAPT_STATE")
    os.environ["ADAPT_STATE"] = str(state)
    try:
        with used, chdir(folder):
            yield folder
    finally:
        os.environ.pop("ADAPT_STATE")
        if before is not None:
            os.environ["ADAPT_STATE"] = before


def _users(folder: Path) -> Path:
    """A file beside a folder, held by all who work in it."""
    return folder.with_name(f".{folder.name}.used")


def prepared(root: Path, home: Path, options: Retraining) -> Path:
    """The folder of a revision and a recipe, made where there is none; `InputError` else."""
    # 1. The commit, and the folder of that name with what the workspace knows already.
    commit = git(root, "rev-parse", "--verify", f"{options.revision or 'HEAD'}^{{commit}}")
    own = f"-{file_name(options.recipe)}" if options.recipe else ""
    folder = home / f"{commit[:DIGITS]}{own}"
    if not (folder / "dvc.yaml").is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what a killed one has left
        git(root, "worktree", "prune")
        git(root, "worktree", "add", "--detach", "--force", str(folder), commit)
        require((folder / "dvc.yaml").is_file(), options.revision, "has no dvc.yaml")
        _begin_with(root, folder)
    # 2. Its settings: written only where they differ, for a stage may be reading them.
    text = settings(root, folder, options)
    if (folder / "params.yaml").read_text(encoding="utf-8") != text:
        with whole_file(folder / "params.yaml") as partial:
            partial.write_text(text, encoding="utf-8")
    # 3. What these name relative to the workspace and git does not have.
    for name in brought(params.read(folder / "params.yaml")):
        if (root / name).exists() and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to((root / name).resolve())
    os.utime(folder)
    sweep(root, home)
    return folder


def settings(root: Path, folder: Path, options: Retraining) -> str:
    """The text of params.yaml: the commit's or the workspace's, changed by the recipe."""
    if options.revision:
        text = git(folder, "show", "HEAD:params.yaml") + "\n"
    else:
        text = (root / "params.yaml").read_text(encoding="utf-8")
    if not options.recipe:
        return text
    with TemporaryDirectory() as scratch:
        Path(scratch, "params.yaml").write_text(text, encoding="utf-8")
        if (folder / recipe.FOLDER).is_dir():
            shutil.copytree(folder / recipe.FOLDER, Path(scratch, recipe.FOLDER))
        recipe.apply(Path(scratch), options.recipe, False)
        return Path(scratch, "params.yaml").read_text(encoding="utf-8")


def brought(content: Mapping[str, Any]) -> list[str]:
    """Relative paths that params.yaml names and that may lie in the workspace only."""
    sections = {name: one for name, one in content.items() if isinstance(one, dict)}
    named = [sections.get(section, {}).get(key) for section, key in BROUGHT]
    listed = sections.get("answer", {}).get("benchmarks")
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict):  # else the plan says what is wrong with it
            named += [one.get(key) for key in ("path", "images", "similarity")]
    texts = [name for name in named if isinstance(name, str) and name]
    return [name for name in texts if not name.startswith(("/", "..")) and ":" not in name]


def _begin_with(root: Path, folder: Path) -> None:
    """Share DVC's cache, and take a copy of the results that the workspace has."""
    require((folder / ".dvc").is_dir(), folder.name, "has no .dvc; commit it (dvc init)")
    if (root / ".dvc" / "config.local").is_file():
        shutil.copy2(root / ".dvc" / "config.local", folder / ".dvc")
    _share_cache(root, folder)
    for name in ("results", "dvc.lock"):
        if (root / name).exists():
            # On a file system that can, this takes no room.
            _run(root, "cp", "-a", "--reflink=auto", "--", name, str(folder))


def _share_cache(root: Path, folder: Path) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as theirs:
            cache = theirs.cache.local_cache_dir
        with Repo(str(folder)) as ours, ours.config.edit("local") as settings:
            settings["cache"]["dir"] = cache
    except DvcException as error:
        raise InputError(f"DVC: {one_line(str(error))}") from None


def sweep(root: Path, home: Path) -> None:
    """Remove all but the folders that were used last, and those in which somebody works."""
    folders = [path for path in home.iterdir() if path.is_dir()]
    for path in sorted(folders, key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
        if not is_held(_users(path)):
            shutil.rmtree(path, ignore_errors=True)
            _users(path).unlink(missing_ok=True)
    git(root, "worktree", "prune")


def git(root: Path, *words: str) -> str:
    """What git says; `InputError` with its reason where it fails."""
    return _run(root, "git", *words)


def _run(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["failed without a word"]
        reason = one_line(lines[-1].removeprefix("fatal: "))
        raise InputError(f"{' '.join(command[:3])}: {reason}")
    return done.stdout.strip()
