"""A promotion by itself: what the gate is asked, what it leaves, how often it opens the store."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from adapt import launch, params
from adapt.benchmarks.settings import Benchmark
from adapt.evaluation.rules import Rules
from adapt.tracking import registry, runs
from adapt.tracking.store import Store
from flows import contest, outside, plan, promote, report
from tests.support import tracked
from tests.support.closure import ROOT

IMAGES = 200


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A workspace with a base that hallucinates in 40 % of its answers."""
    store = tracked.workspace(tmp_path, monkeypatch)
    evaluated(store.root, base=0.4, tuned=0.1)
    train(store.root, "first")
    return store


@pytest.fixture
def config() -> dict[str, Any]:
    return launch.configs(params.read(ROOT / "params.yaml"))


def train(root: Path, weights: str) -> None:
    """A tuned model, and its hash in dvc.lock."""
    folder = root / registry.MODEL
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(weights)
    lock = json.loads((root / "dvc.lock").read_text())
    lock["stages"]["train"]["outs"] = [{"path": registry.MODEL, "md5": f"{weights}.dir"}]
    (root / "dvc.lock").write_text(json.dumps(lock))


def evaluated(root: Path, **hal: float) -> None:
    """What stage `evaluate` leaves, for arms that hallucinate in a share of their answers."""
    folder = root / "results" / "evaluate"
    folder.mkdir(parents=True, exist_ok=True)
    tables, metrics = [answers(arm, share) for arm, share in hal.items()], {}
    for arm, share in hal.items():
        metrics |= {f"{arm}/{key}": value for key, value in scores(share).items()}
    pd.concat(tables).to_parquet(folder / "judged.parquet")
    (folder / "metrics.json").write_text(json.dumps(metrics))


def answers(arm: str, share: float) -> pd.DataFrame:
    ids = [f"i{n}" for n in range(IMAGES)]
    absent = [["dog"] if n < share * IMAGES else [] for n in range(IMAGES)]
    columns = {"arm": arm, "id": ids, "image_id": ids, "kind": "describe", "hallucinated": absent}
    return pd.DataFrame({**columns, "covered": [["cat"]] * IMAGES, "truth": [["cat"]] * IMAGES})


def scores(share: float) -> dict[str, float]:
    return {"chair_i": 50 * share, "hal": 100 * share, "cover": 100.0, "mass_late_early": 0.9}


def pope(root: Path, **accuracy: float) -> None:
    """What stage `evaluate` leaves of a benchmark, for arms that are right so often."""
    folder = root / "results" / "evaluate"
    metrics, tables = json.loads((folder / "metrics.json").read_text()), []
    for arm, share in accuracy.items():
        metrics[f"{arm}/pope.accuracy"] = 100 * share
        right = [int(n < share * IMAGES) for n in range(IMAGES)]
        images = [str(n) for n in range(IMAGES)]
        columns = {"arm": arm, "benchmark": "pope", "metric": "accuracy", "image": images}
        tables.append(pd.DataFrame({**columns, "numerator": right, "denominator": 1}))
    pd.concat(tables).to_parquet(folder / "benchmarks.parquet")
    (folder / "metrics.json").write_text(json.dumps(metrics))


def ruled(config: dict[str, Any], **rules: Any) -> dict[str, Any]:
    """The configuration with POPE among the benchmarks, and these rules alone."""
    benchmark = Benchmark(name="pope", path="pope.json")
    asked = config["answer"].model_copy(update={"benchmarks": (benchmark,)})
    return config | {"answer": asked, "gate": Rules.model_validate(rules)}


def promoted(store: Store, config: dict[str, Any], move: bool = True) -> promote.Promotion:
    return promote.promote(store, config, runs.start_retraining(store, {}), move)


def test_a_better_model_moves_the_champion_and_the_store_is_opened_once(
    store: Store, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    openings = tracked.openings(monkeypatch)
    assert outside.alias_moved(store, "models:/adapt@champion") == ""
    promotion = promoted(store, config)
    asked = plan.question(store, config, promote=True)
    assert openings == [store.root]
    assert asked["champion"] == registry.champion(store) == promotion.version == "1"
    assert registry.version_behind(store, "adapt", "challenger") == "1"
    assert promotion.sentence("adapt") == "adapt version 1 was promoted to champion"
    assert (promotion.before["Hal %"], promotion.after["Hal %"]) == (40.0, 10.0)
    tags = registry.tags(store, "1")
    assert tags["adapt.decision"] == "promoted" and tags["dvc.model"] == "first.dir"
    assert tags["adapt.reasons"] == "\n".join(promotion.reasons)


def test_what_the_run_of_the_retraining_is_told(store: Store, config: dict[str, Any]) -> None:
    tags = promoted(store, config).run_tags()
    assert (tags["adapt.promoted"], tags["adapt.model_version"]) == ("true", "1")
    assert tags["adapt.reasons"].startswith("passed: Hal 40.0 % -> 10.0 %")
    assert tags["mlflow.note.content"].startswith("**Promoted**\n\n* passed: Hal")
    assert promoted(store, config).run_tags() == {"adapt.model_version": "1"}  # nothing to decide


def test_a_retraining_that_may_not_move_the_champion_only_says_so(
    store: Store, config: dict[str, Any]
) -> None:
    promotion = promoted(store, config, move=False)
    assert promotion.promoted is False
    assert promotion.reasons[-1] == "passed, but this retraining may not move the champion"
    assert registry.champion(store) is None
    assert registry.tags(store, "1")["adapt.decision"] == "refused"


def test_the_champion_itself_is_judged_on_the_same_images(
    store: Store, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(store, config)
    train(store.root, "second")
    evaluated(store.root, base=0.4, tuned=0.2)
    models: list[str] = []

    def anew(config: Any, model: Path, root: Path, name: str) -> contest.Contestant:
        models.append((model / "model.safetensors").read_text())
        return contest.Contestant(
            name=name, metrics=scores(0.1), judged=answers("tuned", 0.1), counted={}
        )

    monkeypatch.setattr(contest, "anew", anew)
    promotion = promoted(store, config)
    assert models == ["first"]
    assert (promotion.promoted, promotion.against) == (False, "champion, version 1")
    assert promotion.reasons[0].startswith("failed: Hal 10.0 % -> 20.0 %")
    assert registry.champion(store) == "1"
    assert list((store.root / ".state").glob("champion-*")) == []


def test_a_champion_that_was_the_base_is_not_answered_for_again(
    store: Store, config: dict[str, Any]
) -> None:
    promoted(store, config)
    source = store.root / "results" / "base" / "source.json"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text('{"source": "models:/adapt@champion", "version": "1"}')
    train(store.root, "second")
    promotion = promoted(store, config)  # there is no split to answer
    assert (promotion.version, promotion.against) == ("2", "champion, version 1")
    assert promotion.before["Hal %"] == 40.0


@pytest.mark.parametrize(
    ("tuned", "decision", "ending"),
    [
        (
            0.89,
            True,
            "down 1.0 points (95 % interval -2.5 to +0.0); it may fall by up to 1.0 points.",
        ),
        (0.85, False, "it may fall by up to 1.0 points."),
    ],
)
def test_a_rule_on_a_benchmark_decides(
    store: Store, config: dict[str, Any], tuned: float, decision: bool, ending: str
) -> None:
    pope(store.root, base=0.9, tuned=tuned)
    asked = ruled(config, **{"pope.accuracy": {"max_loss": 1.0}})
    promotion = promoted(store, asked)
    assert promotion.promoted is decision
    word = "passed" if decision else "failed"
    (reason,) = promotion.reasons
    assert reason.startswith(f"{word}: accuracy on pope 90.0 % -> {100 * tuned:.1f} %, down ")
    assert reason.endswith(ending)
    rows = report.Ending("adapt", promotion, {}, 0.0, "", {}).rows()
    assert rows[-1] == {
        "": "accuracy on pope %",
        "before": "90.0",
        "after": f"{100 * tuned:.1f}",
        "change": f"{100 * (tuned - 0.9):+.1f}",
    }


def test_what_has_no_truth_is_refused_with_what_to_add_and_leaves_no_row(
    store: Store, config: dict[str, Any]
) -> None:
    folder = store.root / "results" / "evaluate"
    judged = pd.read_parquet(folder / "judged.parquet")
    unknown = judged.assign(hallucinated=None, covered=None, truth=None)
    unknown.to_parquet(folder / "judged.parquet")
    kept = {"base/mass_late_early": 0.8, "tuned/mass_late_early": 0.9}
    (folder / "metrics.json").write_text(json.dumps(kept))
    promotion = promoted(store, config)
    assert promotion.promoted is False
    assert promotion.reasons[0].startswith("failed: Hal was not measured of the candidate: the")
    assert promotion.reasons[2].startswith("passed: late/early ratio of visual mass 0.800")
    rows = report.Ending("adapt", promotion, {}, 0.0, "", {}).rows()
    assert rows == [
        {"": "attention late/early", "before": "0.800", "after": "0.900", "change": "+0.100"}
    ]
