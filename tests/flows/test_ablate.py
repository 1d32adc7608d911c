"""Comparisons: results by content, computed once; mistakes end in one line."""

import shutil

import pandas as pd
import pytest

from adapt import params
from adapt.params import InputError
from flows.compare import ablate, cells, pool
from flows.compare.arms import ArmsConfig, arm_of
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
    arms = [arm_of(content, name) for name in ("base", "steering")]
    wanted = [ablate.measurement(root, content, arm, 3, "test") for arm in arms]
    made = [cell.title for cell, _ in pool.run([one.cell for one in wanted], 2, root)]
    assert made[:2] == ["data, seed 3", "base, seed 3"]
    assert sorted(made[2:]) == [
        "measuring base on test, seed 3",
        "measuring steering on test, seed 3",
    ]
    assert list(pool.run([one.cell for one in wanted], 2, root)) == []
    results = [one.result for one in wanted]
    assert results[0].metrics["length"] > 0 and "fire_rate" in results[1].metrics
    table = ablate.report(root, content, params.load(content, "arms", ArmsConfig), results)
    assert "| steering |" in table and "Hal against base" in table
    made = root / "results" / "arms"
    assert (made / "table.md").read_text() == table and (made / "arms.png").exists()
    assert pd.read_csv(made / "table.csv").arm.tolist() == ["base", "steering"]


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
    ],
)
def test_a_mistake_is_one_line(root, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(root)
    assert ablate.main(arguments) == 2
    assert message in capsys.readouterr().err
