"""A retraining of another revision, or with a recipe: its folder, settings and what it shares."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from adapt.params import InputError
from flows import plan, report, revision, tasks
from flows.options import Retraining
from tests.support import quick, retrainings, workspace

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:dvc", "ignore:_NoneStep.value:DeprecationWarning"
)
WHO = ("-c", "user.name=test", "-c", "user.email=test@example.org")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "ADAPT_STATE"):
        monkeypatch.delenv(key, raising=False)
    root = tmp_path / "work"
    root.mkdir()
    quick.make(root)
    (root / "recipes").mkdir()
    (root / "recipes" / "short.yaml").write_text("# a short training\ntrain:\n  steps: 3\n")
    commit(root)
    monkeypatch.chdir(root)
    return root


def commit(root: Path) -> str:
    revision.git(root, "add", "--all")
    revision.git(root, *WHO, "commit", "--quiet", "--message=more")
    return revision.git(root, "rev-parse", "HEAD")


def settings(folder: Path) -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load((folder / "params.yaml").read_text()))


def test_without_either_it_is_the_workspace(root: Path) -> None:
    with revision.place(root, Retraining()) as here:
        assert here == root and "ADAPT_STATE" not in os.environ


def test_an_earlier_revision_has_its_code_and_shares_the_rest(root: Path) -> None:
    before = revision.git(root, "rev-parse", "HEAD")
    assert retrainings.go_on(root, "data") == "ran"
    workspace.override(root / "params.yaml", {"train": {"steps": 77}})
    commit(root)
    with revision.place(root, Retraining(revision="HEAD~1")) as here:
        assert here == root / ".state" / "revisions" / before[:12] == Path.cwd()
        assert os.environ["ADAPT_STATE"] == str(root / ".state")
        assert settings(here)["train"]["steps"] != 77
        # What the workspace has made is there, and DVC knows it; its cache is the same.
        assert "data" not in plan.make(here, force=False).due
        config = (here / ".dvc" / "config.local").read_text()
        assert str(root / ".dvc" / "cache") in config
        assert report._path(here) != report._path(root)
        # The flow asks again when the command line has asked before it.
        with revision.place(here, Retraining(revision="HEAD~1")) as again:
            assert again == here
    assert "ADAPT_STATE" not in os.environ and Path.cwd() == root


def test_a_recipe_changes_the_settings_of_the_workspace(root: Path) -> None:
    workspace.override(root / "params.yaml", {"train": {"beta": 0.25}})  # not committed
    with revision.place(root, Retraining(recipe="short")) as here:
        assert here.name.endswith("-short")
        assert (settings(here)["train"]["steps"], settings(here)["train"]["beta"]) == (3, 0.25)
        written = (here / "params.yaml").stat().st_mtime_ns
    with revision.place(root, Retraining(recipe="short")) as here:
        assert (here / "params.yaml").stat().st_mtime_ns == written
    assert settings(root)["train"]["steps"] != 3


def test_data_that_git_does_not_have_is_found(root: Path) -> None:
    (root / "mine").mkdir()
    (root / ".git" / "info" / "exclude").write_text("mine\n")
    workspace.override(root / "params.yaml", {"data": {"source": "mine"}})
    with revision.place(root, Retraining(recipe="short")) as here:
        assert (here / "mine").resolve() == root / "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Retraining(revision="nowhere"), "git rev-parse --verify: "),
        (Retraining(recipe="shortt"), "shortt"),
    ],
)
def test_what_is_not_there_is_one_line(root: Path, options: Retraining, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught, revision.place(root, options):
        raise AssertionError
    assert "\n" not in str(caught.value)


def test_a_folder_in_which_somebody_works_stays(root: Path) -> None:
    with revision.place(root, Retraining(revision="HEAD")) as busy:
        os.utime(busy, (0, 0))
        for number in range(revision.KEPT):
            (root / "note.txt").write_text(str(number))
            commit(root)
            with revision.place(root, Retraining(revision=revision.git(root, "rev-parse", "HEAD"))):
                assert (busy / "dvc.yaml").is_file()


@pytest.mark.parametrize(
    "content", [{"data": "x"}, {"answer": ["x"]}, {"answer": {"benchmarks": ["x"]}}]
)
def test_settings_that_are_none_bring_nothing(content: dict[str, object]) -> None:
    assert revision.brought(content) == []


def test_what_was_cut_off_is_made_again_and_old_folders_go(root: Path) -> None:
    home = root / ".state" / "revisions"
    commits = []
    for number in range(revision.KEPT + 2):
        (root / "note.txt").write_text(str(number))
        commits.append(commit(root))
        with revision.place(root, Retraining(revision="HEAD")) as here:
            os.utime(here, (number, number))
    kept = {path.name for path in home.iterdir() if path.is_dir()}
    assert kept == {name[:12] for name in commits[-revision.KEPT :]}
    (here / "dvc.yaml").unlink()  # as when its making was killed
    with revision.place(root, Retraining(revision=commits[-1][:7])) as again:
        assert again == here and (again / "dvc.yaml").is_file()
        assert tasks.order(again)
    listed = subprocess.run(["git", "worktree", "list"], cwd=root, capture_output=True, text=True)
    assert listed.stdout.count("\n") == 1 + revision.KEPT
