"""A user's mistake: one line that names the culprit, exit code 2, and every earlier result as it
was.
"""

import dataclasses
import io
from pathlib import Path

import pytest
import yaml
from PIL import Image

from adapt import environment, params
from adapt.cluster import submit
from adapt.data import scenes
from adapt.data.schema import write_vocabulary
from adapt.data.tables import write_split
from adapt.files import whole_folder
from adapt.launch import configs, launch, road, stage_module
from adapt.params import InputError
from adapt.progress import unlogged
from tests.support import tracked
from tests.support.closure import ROOT


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A workspace with params.yaml and a results folder of an earlier run; the current folder."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for stage in ("data", "base", "train"):
        (tmp_path / "results" / stage).mkdir(parents=True)
        (tmp_path / "results" / stage / "metrics.json").write_text("earlier")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked.alone(tmp_path)
    # What a launcher sets for its own process must not outlive the test.
    for key, value in {**environment.DEFAULTS, "PREFECT_HOME": str(tmp_path / "prefect")}.items():
        monkeypatch.setenv(key, value)
    return tmp_path


def change(root: Path, section: str, **values) -> None:
    content = yaml.safe_load((root / "params.yaml").read_text())
    content[section].update({k: v for k, v in values.items() if v is not None})
    for key in [k for k, v in values.items() if v is None]:
        del content[section][key]
    (root / "params.yaml").write_text(yaml.safe_dump(content))


def refusal(stage: str, root: Path, capsys, monkeypatch) -> str:
    """The one line on stderr of a stage that must refuse to run."""
    monkeypatch.setattr("sys.argv", ["stage"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        launch(stage)
    assert stopped.value.code == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("adapt ")]
    assert len(err) == 1
    assert (root / "results" / stage / "metrics.json").read_text() == "earlier"
    assert not list((root / "results").glob(".*")), "nothing half-written stays"
    return err[0]


def brought(root: Path, **changes) -> None:
    """A user's data folder whose first training row has some fields changed."""
    folder = root / "mine"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = scenes.examples(split, 0, size=48, caption_noise=0.0, seed=1)
        if split == "train":
            rows[0] = dataclasses.replace(rows[0], **changes)
        write_split(folder / f"{split}.parquet", rows)
    write_vocabulary(folder / "vocabulary.json", scenes.vocabulary())
    change(root, "data", source="mine")


def cut_png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((48, 48), 90).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()[:900]


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"images": (cut_png(),)}, "image does not decode"), ({"answer": ""}, "answer is empty")],
)
def test_a_bad_row_is_named_and_kept(root, capsys, monkeypatch, changes, says):
    brought(root, **changes)
    line = refusal("data", root, capsys, monkeypatch)
    assert "mine/train.parquet" in line and "row 1 " in line and "train-00000-describe" in line
    assert says in line.replace(":", "")
    assert "train-00000-describe" in (root / "quarantine" / "data.jsonl").read_text()


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        ("train", {"bata": 1.0}, "unknown key train.bata; did you mean train.beta?"),
        ("evaluate", {"panels": None}, "missing key evaluate.panels"),
        ("train", {"workers": -1}, "train.workers: expected how many, or the fewest and"),
        (
            "train",
            {"workers": 5},
            "train.batch_pairs: 24 pairs do not divide into 1 passes of 5 workers",
        ),
        ("train", {"steps": "many"}, "train.steps: expected a whole number, got 'many'"),
        ("gate", {"cover": {"max_loss": -1.0}}, "gate.cover.max_loss: must be at least 0"),
        (
            "gate",
            {"amber.hal": {"drop": 0.0}},
            "params.yaml: gate.amber.hal: no benchmark is called amber; add {name: amber, path: ",
        ),
    ],
)
def test_a_bad_parameter_stops_any_stage_before_it_computes(
    root, capsys, monkeypatch, section, values, says
):
    change(root, section, **values)
    assert says in refusal("data", root, capsys, monkeypatch)
    assert says in refusal("train", root, capsys, monkeypatch)


def test_a_base_folder_without_weights_is_named(root, capsys, monkeypatch):
    data = root / "results" / "data" / "splits"
    data.mkdir()
    for split in ("train", "validation", "test"):
        write_split(
            data / f"{split}.parquet", scenes.examples(split, 0, size=48, caption_noise=0.0, seed=1)
        )
    write_vocabulary(data / "vocabulary.json", scenes.vocabulary())
    (root / "mymodel").mkdir()
    (root / "mymodel" / "config.json").write_text('{"model_type": "llava"}')
    change(root, "base", source="./mymodel")
    assert "mymodel: no weights (*.safetensors)" in refusal("base", root, capsys, monkeypatch)
    change(root, "base", source="./nowhere")
    assert "./nowhere: no such folder" in refusal("base", root, capsys, monkeypatch)


def test_results_are_swapped_in_as_a_whole(tmp_path):
    target = tmp_path / "results" / "train"
    with whole_folder(target) as out:
        (out / "a").write_text("1")
    with pytest.raises(InputError), whole_folder(target) as out:
        (out / "b").write_text("2")
        raise InputError("stop")
    assert [p.name for p in target.iterdir()] == ["a"]
    with whole_folder(target) as out:
        (out / "b").write_text("2")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in target.parent.iterdir()] == ["train"]


@pytest.mark.parametrize("weight", ["w_vag", "w_dpo", "w_sft", "w_anchor", "w_attn"])
def test_a_term_of_the_loss_may_weigh_nothing(weight: str) -> None:
    content = params.read(ROOT / "params.yaml")
    content["train"] |= {weight: 0.0}
    assert getattr(configs(content)["train"], weight) == 0.0


JUDGE = {"url": "https://judge.example/v1", "model": "m", "key": "JUDGE_KEY"}


@pytest.mark.parametrize(
    ("stage", "changes", "sent"),
    [
        ("train", {}, ("base/model", "pairs/pairs.parquet", "pairs/plain.parquet")),
        (
            "train",
            {"validation": 9},
            ("base/model", "pairs/pairs.parquet", "pairs/plain.parquet", "data/splits"),
        ),
        ("pairs", {}, ("data/splits", "base/model")),
        ("answer", {}, ("data/splits", "base/model", "train/model")),
        ("base", {}, None),
        ("evaluate", {}, None),
        ("answer", {"benchmarks": [{"name": "mmhal", "path": "m.json", "judge": JUDGE}]}, ()),
    ],
)
def test_what_a_cluster_can_do_goes_there(stage, changes, sent, tmp_path, capsys, monkeypatch):
    """`sent` None: a stage that never goes; empty: one that has to stay with these settings."""
    content = params.read(ROOT / "params.yaml")
    content[stage] |= changes
    module = stage_module(stage)
    config = params.load(content, stage, module.Config)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    for name in ("RAY_ADDRESS", "RAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(submit, "submit", lambda *asked: {"sent": asked[2]})
    monkeypatch.setattr(module, "run", lambda *asked: {"sent": None})
    made = road(stage, config)(config, tmp_path / "results", tmp_path, unlogged)
    assert made == {"sent": sent or None}
    said = f"adapt {stage}: asks the judge of mmhal from this machine, which has its key"
    assert capsys.readouterr().err == (f"{said}; it runs here\n" if sent == () else "")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    made = road(stage, config)(config, tmp_path / "results", tmp_path, unlogged)
    assert made == {"sent": None} and not capsys.readouterr().err
