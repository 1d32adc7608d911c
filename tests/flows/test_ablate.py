"""Comparisons: results by content, computed once; mistakes end in one line."""

import shutil

import pandas as pd
import pytest

from adapt import params
from adapt.arms import ArmsConfig, arm_of
from flows import ablate, cells
from tests import workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The smallest settings beside the real graph and code, without git, Prefect or MLflow."""
    folder = tmp_path_factory.mktemp("arms")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(workspace.ROOT / name, folder)
    shutil.copytree(workspace.ROOT / "adapt", folder / "adapt", ignore=shutil.ignore_patterns("__pycache__"))
    workspace.override(folder / "params.yaml", workspace.SMOKE)
    return folder


def never(*_):
    raise AssertionError("computed twice")


def test_a_cell_is_computed_once_and_named_by_what_it_depends_on(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))
    content = params.read(root / "params.yaml")
    first = cells.run(root, content, "data", ablate._silent)
    assert (first.folder / "splits" / "train.parquet").exists() and first.seconds > 0
    monkeypatch.setattr(cells, "_compute", never)
    assert cells.run(root, content, "data", ablate._silent).folder == first.folder
    with pytest.raises(AssertionError, match="computed twice"):
        cells.run(root, {**content, "seed": 8}, "data", ablate._silent)
    drawings = root / "adapt" / "data" / "drawings.py"
    drawings.write_text(drawings.read_text() + "# changed\n")
    with pytest.raises(AssertionError, match="computed twice"):
        cells.run(root, content, "data", ablate._silent)


def test_arms_share_a_model_and_make_a_table(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))
    content = params.read(root / "params.yaml")
    arms = [arm_of(content, name) for name in ("base", "steering")]
    results = [ablate.measure.fn(root, content, arm, 3, "test") for arm in arms]
    assert results[0].metrics["length"] > 0 and "fire_rate" in results[1].metrics
    assert len(list((root / ".state" / "cells").glob("base-*"))) == 1
    monkeypatch.setattr(ablate, "_answer", never)
    assert ablate.measure.fn(root, content, arms[0], 3, "test") == results[0]
    table = ablate.report(root, content, params.load(content, "arms", ArmsConfig), results)
    assert "| steering |" in table and "Hal against base" in table
    made = root / "results" / "arms"
    assert (made / "table.md").read_text() == table and (made / "arms.png").exists()
    assert pd.read_csv(made / "table.csv").arm.tolist() == ["base", "steering"]


@pytest.mark.parametrize(
    "arguments, message",
    [(["--arms", "bse"], "unknown arm bse"), (["--seeds", "seven"], "--seeds: 'seven' is not a whole number")],
)
def test_a_mistake_is_one_line(root, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(root)
    assert ablate.main(arguments) == 2
    assert message in capsys.readouterr().err
