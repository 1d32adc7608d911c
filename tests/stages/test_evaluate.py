"""Stage `evaluate` on the answers of two small models: every file that DVC expects.

Also where there is nothing to warn of.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from adapt.attention.settings import AnchorConfig
from adapt.data.schema import open_images, read_vocabulary
from adapt.data.tables import read_split
from adapt.evaluation import __main__ as command
from adapt.evaluation import feature_sets
from adapt.evaluation.degradation import DRAWN
from adapt.evaluation.early_warning import VARIANTS
from adapt.evaluation.report import longest_wrong
from adapt.evaluation.settings import Config
from adapt.params import InputError
from adapt.serving import bundle
from adapt.serving.answerer import Answerer
from adapt.serving.asked import Asked
from adapt.stages import evaluate
from adapt.watching import profile, signals
from adapt.watching.recorder import Served
from tests.stages.conftest import ANSWER, IMAGES, K
from tests.support.workspace import ROOT

CONFIG = Config(
    bootstrap=20, panels=1, anchor=AnchorConfig(anchor_tokens=K, noise_images=2), seed=7
)


def expected() -> set[str]:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["evaluate"]
    names = {Path(next(iter(out))).name for out in (*stage["outs"], *stage["metrics"])}
    return names - {"metrics.json"}  # the launcher's


def test_early_warning_and_degradation(
    tmp_path: Path, answered: Callable[[bool], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    results, out = answered(True), tmp_path
    capfd.readouterr()
    metrics = evaluate.run(CONFIG, results, out, lambda step, metrics: None)
    assert {path.name for path in out.iterdir()} == expected()
    content = json.loads((out / "detector.json").read_text())
    assert set(content["variants"]) == set(VARIANTS)
    assert (
        content["fitted_on"]["split"] == "validation" and content["fitted_on"]["images"] == IMAGES
    )
    assert 0 < content["fitted_on"]["hallucinated"] < content["fitted_on"]["words"]
    table = pd.read_csv(out / "detection.csv").set_index("score")
    assert table.loc["attention", "base_auroc"] == pytest.approx(
        metrics["detect/auroc_attention"], abs=1e-5
    )
    assert metrics["detect/tuned_auroc_mass"] == pytest.approx(
        table.loc["mass", "tuned_auroc"], abs=1e-5
    )
    numbers = {name: metrics[f"tuned_steered/{name}"] for name in ("alpha", "tau")}
    assert numbers == {"alpha": 2.0, "tau": 100.0}, "by which the steered answers were made"
    assert {"detect/attention_above_svar_low", "detect/catch_at_10_attention", "base/hal"} <= set(
        metrics
    )
    wide = pd.read_csv(out / "degradation.csv")
    assert wide["position"].between(0, 1).all() and {"base_mass", "tuned_steered_drift"} <= set(
        wide
    )
    figures = {path.stem for path in (out / "figures").iterdir()}
    assert figures == {
        "before_after",
        "early_warning",
        "answer_strip",
        *(f"curves_{s}" for s in DRAWN),
    }
    assert "early warning" not in capfd.readouterr().out, "nothing was left out"
    for arm, prefix in (("base", "detect/"), ("tuned", "detect/tuned_")):
        told = command.read(results, arm, CONFIG)
        own = {f"own_{name}" for name in VARIANTS}
        assert set(told.report) == set(table.index) - own
        for score, measures in told.report.items():
            for measure, value in measures.items():
                ends = [table.loc[score, f"{arm}_{measure}{end}"] for end in ("", "_low", "_high")]
                assert value.interval() == pytest.approx(ends, abs=1e-5)
        for name, bins in told.calibrated.items():
            assert bins.error == metrics[f"{prefix}calibration_error_{name}"]
        basis = feature_sets.BASIS
        lead = metrics[f"{prefix}{basis}_both_above_{basis}"]
        assert told.lead(f"{basis}_both").point == lead


def test_a_model_that_names_nothing_is_no_error(
    tmp_path: Path, answered: Callable[[bool], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    results, out = answered(False), tmp_path
    capfd.readouterr()
    metrics = evaluate.run(CONFIG, results, out, lambda step, metrics: None)
    assert {path.name for path in out.iterdir()} == expected()
    assert not any(key.startswith("detect/") for key in metrics)
    content = json.loads((out / "detector.json").read_text())
    assert content["variants"] == {} and "0 hallucinated object words" in content["note"]
    printed = capfd.readouterr().out
    assert "no detector for the early warning: 0 hallucinated" in printed
    assert "not judged on tuned" in printed
    assert not (out / "figures" / "early_warning.png").exists()
    assert pd.read_csv(out / "detection.csv").empty


def test_the_answer_that_is_shown_is_not_picked_by_its_risk() -> None:
    frame = pd.DataFrame(
        [
            ("a", "describe", [], ["x"] * 9),
            ("d", "describe", ["x"], ["x"] * 4),
            ("c", "describe", ["x"], ["x"] * 4),
            ("b", "describe", ["x"], ["x"]),
            ("e", "exists", ["x"], ["x"] * 9),
        ],
        columns=["id", "kind", "hallucinated", "objects_mentioned"],
    )
    assert longest_wrong(frame).id == "c", (
        "most objects among those with an absent one; then the first"
    )
    assert longest_wrong(frame[frame.id == "a"]).id == "a"


def test_what_was_judged_is_served_with_the_same_answers_and_risks(
    tmp_path: Path, answered: Callable[[bool], Path]
) -> None:
    results = Path(shutil.copytree(answered(True), tmp_path / "results"))
    (results / "evaluate").mkdir()
    evaluate.run(CONFIG, results, results / "evaluate", lambda step, metrics: None)
    version = tmp_path / "version"
    shutil.copytree(results / "train" / "model", version)
    served = bundle.compose(results, "tuned", "hash", version)
    assert served.warned_by in ("tuned", "base")
    answerer = Answerer.open(version, "cpu", "7")
    assert answerer.detector is not None
    responses, tokens = (
        pd.read_parquet(results / "answer" / f"{name}.parquet") for name in ("responses", "tokens")
    )
    words = read_vocabulary(results / "data" / "splits" / "vocabulary.json")
    every = read_split(results / "data" / "splits" / "test.parquet")
    # In the batches of the stage: elsewhere the last digits of a signal are others.
    rows = sorted((row for row in every if row.kind == "describe"), key=lambda row: row.id)
    asked = [Asked(id=r.id, images=open_images(r), question=r.question) for r in rows]
    batches = [asked[i : i + ANSWER.batch] for i in range(0, len(asked), ANSWER.batch)]
    said = [one for batch in batches for one in answerer.answer(batch)]
    plain = responses[(responses.arm == "tuned") & (responses.split == "test")].set_index("id")
    of_plain = tokens[(tokens.arm == "tuned") & (tokens.split == "test")]
    for row, one in zip(rows, said, strict=True):
        assert one.text == plain.loc[row.id].response
        table = of_plain[of_plain.id == row.id].sort_values("position")
        risks = answerer.detector.risk({n: table[n] for n in answerer.detector.features})
        assert [token.risk for token in one.tokens] == pytest.approx(risks.tolist(), abs=1e-6)
        assert [token.end for token in one.tokens] == table.end.tolist()
        # The watch has the same numbers of what is served as of the validation split.
        logged = Served.of(one, threshold=0.5, time=0.0, version="7", question="", pictures=())
        named = profile.risks(one.text, table, answerer.detector, words)
        numbers = signals.of_answer(profile.as_served(table), named, 0.5)
        assert logged.values == pytest.approx(numbers, abs=1e-5, nan_ok=True)
    # What is damaged is told in one line; without the folder the model still answers.
    (version / "serving" / "serving.json").write_text("{}")
    with pytest.raises(InputError, match=r"serving.json"):
        Answerer.open(version, "cpu")
    shutil.rmtree(version / "serving")
    assert Answerer.open(version, "cpu").answer(asked[:1])[0].risk is None
