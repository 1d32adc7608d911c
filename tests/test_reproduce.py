"""docs/reproduce.md: its program makes a data folder of COCO, and its commands exist and work."""

import importlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.data.importing.build import build
from adapt.data.schema import open_images, read_vocabulary
from adapt.data.tables import read_split
from adapt.generation import __main__ as generation
from adapt.generation.settings import Config as AnswerConfig
from adapt.metrics.mentions import find
from adapt.models.load import save
from adapt.params import load, read
from adapt.score import __main__ as scoring
from adapt.stages.data import Config
from tests.support import oracle, tiny_world, workspace
from tests.support.closure import ROOT

DOCUMENT = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
(PROGRAM,) = [text for kind, text in BLOCKS if kind == "python" and "python coco.py" in text]
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]


def picture(path: Path, seed: int) -> None:
    file, rng = io.BytesIO(), np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(file, "JPEG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco(folder: Path, count: int) -> None:
    """Pictures with a dog and two cups, one of them beyond the edge; the last picture has none."""
    boxes = [(18, [2, 2, 10, 8]), (47, [20, 10, 20, 20]), (47, [40, 30, 5, 5])]
    images = [
        {"id": i, "file_name": f"COCO_{i}.jpg", "width": 32, "height": 24} for i in range(count)
    ]
    things = [
        {"image_id": i, "category_id": kind, "bbox": box}
        for i in range(count - 1)
        for kind, box in boxes
    ]
    captions = [{"image_id": i, "caption": "A dog beside a cup. "} for i in range(count)]
    categories = [{"id": 18, "name": "dog"}, {"id": 47, "name": "cup"}]
    instances = {"images": images, "annotations": things, "categories": categories}
    write(folder / "annotations" / "instances_train2014.json", instances)
    write(folder / "annotations" / "captions_train2014.json", {"annotations": captions})
    for image in images:
        picture(folder / "train2014" / image["file_name"], image["id"])


@pytest.fixture
def made(tmp_path) -> Path:
    """The folder that the document's program makes."""
    coco(tmp_path / "COCO", 9)
    (tmp_path / "coco.py").write_text(PROGRAM)
    command = [sys.executable, "coco.py", "COCO", "data/coco", "900"]
    subprocess.run(command, cwd=tmp_path, check=True, env=workspace.environment(ROOT))
    return tmp_path / "data" / "coco"


def test_the_data_stage_takes_what_the_program_makes(made, tmp_path):
    params = read(ROOT / "params.yaml")
    params["data"] |= {"source": "data/coco", "max_rejected": 0.0}
    metrics = build(load(params, "data", Config), tmp_path, tmp_path)
    rows = [metrics[f"{split}/rows"] for split in ("train", "validation", "test")]
    assert (rows, metrics["rejected"]) == ([6, 1, 1], 0)
    coco_row = read_split(tmp_path / "splits" / "train.parquet")[0]
    assert [thing.name for thing in coco_row.objects] == ["dog", "cup"], "one cup has no pixel"
    assert coco_row.objects[1].box == (20 / 32, 10 / 24, 1.0, 1.0)
    assert open_images(coco_row)[0].size == (32, 24)


def test_the_vocabulary_knows_plurals_and_no_word_twice(made):
    words = read_vocabulary(made / "vocabulary.json").objects
    assert len(words) == 80
    text = "two puppies, women, knives and buses beside the sheep on benches"
    names = [mention.name for mention in find(text, words)]
    assert names == ["dog", "person", "knife", "bus", "sheep", "bench"]


def test_the_edits_of_step_2_are_what_they_say(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    edits = [line for line in COMMANDS if line.startswith("sed -i ")]
    subprocess.run("\n".join(edits), cwd=tmp_path, check=True, shell=True)
    params = read(tmp_path / "params.yaml")
    (amber,) = load(params, "answer", AnswerConfig).benchmarks
    assert params["data"]["source"] == "data/coco"
    assert (amber.called, amber.path, amber.part) == ("amber", "AMBER", "generative")


def test_the_table_is_printed_from_the_metrics(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arms = ("base", "base_steered", "tuned", "tuned_steered")
    named = {"chair": 7.8, "hal": 36.4, "cog": 4.2, "cover": 51.0}
    metrics = {f"{arm}/amber.{name}": value for arm in arms for name, value in named.items()}
    write(tmp_path / "results" / "evaluate" / "metrics.json", metrics)
    (program,) = re.findall(r"^python - <<'END'\n(.*?)^END", DOCUMENT, re.DOTALL | re.MULTILINE)
    exec(program, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "tuned_steered chair 7.8 hal 36.4 cog 4.2 cover 51.0" and len(lines) == 4


def test_step_3_on_ambers_own_annotations(tmp_path, capsys, monkeypatch):
    """Its three commands, with pictures for two of AMBER's ids and a tiny model."""
    truth = oracle.FOLDER.parent / "amber"
    if not truth.is_dir():
        pytest.skip(f"AMBER's annotations {truth} are not on this machine")
    oracle.use_nltk_data(monkeypatch)
    monkeypatch.chdir(tmp_path)
    params = (ROOT / "params.yaml").read_text().replace("noise_images: 32", "noise_images: 2")
    params = params.replace("alpha: auto ", "alpha: 0.5 ")  # as the recipe of step 1 says
    (tmp_path / "params.yaml").write_text(params)
    (tmp_path / "AMBER").mkdir()
    (tmp_path / "AMBER" / "data").symlink_to(truth)
    for number in (1, 7):
        picture(tmp_path / "AMBER" / "image" / f"AMBER_{number}.jpg", number)
    for stage in ("base", "train"):
        save(tiny_world.model(), tiny_world.processor(), tmp_path / "results" / stage / "model")
    asked = [line for line in COMMANDS if line.startswith("python -m adapt.generation ")]
    for line in asked:
        words = line.split()[3:]
        few = [f"{one},partial=true,max_new_tokens=6" if "=" in one else one for one in words]
        assert generation.main([*few, "--batch", "2"]) == 0
    (last,) = (line for line in COMMANDS if line.startswith("python -m adapt.score "))
    words = last.partition(" --similarity")[0].split()[3:]
    capsys.readouterr()
    assert scoring.main([*words, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["responses"] == 2 and {"chair", "hal", "cog", "cover"} <= set(scores["metrics"])
    assert scores["against"]["metrics"].keys() == scores["metrics"].keys()


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("python -m adapt.")])
def test_commands_and_their_options_exist(command, capsys, monkeypatch):
    module, *words = command.partition("#")[0].removeprefix("python -m ").split()
    is_room = (ROOT / "/".join(module.split("."))).is_dir()
    main = importlib.import_module(f"{module}.__main__" if is_room else module)
    monkeypatch.setattr("sys.argv", [module, *words[:1], "--help"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in words if word.startswith("--"))
    if module == "adapt.recipe":
        assert (ROOT / "recipes" / f"{words[0]}.yaml").exists()
