"""The sides of a promotion: what is measured anew of a model is what the stages measured of it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapt.attention.settings import AnchorConfig
from adapt.evaluation.gate import Draws, decide
from adapt.evaluation.rules import Rules
from adapt.evaluation.settings import Config
from adapt.params import InputError
from adapt.stages import answer, evaluate
from flows import contest
from tests.stages.conftest import ANSWER, K, written
from tests.support import benchmark_folders as made

RULES = Rules.model_validate({"hal": {"max_loss": 0.0}, "mine.accuracy": {"max_loss": 0.0}})
EVALUATE = Config(
    bootstrap=20, panels=0, anchor=AnchorConfig(anchor_tokens=K, noise_images=2), seed=7
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which two small models have answered a split and a POPE file."""
    root = tmp_path_factory.mktemp("workspace")
    results = written(root / "results", True)
    for name, config, stage in (("answer", asked(root), answer), ("evaluate", EVALUATE, evaluate)):
        (results / name).mkdir()
        metrics = stage.run(config, results, results / name, lambda step, metrics: None)  # type: ignore[attr-defined]
        (results / name / "metrics.json").write_text(json.dumps(metrics))
    return root


def asked(root: Path) -> Any:
    path = root / "pope"
    file = path / "coco_pope_random.json"
    one = made.benchmark("pope", file if file.exists() else made.pope(path), label="mine")
    return ANSWER.model_copy(update={"benchmarks": (one,), "traces": 0})


def config(root: Path) -> dict[str, Any]:
    return {
        "answer": asked(root),
        "gate": RULES,
        "evaluate": SimpleNamespace(anchor=EVALUATE.anchor),
    }


def test_a_model_judged_anew_has_the_figures_of_the_stages(root: Path) -> None:
    stages = contest.evaluated(root / "results" / "evaluate", RULES, "tuned", "tuned model")
    again = contest.anew(config(root), root / "results" / "train" / "model", root, "champion")
    assert set(again.metrics) == set(stages.metrics) and "mine.f1" in stages.metrics
    for name, value in stages.metrics.items():
        assert again.metrics[name] == pytest.approx(value, rel=1e-6), name
    ours, theirs = stages.scores(RULES), again.scores(RULES)
    for key in RULES.named:
        assert ours.counted[key].images == theirs.counted[key].images
        assert ours.counted[key].ratio == theirs.counted[key].ratio
    decision = decide(ours, theirs, RULES, contest.labels(config(root)), Draws(20, 7))
    assert decision.promote, decision.reasons
    assert "unchanged (95 % interval +0.0 to +0.0)" in decision.reasons[1]


def test_only_benchmarks_that_a_rule_names_are_asked(root: Path) -> None:
    rules = Rules.model_validate({"hal": {"max_loss": 0.0}})
    again = contest.anew(
        config(root) | {"gate": rules}, root / "results" / "base" / "model", root, "champion"
    )
    assert not again.counted and not any(key.startswith("mine.") for key in again.metrics)


def test_a_benchmark_that_has_changed_since_is_not_compared(root: Path) -> None:
    file = root / "pope" / "coco_pope_random.json"
    before = file.read_text()
    file.write_text(before.replace("snowboard", "surfboard"))
    try:
        with pytest.raises(InputError, match=r"^mine: .*json: is not what stage answer asked"):
            contest.anew(config(root), root / "results" / "train" / "model", root, "champion")
    finally:
        file.write_text(before)
