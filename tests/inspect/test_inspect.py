"""What the command says of models that can be aligned, of those that cannot, and of mistakes."""

import importlib.util
import json

import pytest
import torch
import transformers
from PIL import Image

from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import layout_of
from adapt.generation.answer import Decoding, answer
from adapt.inspect import __main__ as inspect
from adapt.inspect import probes
from adapt.models.load import save
from tests.support import builders, workspace
from tests.support.families import built, inputs, picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of tiny models by family, with weights or without."""

    def make(name, weights=True):
        path = tmp_path_factory.mktemp(name)
        model, processor = built(name)
        if weights:
            save(model, processor, path)
        else:
            model.config.save_pretrained(path)
            processor.save_pretrained(path)
        return str(path)

    return make


def report(capsys, *arguments):
    code = inspect.main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_model_that_can_be_aligned(folder, capsys, tmp_path):
    source = folder("llava")
    assert inspect.main([source]) == 0
    printed = capsys.readouterr().out
    for line in (
        "family    LLaVA-1.5 (model type llava)",
        "decoder   2 layers, 4 heads of 8, 2 of keys and values",
        "the whole picture in 4 x 4 patches",
        "capture   yes (tried)",
        "steering  yes (tried)",
        "training  yes (its gradient was tried)",
    ):
        assert line in printed
    Image.new("RGB", (50, 20)).save(tmp_path / "small.png")
    code, facts = report(capsys, source, "--picture", str(tmp_path / "small.png"))
    assert code == 0
    # <s> <user> 16 image tokens, then: Describe the picture . <assistant>
    assert facts["picture"] == {
        "size": [50, 20],
        "prompt": 23,
        "tokens": 16,
        "first": 2,
        "last": 17,
        "views": [{"kind": "whole", "grid": [4, 4], "first": 2, "last": 17}],
    }


def test_without_weights_the_configuration_answers(folder, capsys):
    source = folder("gemma3", weights=False)
    assert inspect.main([source]) == 0
    printed = capsys.readouterr().out
    assert "1 of them see the last 12 tokens only" in printed
    assert "capture   yes (by its family; there are no weights here to try it with)" in printed
    code, facts = report(capsys, source)
    assert (code, facts["weights"], facts["picture"]["tokens"]) == (0, False, 16)


def test_tiles_can_be_read_and_steered_but_not_guided(folder, capsys):
    code, facts = report(capsys, folder("idefics3"))
    assert code == 1
    assert [v["kind"] for v in facts["picture"]["views"]] == ["tile"] * 4 + ["whole"]
    assert facts["capture"]["supported"] and facts["steering"]["supported"]
    assert (
        facts["training"]["why"]
        == "a picture has 5 grids of patches, and guided pictures (v+, v-) need one"
    )


def test_pixel_values_without_a_picture_shape_cannot_be_guided():
    batch = inputs("qwen2_vl", [[picture((48, 32))]])
    layout = layout_of(built("qwen2_vl")[0], batch)
    assert "its processor makes [96, 96]" in probes.why_unguided(batch, layout)


def test_models_that_cannot_be_aligned_are_refused_in_words(capsys, tmp_path):
    for model, words in zip(
        builders.refused()[:2], ("cross-attention layers", "Q-Former"), strict=True
    ):
        model.config.save_pretrained(tmp_path)
        code, facts = report(capsys, str(tmp_path))
        assert code == 1
        assert words in facts["capture"]["why"] and words in facts["training"]["why"]
        assert inspect.main([str(tmp_path)]) == 1
        assert "family    none that is known" in capsys.readouterr().out


def test_a_language_model_has_no_pictures(capsys, tmp_path):
    transformers.LlamaConfig().save_pretrained(tmp_path)
    code, facts = report(capsys, str(tmp_path))
    assert code == 1 and "names no image token" in facts["capture"]["why"]


def test_a_processor_that_cannot_be_used_is_the_reason(folder, capsys, tmp_path):
    built("llava")[0].config.save_pretrained(tmp_path)
    assert (
        "no processor (tokenizer_config.json)" in report(capsys, str(tmp_path))[1]["capture"]["why"]
    )
    words = built("llava")[1]
    source = folder("llava", weights=False)
    (type(tmp_path)(source) / "chat_template.jinja").unlink()
    assert words.chat_template and "no chat template" in report(capsys, source)[1]["capture"]["why"]


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None,
    reason="torchvision is here: nothing is missing",
)
def test_a_processor_that_reads_video_needs_torchvision(capsys, tmp_path):
    model, processor = built("qwen2_vl")
    model.config.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    pictures = {**processor.image_processor.to_dict(), "processor_class": "Qwen2VLProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pictures, default=str))
    code, facts = report(capsys, str(tmp_path))
    assert code == 1 and "its processor cannot be loaded here" in facts["capture"]["why"]


def test_mistakes_end_with_one_line_and_code_2(capsys, tmp_path):
    (tmp_path / "not.png").write_text("nothing to see")
    for arguments, words in (
        (["./missing"], "./missing: no such folder, and not a hub id"),
        (["missing"], "missing: no such folder, and not a hub id"),
        ([str(tmp_path)], "no model here (config.json is missing)"),
        ([str(tmp_path), "--picture", str(tmp_path / "not.png")], "not a picture that can be read"),
    ):
        assert inspect.main(arguments) == 2
        printed = capsys.readouterr()
        assert words in printed.err and printed.err.count("\n") == 1 and not printed.out
        assert inspect.main([*arguments, "--json"]) == 2
        assert words in json.loads(capsys.readouterr().out)["error"]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        inspect.main(["--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert "python -m adapt.inspect llava-hf/llava-1.5-7b-hf" in printed and "Exit codes" in printed


def test_memory_is_what_capture_keeps():
    model, processor = built("llava")
    kept_by = probes.memory(model, 16)
    decoding = Decoding(anchor_tokens=2, max_new_tokens=5)
    answers = answer(model, processor, [[picture((32, 32))]], ["is there a red car?"], decoding)
    kept = answers.maps_BTLN.nbytes + answers.fired_BTL.nbytes
    assert kept * 1000 == kept_by["decoding"] * answers.tokens_BT.shape[1]
    batch = inputs("llava", [[picture((32, 32))]])
    rows = torch.arange(17, 22)[None]
    capture = RowCapture(rows, layout_of(model, batch).columns_BN)
    with observed(model, capture):
        model(**batch)
    kept = 0
    for layer in capture.maps.values():
        query, _, _, _, _, norm = layer.grad_fn.saved_tensors
        kept += query.nbytes + norm.nbytes + layer.nbytes
    assert kept * 1000 == kept_by["training"] * rows.shape[1]


def test_the_anchor_of_a_picture_can_be_drawn(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(workspace.ROOT)
    for name in ("llava", "idefics3"):  # one grid; a whole picture and its tiles
        target = tmp_path / f"{name}.png"
        assert inspect.main([folder(name), "--overlay", str(target)]) in (0, 1)
        with Image.open(target) as drawn:
            assert drawn.width > 900
    capsys.readouterr()
    assert (
        inspect.main([folder("llava", weights=False), "--overlay", str(tmp_path / "none.png")]) == 2
    )
    assert "--overlay: there are no weights here" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert inspect.main([folder("llava"), "--overlay", str(tmp_path / "none.png")]) == 2
    assert "params.yaml" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()
