"""dvc.yaml says what the code says: import closures, parameters, and one word per stage."""

import ast
from pathlib import Path

import pytest
import yaml

from adapt import params
from adapt.launch import STAGES, configs, stage_module
from tests.support import limits
from tests.support.closure import ROOT, closure, ignored, listed
from tests.support.unread import unread

GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_stages_are_the_launchers():
    assert tuple(GRAPH) == STAGES
    assert all(GRAPH[stage]["cmd"] == f"python -m adapt.stages.{stage}" for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_import_closure(stage):
    deps = [dep for dep in GRAPH[stage]["deps"] if not dep.startswith("results/")]
    assert deps == listed(stage), "python -m tests.support.closure writes the lists"


def test_what_dvc_does_not_see_is_there_and_in_no_closure():
    assert all((ROOT / path).is_file() for path in ignored())
    for stage in STAGES:
        assert not closure(f"adapt.stages.{stage}") & ignored()


@pytest.mark.parametrize("stage", STAGES)
def test_results_that_are_read_are_results_that_are_made(stage):
    before = STAGES[: STAGES.index(stage)]
    made = {Path(next(iter(out))) for name in before for out in GRAPH[name]["outs"]}
    read = [Path(dep) for dep in GRAPH[stage]["deps"] if dep.startswith("results/")]
    assert all(made & {path, *path.parents} for path in read), "or lie in one of them"


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_what_the_config_reads(stage):
    shared = params.shared_fields(stage_module(stage).Config)
    assert set(GRAPH[stage]["params"]) == {stage, *shared}


def test_the_file_is_short():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 154


def test_packages_hold_no_code():
    for path in ROOT.glob("adapt/**/__init__.py"):
        body = ast.parse(path.read_text()).body  # a docstring is a name plate
        code = [node for node in body if not isinstance(node, ast.Expr)]
        assert not code, f"{path}: a change here would not re-run a stage"


def test_every_section_of_params_yaml_loads():
    content = params.read(ROOT / "params.yaml")
    assert set(configs(content)) == set(content) - {"seed", "max_new_tokens", "device"}


PLANTED = """
class Planted(Settings):
    used: Count
    unused: Count
    checked: Count
    seed: Shared[Seed]
    steer: Shared[SteerConfig]

    @model_validator(mode="after")
    def _check(self) -> Self:
        assert self.checked
        return self


def use(planted: Planted) -> int:
    return planted.used
"""


@pytest.mark.timeout(limits.WHOLE_TEST_S)  # 20 s on a quiet machine
def test_every_option_is_read_somewhere(tmp_path):
    """No option that nothing reads; that the check can fail is seen from a class planted for it."""
    imports = (
        "from typing import Self",
        "from pydantic import model_validator",
        "from adapt.params import Seed",
    )
    file = "adapt/generation/settings.py"
    planted = {file: "\n".join([*imports, PLANTED])}
    unused = [f"{file}: Planted.{name}" for name in ("unused", "checked", "seed", "steer")]
    assert unread(ROOT, tmp_path, planted) == unused
