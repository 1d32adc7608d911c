"""Comparisons: results by content, computed once; mistakes end in one line."""

import shutil

import pandas as pd
import pytest

from adapt import params
from adapt.params import InputError
from flows.compare import arms, cells, pool, scoring, table
from flows.compare.__main__ import main
from flows.compare.arms import Comparison
from flows.compare.cells import Cell
from tests.support import workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The smallest settings beside the real graph and code, without git, Prefect or MLflow."""
    folder = tmp_path_factory.mktemp("arms")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(workspace.ROOT / name, folder)
    shutil.copytree(
        workspace.ROOT / "adapt", folder / "adapt", ignore=shutil.ignore_patterns("__pycache__")
    )
    workspace.override(folder / "params.yaml", workspace.SMOKE)
    return folder


def test_a_cell_is_computed_once_and_named_by_what_it_depends_on(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))
    content = params.read(root / "params.yaml")
    first = cells.stage(root, content, "data")
    first.compute()
    assert (
        (first.folder / "splits" / "train.parquet").exists() and first.seconds > 0 and first.metrics
    )
    assert cells.stage(root, content, "data").done
    assert not cells.stage(root, {**content, "seed": 8}, "data").done
    drawings = root / "adapt" / "data" / "drawings.py"
    before = drawings.read_text()
    drawings.write_text(before + "# changed\n")
    assert not cells.stage(root, content, "data").done
    drawings.write_text(before)


def test_ray_computes_what_arms_share_once_and_they_make_a_table(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))
    content = params.read(root / "params.yaml")
    comparison = Comparison(root=root, content=content, arms=arms.read(), jobs=2)
    pair = [comparison.arm(name) for name in ("base", "steering")]
    wanted = [scoring.scoring(comparison, arm, 3, "test") for arm in pair]
    made = [cell.title for cell, _ in pool.run([one.cell for one in wanted], 2, root)]
    assert made[:2] == ["data, seed 3", "base, seed 3"]
    assert sorted(made[2:]) == [
        "answering as base on test, seed 3",
        "answering as steering on test, seed 3",
        "scoring base on test, seed 3",
        "scoring steering on test, seed 3",
    ]
    assert list(pool.run([one.cell for one in wanted], 2, root)) == []
    scores = [one.scores for one in wanted]
    assert scores[0].metrics["length"] > 0 and "fire_rate" in scores[1].metrics
    text = table.write(comparison, scores)
    assert "| steering |" in text and "Hal against base" in text
    made = root / "results" / "arms"
    assert (made / "table.md").read_text() == text and (made / "arms.png").exists()
    assert pd.read_csv(made / "table.csv").arm.tolist() == ["base", "steering"]
    plots = root / "adapt" / "evaluation" / "plots.py"
    before = plots.read_text()
    plots.write_text(before + "# changed\n")
    scores_cell = scoring.scoring(comparison, pair[0], 3, "test").cell
    plots.write_text(before)
    assert not scores_cell.done and all(cell.done for cell in scores_cell.after), "answers stay"


def refuse(out):
    raise InputError(f"params.yaml: not {out.parent.name}")


def test_the_first_error_is_raised_as_it_was_and_leaves_nothing_half_made(tmp_path):
    cells_ = [Cell("first", tmp_path / "here" / "first", refuse)]
    with pytest.raises(InputError, match=r"^params.yaml: not here$"):
        list(pool.run(cells_, 1, tmp_path))
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--arms", "bse"], "unknown arm bse"),
        (["--seeds", "seven"], "--seeds: 'seven' is not a whole number"),
        (["--seeds", "7,4294967296"], "--seeds: must be less than 4294967296"),
        (["--jobs", "0"], "--jobs: must be at least 1"),
        (["--file", "nowhere.yaml"], "nowhere.yaml: not found"),
    ],
)
def test_a_mistake_is_one_line(root, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(root)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
