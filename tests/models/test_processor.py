"""Processors as they are loaded from folders: without video, complete, with a pad token."""

import json
import shutil
import sys

import pytest
import torch

from adapt.models.load import load_processor, save
from tests.support import families

OLD = ["llava", "llava_next", "llava_onevision", "mistral3", "idefics3", "smolvlm"]
VIDEO = ["llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "smolvlm", "internvl"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function from a family to a folder in which its model is saved."""
    root = tmp_path_factory.mktemp("families")

    def folder(name):
        if not (root / name).exists():
            save(*families.built(name), root / name)
        return root / name

    return folder


def tensors(processor, name):
    """What a model takes for a picture and a question."""
    size = next(iter(families.CASES[name].views))
    text = families.prompt(processor, families.QUESTIONS[0])
    return processor(images=[[families.picture(size)]], text=[text], return_tensors="pt")


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("name", families.CASES)
def test_a_loaded_processor_makes_the_same_tensors(folders, tmp_path, name):
    expected = tensors(families.built(name)[1], name)
    loaded = load_processor(folders(name))
    assert type(loaded).__name__ == type(families.built(name)[1]).__name__
    assert_equal(tensors(loaded, name), expected)
    loaded.save_pretrained(tmp_path)
    assert_equal(tensors(load_processor(tmp_path), name), expected)
    assert "torchvision" not in sys.modules


def in_old_files(folder):
    """The folder as it was saved before one file held all parts of a processor."""
    whole = json.loads((folder / "processor_config.json").read_text())
    pictures = whole.pop("image_processor")
    pictures["processor_class"] = whole["processor_class"]
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "processor_config.json").unlink()
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "chat_template.jinja").unlink()


@pytest.mark.parametrize("name", ["llava", "mistral3", *VIDEO])
def test_folders_of_older_kinds_are_read(folders, tmp_path, name):
    shutil.copytree(folders(name), tmp_path / "old")
    in_old_files(tmp_path / "old")
    loaded = load_processor(tmp_path / "old")
    assert_equal(tensors(loaded, name), tensors(families.built(name)[1], name))


@pytest.mark.parametrize("name", VIDEO)
def test_settings_for_video_are_kept_for_who_reads_them(folders, tmp_path, name):
    source, settings = tmp_path / "source", {"video_processor_type": "X", "fps": 2}
    shutil.copytree(folders(name), source)
    (source / "video_preprocessor_config.json").write_text(json.dumps(settings))
    for again in ("first", "second"):  # from a file of its own; then from the file of all parts
        load_processor(source).save_pretrained(source := tmp_path / again)
        stored = json.loads((source / "processor_config.json").read_text())
        assert stored["video_processor"] == settings
        assert "torchvision" not in sys.modules


def test_pictures_settings_serve_for_video_where_there_are_no_others(folders, tmp_path):
    shutil.copytree(folders("qwen2_vl"), tmp_path / "old")
    in_old_files(tmp_path / "old")
    load_processor(tmp_path / "old").save_pretrained(tmp_path / "new")
    stored = json.loads((tmp_path / "new/processor_config.json").read_text())
    assert stored["video_processor"]["image_processor_type"].startswith("Qwen2VLImageProcessor")


@pytest.mark.parametrize("name", OLD)
def test_what_an_old_folder_leaves_out_is_found_in_the_models_config(folders, tmp_path, name):
    shutil.copytree(folders(name), tmp_path / "old")
    path = tmp_path / "old/processor_config.json"
    stored = json.loads(path.read_text())
    kept = {"image_processor", "processor_class", "vision_aspect_ratio"}
    path.write_text(json.dumps({key: stored[key] for key in stored if key in kept}))
    loaded = load_processor(tmp_path / "old")
    assert_equal(tensors(loaded, name), tensors(families.built(name)[1], name))


@pytest.mark.parametrize(("special", "expected"), [("unk_token", "<unk>"), ("eos_token", "</s>")])
def test_a_tokenizer_without_a_pad_token_is_given_one(folders, tmp_path, special, expected):
    shutil.copytree(folders("llava"), tmp_path / "model")
    path = tmp_path / "model/tokenizer_config.json"
    settings = json.loads(path.read_text())
    for name in {"pad_token", "unk_token"} - {special}:
        del settings[name]
    path.write_text(json.dumps(settings))
    processor = load_processor(tmp_path / "model")
    assert processor.tokenizer.pad_token == expected
    batch = processor.tokenizer(["a", "a red car"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    processor.save_pretrained(tmp_path / "saved")
    assert load_processor(tmp_path / "saved").tokenizer.pad_token == expected
