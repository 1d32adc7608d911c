"""A promotion by itself: what the gate is asked, what it leaves, how often it opens the store."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from adapt import launch, params
from adapt.benchmarks.settings import Benchmark
from adapt.evaluation.rules import Rules
from adapt.registry import registry
from adapt.tracking.store import Store
from flows import contest, outside, plan, report
from flows.promote import deciding, hand
from flows.promote.ending import Promotion
from tests.support import tracked, versions
from tests.support.closure import ROOT
from tests.support.judged import IMAGES, answers, evaluated, scores, train


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A workspace with a base that hallucinates in 40 % of its answers."""
    store = tracked.workspace(tmp_path, monkeypatch)
    evaluated(store.root, base=0.4, tuned=0.1)
    train(store.root, "first")
    steered(store.root, alpha=0.6)
    return store


def steered(root: Path, alpha: float) -> None:
    """What stage `answer` says of the tuned model's steering."""
    (root / "results" / "answer").mkdir()
    rule = {"alpha": alpha, "tau": 0.9, "trigger": "mass", "anchor_share": 0.1, "layers": [0, 1]}
    (root / "results" / "answer" / "steering.json").write_text(json.dumps({"tuned": rule}))


@pytest.fixture
def config() -> dict[str, Any]:
    return launch.configs(params.read(ROOT / "params.yaml"))


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


def promoted(store: Store, config: dict[str, Any], move: bool = True) -> Promotion:
    return deciding.promote(store, config, tracked.retraining(store), move)


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
    assert tags["adapt.steering"].startswith("alpha 0.6, tau 0.9, trigger mass")
    about = store.client.get_model_version("adapt", "1").description
    assert about.startswith("Promoted to champion") and "alpha 0.6" in about
    assert "| Hal % | 40.0 | 10.0 | -30.0 [" in about.partition("## Model card")[2]
    assert tags["adapt.reasons"] == "\n".join(promotion.reasons)


def test_what_the_run_of_the_retraining_is_told(store: Store, config: dict[str, Any]) -> None:
    tags = promoted(store, config).run_tags("adapt")
    assert (tags["adapt.promoted"], tags["adapt.model_version"]) == ("true", "1")
    assert tags["adapt.reasons"].startswith("passed: Hal 40.0 % -> 10.0 %")
    assert tags["mlflow.note.content"].startswith("Promoted to champion (against base model).")
    again = promoted(store, config).run_tags("adapt")  # nothing to decide
    assert again["adapt.ending"] == "champion" and "adapt.promoted" not in again


def test_a_retraining_that_may_not_move_the_champion_only_says_so(
    store: Store, config: dict[str, Any]
) -> None:
    promotion = promoted(store, config, move=False)
    assert (promotion.ending, promotion.promoted) == ("held", False)
    assert promotion.reasons[-1] == "passed, but this retraining may not move the champion"
    assert registry.champion(store) is None
    assert registry.tags(store, "1")["adapt.decision"] == "held"


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


def said(promotion: Promotion) -> tuple[str, str]:
    """The ending, and the first reason."""
    return promotion.ending, promotion.reasons[0]


def entries(store: Store) -> list[tuple[str, str, str]]:
    log = registry.shown_state(store).log.entries
    return [(entry.what, entry.against, entry.to) for entry in log]


def test_the_ledger_has_who_what_and_what_was_measured(
    store: Store, config: dict[str, Any]
) -> None:
    run_id = tracked.retraining(store)
    promotion = deciding.promote(store, config, run_id, move=True, who="nightly")
    (entry,) = registry.shown_state(store).log.entries
    assert (entry.what, entry.of, entry.against, entry.to) == ("promoted", "1", "", "1")
    assert (entry.who, entry.run, entry.weights) == ("nightly", run_id, "first.dir")
    assert entry.data == f"{0:032x}.dir"
    assert entry.figures["Hal %"] == (40.0, 10.0)
    assert entry.reasons == promotion.reasons and entry.when.endswith(" UTC")


def test_ten_retrainings_do_not_undo_a_rollback(
    store: Store, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(store, config)
    monkeypatch.setattr(contest, "anew", of_base)
    train(store.root, "second")
    assert promoted(store, config).version == registry.champion(store) == "2"
    hand.rollback(store, None, "Kim", "worse on charts")
    for _ in range(10):
        promotion = promoted(store, config)
        assert (promotion.ending, promotion.version) == ("refused", "2")
    reason, rest = promotion.reasons
    assert reason.startswith("version 2 was rolled back on 20")
    assert reason.endswith(" by Kim: worse on charts")
    assert rest == (
        "it stays out until something new is trained, or `python -m flows.promote approve 2`"
    )
    assert registry.champion(store) == "1" == versions.aliases(store)["champion"]
    assert registry.tags(store, "2")["adapt.decision"] == "rolled-back"
    assert len(entries(store)) == 3
    # What is trained anew is asked about, and so is what a person approves.
    assert hand.approve(store, "2", "Kim").endswith("approved by Kim")
    assert promoted(store, config).ending == "champion"
    train(store.root, "third")
    assert promoted(store, config).ending == "promoted"


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_ten_retrainings_do_not_undo_what_was_done_in_the_registry(
    store: Store, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    promoted(store, config)
    monkeypatch.setattr(contest, "anew", of_base)
    train(store.root, "second")
    promoted(store, config)
    if how == "moved":
        store.client.set_registered_model_alias("adapt", "champion", "1")
    else:
        store.client.delete_model_version("adapt", "2")
    for _ in range(10):
        ending, reason = said(promoted(store, config))
        how_out = "rolled back" if how == "moved" else "deleted"
        assert ending == "refused" and reason.startswith(f"version 2 was {how_out} on 20")
    assert registry.champion(store) == "1" == versions.aliases(store)["champion"]
    there = store.client.search_model_versions("name = 'adapt'")
    assert len(there) == (2 if how == "moved" else 1)  # what was deleted is not uploaded again
    if how == "deleted":
        sentence = hand.approve(store, "2", "Kim")
        assert sentence == "the weights of adapt version 2 may be registered and promoted again"
        assert said(promoted(store, config))[0] == "promoted" and registry.champion(store) == "3"


def test_a_candidate_that_passes_waits_for_a_person(store: Store, config: dict[str, Any]) -> None:
    asked = config | {"gate": config["gate"].model_copy(update={"approval": "required"})}
    promotion = promoted(store, asked)
    assert promotion.waiting and promotion.promoted is False
    assert promotion.sentence("adapt") == "adapt version 1 passed the gate and awaits approval"
    note = promotion.run_tags("adapt")["mlflow.note.content"]
    assert note.startswith("Passed the gate, awaits approval (against base model)")
    assert promotion.reasons[-1] == "passed, and a person has to approve it"
    assert registry.champion(store) is None
    assert versions.aliases(store) == {"challenger": "1"}
    assert plan.question(store, asked, promote=True)["said"] == "waiting"
    assert promoted(store, asked).waiting and len(entries(store)) == 1  # asked once, told once
    answer = deciding.approve(store, "1", "Kim", "looked at the panels")
    assert answer == "adapt version 1 was promoted to champion, approved by Kim"
    assert entries(store) == [("waiting", "", ""), ("approved", "", "1")]
    assert plan.question(store, asked, promote=True)["said"] == ""


def test_what_waited_waits_again_when_the_champion_has_come_back(
    store: Store, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(store, config)
    monkeypatch.setattr(contest, "anew", of_base)
    train(store.root, "second")
    asked = config | {"gate": config["gate"].model_copy(update={"approval": "required"})}
    assert promoted(store, asked).waiting
    (other,) = versions.made(store, "other")
    assert versions.decided(store, "promoted", other)[0]
    hand.rollback(store, "1", "Kim", "worse on charts")
    assert registry.shown_state(store).waiting is None
    assert promoted(store, asked).waiting
    waiting = registry.shown_state(store).waiting
    assert waiting is not None and waiting.of == "2"


def test_what_was_held_back_can_be_approved(store: Store, config: dict[str, Any]) -> None:
    assert promoted(store, config, move=False).ending == "held"
    assert deciding.approve(store, "1", "Kim").startswith("adapt version 1 was promoted")


def test_a_champion_that_moves_while_the_gate_decides_makes_it_decide_anew(
    store: Store, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(store, config)
    train(store.root, "second")
    others = versions.made(store, "other")

    def anew(*words: Any) -> contest.Contestant:
        """Somebody else's model becomes the champion meanwhile."""
        while others:
            versions.decided(store, "promoted", others.pop())
        return of_base(*words)

    monkeypatch.setattr(contest, "anew", anew)
    monkeypatch.setattr(deciding, "download", lambda client, source, to: (to, "2"))
    promotion = promoted(store, config)
    assert (promotion.ending, promotion.against) == ("promoted", "champion, version 2")
    moves = [("promoted", "", "1"), ("promoted", "1", "2"), ("promoted", "1", "3")]
    assert entries(store) == [*moves, ("promoted", "2", "3")]
    assert registry.shown_state(store).state.ignored == {3}


def test_a_person_who_rejects_while_the_gate_decides_is_heard(
    store: Store, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(store, config)
    train(store.root, "second")

    def anew(*words: Any) -> contest.Contestant:
        hand.reject(store, "2", "Kim", "worse on charts")
        return of_base(*words)

    monkeypatch.setattr(contest, "anew", anew)
    ending, reason = said(promoted(store, config))
    assert ending == "refused" and reason.startswith("version 2 was rejected on 20")
    assert registry.champion(store) == "1"


def of_base(config: Any, model: Path, root: Path, name: str) -> contest.Contestant:
    """A champion that hallucinates as often as the base."""
    return contest.Contestant(
        name=name, metrics=scores(0.4), judged=answers("tuned", 0.4), counted={}
    )
