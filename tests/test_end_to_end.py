"""The whole pipeline at its smallest, every part real: the flow, `dvc repro`, a second run, a
change, a Ray cluster.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import limits, workspace
from tests.support.ray_head import ray_head
from tests.support.workspace import command

pytestmark = pytest.mark.timeout(limits.WHOLE_TEST_S)


def outputs(root: Path) -> dict[str, str]:
    """Path and hash of every output in dvc.lock."""
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def changed(root: Path) -> set[str]:
    return set(json.loads(command(root, "dvc", "status", "--json")))


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace in which the flow has run once."""
    root = workspace.copy(tmp_path_factory.mktemp("flow") / "ws")
    (root / "said.txt").write_text(command(root, "flows.retrain"))
    workspace.all_end(root)
    yield root
    workspace.all_end(root)


@pytest.fixture
def root(retrained: Path, tmp_path: Path) -> Path:
    """A copy of that workspace for a test to change."""
    shutil.copytree(
        retrained, tmp_path / "ws", symlinks=True, ignore=shutil.ignore_patterns("prefect")
    )
    return tmp_path / "ws"


def test_the_flow_ends_with_a_table_and_a_decision(retrained: Path) -> None:
    said = (retrained / "said.txt").read_text()
    for word in ("CHAIR_i", "Hal", "Cover", "before", "after", "promoted", "make ui"):
        assert word in said, word
    assert (retrained / "results/train/model/model.safetensors").exists()
    assert any((retrained / "results/evaluate/panels").iterdir())


def test_a_second_run_finds_nothing_to_do(retrained: Path) -> None:
    before = (retrained / "dvc.lock").read_bytes()
    said = command(retrained, "flows.retrain")
    assert "no stage ran" in said.lower() or "nothing" in said.lower()
    assert (retrained / "dvc.lock").read_bytes() == before
    assert changed(retrained) == set()


def test_dvc_repro_alone_makes_the_same_bytes(retrained: Path, tmp_path: Path) -> None:
    other = workspace.copy(tmp_path / "dvc")
    command(other, "dvc", "repro")
    assert outputs(other) == outputs(retrained)


def test_a_change_reaches_what_depends_on_it_and_nothing_upstream(root: Path) -> None:
    workspace.override(root / "params.yaml", {"train": {"beta": 0.6}})
    assert changed(root) == {"train"}, "and evaluate, once train has made another model"
    workspace.override(root / "params.yaml", {"train": {"beta": 0.5}})
    losses = root / "adapt/preference/losses.py"
    losses.write_text(losses.read_text() + "# a comment\n")
    assert changed(root) == {"train"}


def test_metrics_and_plots_can_be_compared(root: Path) -> None:
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *who, "commit", "--quiet", "--message=results"], cwd=root, check=True)
    metrics = root / "results/train/metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "loss": 9.0}))
    assert "loss" in command(root, "dvc", "metrics", "diff")
    assert "index.html" in command(root, "dvc", "plots", "show")


def test_the_train_stage_runs_on_a_ray_cluster(root: Path) -> None:
    local = outputs(root)
    with ray_head() as head:
        command(root, "dvc", "repro", "--force", "--single-item", "train", env=head.env)
    assert (root / "results/train/model/model.safetensors").exists()
    assert outputs(root) == local, "the same loop on the same machine"
    workspace.all_end(root)
