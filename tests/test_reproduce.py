"""docs/reproduce.md: its program makes a data folder of COCO and AMBER, and its commands exist."""

import importlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adapt.data.schema import open_images, read_vocabulary
from adapt.data.splits import build
from adapt.data.tables import read_split
from adapt.metrics.mentions import find
from adapt.params import load, read
from adapt.score import __main__ as scoring
from adapt.stages.data import Config
from tests.support import oracle, workspace
from tests.support.closure import ROOT

DOCUMENT = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
(PROGRAM,) = [text for kind, text in BLOCKS if kind == "python" and "coco_amber.py" in text]
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


def amber(folder: Path) -> None:
    """Two descriptions and a question, as AMBER's files have them."""
    notes = [
        {"id": 1, "type": "generative", "truth": ["sky", "man", "puppy"], "hallu": ["sun", "bird"]},
        {"id": 2, "type": "generative", "truth": ["grass"], "hallu": ["woman"]},
        {"id": 3, "type": "discriminative-hallucination", "truth": "no"},
    ]
    asked = [{"id": i, "image": f"AMBER_{i}.jpg", "query": "Describe this image."} for i in (1, 2)]
    write(folder / "data" / "annotations.json", notes)
    write(folder / "data" / "query" / "query_generative.json", asked)
    for one in asked:
        picture(folder / "image" / one["image"], one["id"])


@pytest.fixture
def made(tmp_path) -> Path:
    """The folder that the document's program makes."""
    coco(tmp_path / "COCO", 9)
    amber(tmp_path / "AMBER")
    (tmp_path / "coco_amber.py").write_text(PROGRAM)
    command = [sys.executable, "coco_amber.py", "COCO", "AMBER", "data/coco-amber", "900"]
    subprocess.run(command, cwd=tmp_path, check=True, env=workspace.environment(ROOT))
    return tmp_path / "data" / "coco-amber"


def test_the_data_stage_takes_what_the_program_makes(made, tmp_path):
    params = read(ROOT / "params.yaml")
    params["data"] |= {"source": "data/coco-amber", "max_rejected": 0.0}
    metrics = build(load(params, "data", Config), tmp_path, tmp_path / "splits")
    assert (metrics["train/rows"], metrics["validation/rows"]) == (6, 2)
    assert (metrics["test/rows"], metrics["rejected"]) == (2, 0)
    coco_row = read_split(tmp_path / "splits" / "train.parquet")[0]
    assert [thing.name for thing in coco_row.objects] == ["dog", "cup"], "one cup has no pixel"
    assert coco_row.objects[1].box == (20 / 32, 10 / 24, 1.0, 1.0)
    assert open_images(coco_row)[0].size == (32, 24)
    first, second = read_split(tmp_path / "splits" / "test.parquet")
    assert (first.id, first.question) == ("1", "Describe this image.")
    assert [thing.name for thing in first.objects] == ["dog", "person"], "a puppy, a man; no sky"
    assert (first.absent, second.objects, second.absent) == (("bird",), (), ("person",))


def test_the_vocabulary_knows_plurals_and_no_word_twice(made):
    words = read_vocabulary(made / "vocabulary.json").objects
    assert len(words) == 80
    text = "two puppies, women, knives and buses beside the sheep on benches"
    names = [mention.name for mention in find(text, words)]
    assert names == ["dog", "person", "knife", "bus", "sheep", "bench"]


def test_the_answers_of_each_arm_are_scored_as_ambers(tmp_path, capsys, monkeypatch):
    """The way of step 3, from the answer stage's table to AMBER's figures."""
    truth = oracle.FOLDER.parent / "amber"
    if not truth.is_dir():
        pytest.skip(f"AMBER's annotations {truth} are not on this machine")
    oracle.use_nltk_data(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "answer").mkdir(parents=True)
    said = {"base": "A dog under the sky.", "tuned_steered": "The sky over a forest."}
    rows = [
        {"arm": arm, "split": split, "id": name, "response": text}
        for arm, text in said.items()
        for split, name in (("test", "1"), ("test", "2"), ("validation", "coco-7"))
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "results" / "answer" / "responses.parquet")
    (program,) = re.findall(r"^python - <<'END'\n(.*?)^END", DOCUMENT, re.DOTALL | re.MULTILINE)
    exec(program, {})
    words = ["amber", "--responses", "tuned_steered.json", "--against", "base.json"]
    assert scoring.main([*words, "--truth", str(truth), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["metrics"]["hal"] == 0.0
    base = scores["against"]["metrics"]
    assert (base["chair"], base["hal"]) == (50.0, 100.0), "a dog that is not there"


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("python -m adapt.")])
def test_commands_and_their_options_exist(command, capsys, monkeypatch):
    module, *words = command.partition("#")[0].removeprefix("python -m ").split()
    names = {"adapt.score": "adapt.score.__main__", "adapt.inspect": "adapt.inspect.__main__"}
    main = importlib.import_module(names.get(module, module))
    monkeypatch.setattr("sys.argv", [module, *words[:1], "--help"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in words if word.startswith("--"))
    if module == "adapt.recipe":
        assert (ROOT / "recipes" / f"{words[0]}.yaml").exists()
