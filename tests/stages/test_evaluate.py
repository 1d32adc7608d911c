"""Stage `evaluate` on two small models: every file that DVC expects, also where there is nothing to
warn of.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from adapt import params
from adapt.attention.settings import AnchorConfig
from adapt.data import scenes
from adapt.data.schema import Example, SceneObject, write_split, write_vocabulary
from adapt.evaluation import detection
from adapt.evaluation.degradation import DRAWN
from adapt.evaluation.early_warning import VARIANTS
from adapt.models.load import save
from adapt.stages import evaluate
from tests.support import tiny_world

IMAGES = 16
SAID = ("car", "house", "tree")
ROOT = Path(__file__).resolve().parents[2]
CONFIG = dataclasses.replace(
    params.load(params.read(ROOT / "params.yaml"), "evaluate", evaluate.Config),
    batch=8,
    bootstrap=20,
    panels=1,
    max_new_tokens=8,
    anchor=AnchorConfig(anchor_tokens=2, noise_images=2),
)


def rows(split: str) -> list[Example]:
    """Scenes of which every second has each of the things that the untrained model can say."""
    made = []
    for i in range(IMAGES):
        here = [
            SceneObject(name=name, colour="red", box=(0, 0, 1, 1))
            for n, name in enumerate(SAID)
            if i >> n & 1
        ]
        asked = [
            e
            for e in scenes.examples(split, i, size=32, caption_noise=0.0, seed=7)
            if e.kind == "describe" or not i
        ]
        made += [dataclasses.replace(e, objects=tuple(here), absent=()) for e in asked]
    return made


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splits")
    for split in ("validation", "test"):
        write_split(folder / f"{split}.parquet", rows(split))
    write_vocabulary(folder / "vocabulary.json", scenes.vocabulary())
    return folder


def run(root: Path, splits: Path, speaks: bool) -> tuple[dict[str, float], Path]:
    """The stage on two untrained models; one that `speaks` says nothing but the things in `SAID`."""
    shutil.copytree(splits, root / "data" / "splits")
    tokenizer = tiny_world.processor().tokenizer
    words = tokenizer.convert_tokens_to_ids(list(SAID))
    for seed, stage in enumerate(("base", "train")):
        model = tiny_world.model(seed)
        if speaks:
            model.generation_config.suppress_tokens = [
                i for i in range(len(tokenizer)) if i not in words
            ]
        save(model, tiny_world.processor(), root / stage / "model")
    (root / "out").mkdir()
    return evaluate.run(CONFIG, root, root / "out", lambda step, metrics: None), root / "out"


def expected() -> set[str]:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["evaluate"]
    names = {Path(next(iter(out))).name for out in (*stage["outs"], *stage["metrics"])}
    return names - {"metrics.json"}  # the launcher's


def test_early_warning_and_degradation(
    tmp_path: Path, splits: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    metrics, out = run(tmp_path, splits, speaks=True)
    assert {path.name for path in out.iterdir()} == expected()
    content = json.loads((out / "detector.json").read_text())
    assert set(detection.read(out / "detector.json")) == set(VARIANTS)
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


def test_a_model_that_names_nothing_is_no_error(
    tmp_path: Path, splits: Path, capfd: pytest.CaptureFixture
) -> None:
    metrics, out = run(tmp_path, splits, speaks=False)
    assert {path.name for path in out.iterdir()} == expected()
    assert not any(key.startswith("detect/") for key in metrics)
    assert detection.read(out / "detector.json") == {}
    assert "0 hallucinated object words" in json.loads((out / "detector.json").read_text())["note"]
    said = capfd.readouterr().out
    assert (
        "no detector for the early warning: 0 hallucinated" in said
        and "not judged on tuned" in said
    )
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
    assert evaluate.longest_wrong(frame) == "c", (
        "most objects among those with an absent one; then the first"
    )
    assert evaluate.longest_wrong(frame[frame.id == "a"]) == "a"
