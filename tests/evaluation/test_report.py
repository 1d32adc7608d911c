"""Stage `evaluate` over tables by hand: what it does without truth, and benchmarks' figures."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from adapt.attention.settings import AnchorConfig
from adapt.benchmarks import registry
from adapt.benchmarks.settings import Benchmark
from adapt.data import scenes
from adapt.data.schema import Example, Preference, SceneObject
from adapt.data.tables import write_split
from adapt.evaluation import report
from adapt.evaluation.settings import Config
from adapt.metrics.measures import FREE, OBJECTS
from tests.support import answered, oracle
from tests.support import benchmark_folders as made

CONFIG = Config(
    bootstrap=50, panels=3, anchor=AnchorConfig(anchor_tokens=2, noise_images=2), seed=7
)
PICTURE = scenes.examples("test", 0, size=32, caption_noise=0.0, seed=7)[0].images


def row(name: str, kind: str = "describe", **changes: Any) -> Example:
    known = {
        "history": (),
        "question": f"{kind}?",
        "answer": "yes",
        "objects": None,
        "absent": None,
    }
    return Example(
        **{**known, "id": name, "image_id": name, "images": PICTURE, "kind": kind, **changes}
    )


def things(*names: str) -> tuple[SceneObject, ...]:
    return tuple(SceneObject(name=name, colour="", box=None) for name in names)


def preference(name: str, kind: str) -> Preference:
    asked = {"id": name, "image_id": name, "images": PICTURE, "kind": kind, "history": ()}
    answers = {"question": "what is it?", "chosen": "a red car", "rejected": "a bus"}
    more = {"rejected_images": (), "chosen_score": None, "rejected_score": None}
    return Preference(**asked, **answers, **more, objects=None, absent=None)


def evaluated(results: Path, out: Path) -> dict[str, float]:
    out.mkdir()
    metrics = report.write(CONFIG, results / "answer", results / "data" / "splits", out)
    assert all(math.isfinite(value) for value in metrics.values())
    json.dumps(metrics, allow_nan=False)
    return metrics


def test_preference_rows_without_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [preference(f"p{i}", "describe" if i < 3 else "other") for i in range(6)]
    base = {row.id: f"there are a car and a house {row.id}" for row in rows}
    tuned = base | {"p1": "there is a car", "p4": "it is a house"}
    metrics = evaluated(
        answered.write(tmp_path / "r", rows, {"base": base, "tuned": tuned}), tmp_path / "out"
    )
    assert not any("hal" in key or "cover" in key or key.startswith("detect") for key in metrics)
    assert metrics["base/length"] == 8 and metrics["tuned/length"] == pytest.approx(40 / 6)
    assert 0.5 < metrics["base/mass_late_early"] < 1
    assert metrics["base_steered/fire_rate"] > 0
    printed = capsys.readouterr().out
    assert f"without Hal, CHAIR_i, Cover: the test split has no {OBJECTS}\n" in printed
    assert f"no detector for the early warning: the validation split has no {OBJECTS}" in printed
    # Of what nobody knows the truth of, the answers that changed are drawn first.
    panels = {path.stem for path in (tmp_path / "out" / "panels").iterdir()}
    assert {"p1", "p4"} < panels and len(panels) == 3
    judged = pd.read_parquet(tmp_path / "out" / "judged.parquet")
    assert judged.truth.isna().all() and judged.hallucinated.isna().all()
    figures = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"curves_mass", "before_after"} <= figures and "early_warning" not in figures


def test_a_split_of_yes_no_questions_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(f"q{i}", "exists", answer="yes" if i % 2 else "no") for i in range(4)]
    base = {f"q{i}": "yes" for i in range(4)}
    metrics = evaluated(answered.write(tmp_path / "r", rows, {"base": base}), tmp_path / "out")
    assert metrics["base/pope_accuracy"] == 50 and metrics["base/pope_recall"] == 100
    assert not any(key.endswith(("late_early", "length", "fire_rate", "hal")) for key in metrics)
    assert f"the test split has no {FREE}\n" in capsys.readouterr().out
    assert not list((tmp_path / "out" / "panels").iterdir())
    assert not list((tmp_path / "out" / "figures").iterdir())
    assert pd.read_csv(tmp_path / "out" / "curves.csv").empty


def test_only_what_is_known_is_counted(tmp_path: Path) -> None:
    """Of three descriptions one is of a picture that nobody knows, one of an empty one."""
    rows = [row("a", objects=things("car", "bus")), row("b", objects=()), row("c")]
    base = {"a": "a car and two buss", "b": "a car", "c": "a car"}
    tuned = base | {"b": "nothing at all"}
    metrics = evaluated(
        answered.write(tmp_path / "r", rows, {"base": base, "tuned": tuned}), tmp_path / "out"
    )
    # The names that the rows list are the words, for want of a vocabulary: "car" is one.
    assert metrics["base/hal"] == 50 and metrics["tuned/hal"] == 0
    assert metrics["base/chair_i"] == pytest.approx(100 / 3) and metrics["base/cover"] == 100
    assert "base/cog" not in metrics, "no row says what is absent"
    assert metrics["difference/hal"] == -50
    judged = pd.read_parquet(tmp_path / "out" / "judged.parquet").query("arm == 'base'")
    known = judged.set_index("id")
    assert known.truth["a"].tolist() == ["car", "bus"] and known.truth["b"].tolist() == []
    assert known.truth["c"] is None and known.marked["b"] == "a **car**"
    assert known.objects_mentioned["c"].tolist() == ["car"] and known.marked["c"] == "a car"


def test_a_benchmark_is_scored_by_its_own_program(tmp_path: Path) -> None:
    """Two pictures of two questions; base says yes to all, tuned is right about all."""
    questions = [(1, "x.jpg", "yes"), (2, "x.jpg", "no"), (3, "y.jpg", "yes"), (4, "y.jpg", "no")]
    table = [
        {"question_id": n, "image": image, "text": "Is there a car?", "label": label}
        for n, image, label in questions
    ]
    path = tmp_path / "pope.json"
    path.write_text("\n".join(map(json.dumps, table)))
    right = {str(n): label for n, _, label in questions}
    benchmark = Benchmark(name="pope", path=str(path), label="pope-mine")
    texts = {"base": dict.fromkeys(right, "yes"), "tuned": right}
    rows = [row("q", "exists")]
    asked = {"pope-mine": (benchmark, [row(name, "exists") for name in right], texts)}
    results = answered.write(tmp_path / "r", rows, {"base": {"q": "yes"}}, benchmarks=asked)
    metrics = evaluated(results, tmp_path / "out")
    # TP 2, FP 2: precision 50 %, recall 100 %; rates are percent though the program has fractions.
    assert metrics["base/pope-mine.accuracy"] == 50 and metrics["tuned/pope-mine.accuracy"] == 100
    assert metrics["base/pope-mine.f1"] == pytest.approx(200 / 3)
    assert metrics["difference/pope-mine.accuracy"] == 50
    assert metrics["difference/pope-mine.accuracy_low"] == 50, "both pictures alike"
    ratios = pd.read_parquet(tmp_path / "out" / "benchmarks.parquet")
    f1 = ratios[(ratios.arm == "base") & (ratios.metric == "f1")]
    assert f1[["image", "numerator", "denominator"]].values.tolist() == [["0", 2, 3], ["1", 2, 3]]
    about = json.loads((tmp_path / "out" / "benchmarks.json").read_text())
    assert list(about["pope-mine"]["tables"]) == [str(path)]


def test_a_split_of_ours_as_a_benchmark_is_drawn_with_its_words(tmp_path: Path) -> None:
    """Twelve pictures with a car; base adds a bus to each, tuned to none."""
    rows = [row(f"n{i}", objects=things("car"), absent=("bus",)) for i in range(12)]
    write_split(tmp_path / "night.parquet", rows)
    benchmark = Benchmark(name="own", path=str(tmp_path / "night.parquet"), label="night")
    texts = {
        "base": {one.id: "a car beside a bus" for one in rows},
        "tuned": {one.id: "a car alone in it" for one in rows},
    }
    results = answered.write(
        tmp_path / "r", rows, texts, benchmarks={"night": (benchmark, rows, texts)}
    )
    metrics = evaluated(results, tmp_path / "out")
    for name in ("hal", "chair_i", "cover", "cog", "mass_late_early"):
        assert metrics[f"base/night.{name}"] == metrics[f"base/{name}"], "one split, one figure"
    assert metrics["difference/night.hal"] == metrics["difference/hal"] == -100
    assert metrics["detect/night.auroc_mass"] == metrics["detect/auroc_mass"]
    curves = pd.read_csv(tmp_path / "out" / "benchmark_curves.csv")
    wrong = curves.query("split == 'hallucinated' and arm == 'base' and signal == 'mass'")
    assert wrong[["benchmark", "position", "n"]].values.tolist() == [["night", 4, 12]]
    assert (tmp_path / "out" / "figures" / "curves_mass_night.png").exists()
    assert len(list((tmp_path / "out" / "panels").glob("night_n*.png"))) == 3


def test_answers_to_another_benchmark_are_drawn_unmarked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle.use_nltk_data(monkeypatch)
    benchmark = made.benchmark("chair", made.coco(tmp_path / "coco"), label="coco")
    questions = registry.read(benchmark).questions
    texts = {"base": {one.id: "a dog and a cup and a car" for one in questions}}
    texts["tuned"] = texts["base"] | {"9": "a dog with a cup"}
    asked = {"coco": (benchmark, questions, texts)}
    rows = [row("q", "exists")]
    results = answered.write(tmp_path / "r", rows, {"base": {"q": "yes"}}, benchmarks=asked)
    metrics = evaluated(results, tmp_path / "out")
    assert metrics["base/coco.chair_s"] == 100 and metrics["tuned/coco.chair_s"] < 100
    assert 0.5 < metrics["base/coco.mass_late_early"] < 1
    assert not any(key.startswith("detect/") for key in metrics)
    panels = {path.stem for path in (tmp_path / "out" / "panels").iterdir()}
    assert panels == {"coco_7", "coco_9", "coco_42"}
