"""What the command says of models that can be aligned, of those that cannot, and of mistakes."""

import copy
import json

import huggingface_hub
import pytest
import torch
import transformers
import yaml
from PIL import Image

from adapt.inspect import __main__ as inspect
from adapt.inspect import probes, trial
from adapt.models.load import save
from tests.support import builders, inspected, workspace
from tests.support.families import built, picture


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
        "family    LLaVA-1.5, Pixtral (model type llava)",
        "decoder   2 layers, 4 heads of 8, 2 of keys and values",
        "the whole picture in 4 x 4 patches",
        "capture   yes (tried)",
        "steering  yes (tried)",
        "training  yes (tried)",
        "several   yes (tried)",
        "decoder             20,960 weights  trained",
        "linear layers: 2 down_proj, 2 gate_proj, 2 k_proj",
        "answers of 64 tokens at once: fits into",
        "full training, 12 pairs of answers of 64 tokens a pass: fits into",
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


def test_tiles_and_shapes_of_their_own_can_be_trained(folder, capsys):
    code, facts = report(capsys, folder("idefics3"))
    assert [v["kind"] for v in facts["picture"]["views"]] == ["tile"] * 4 + ["whole"]
    assert code == 0 and all(facts[probe]["supported"] for probe in probes.PROBES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda states: states, None),
        (lambda states: states.detach(), "no gradient of a guided batch reaches the projector"),
        (lambda states: states * torch.inf, "no finite log-probability"),
        (lambda states: Infinite.apply(states), "a gradient of the projector is not finite"),
    ],
)
def test_training_is_tried_and_not_inferred(change, words):
    model, processor = (copy.deepcopy(one) for one in built("llava"))
    hook = lambda module, given, states: change(states)  # noqa: E731
    model.model.multi_modal_projector.register_forward_hook(hook)
    reason = trial.training_flaw(model, processor, picture((32, 32)))
    assert reason is None if words is None else words in reason


class Infinite(torch.autograd.Function):
    """The identity, with a gradient that is no number."""

    @staticmethod
    def forward(ctx, states):
        return states.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.inf


def test_what_a_library_raises_of_a_guided_batch_is_a_reason(monkeypatch):
    model, processor = (copy.deepcopy(one) for one in built("llava"))

    def broken(*_, **__):
        raise KeyError("labels")

    monkeypatch.setattr(trial.AdaptTrainer, "training_step", broken)
    reason = trial.training_flaw(model, processor, picture((32, 32)))
    assert reason == "a guided batch: KeyError: 'labels'"


def test_a_prompt_of_several_pictures_is_tried(monkeypatch):
    model, processor = built("llava")
    assert trial.several_flaw(model, processor, picture((32, 32))) is None
    alone = trial.prompt_inputs
    monkeypatch.setattr(
        trial, "prompt_inputs", lambda m, p, images, q: alone(m, p, [images[0][:1]], q)
    )
    reason = trial.several_flaw(model, processor, picture((32, 32)))
    assert reason == "two pictures become 1 in the prompt"


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


def test_a_processor_that_reads_video_needs_no_torchvision(capsys, tmp_path):
    model, processor = built("qwen2_vl")
    model.config.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    pictures = {**processor.image_processor.to_dict(), "processor_class": "Qwen2VLProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pictures, default=str))
    (tmp_path / "chat_template.jinja").write_text(processor.chat_template)
    facts = report(capsys, str(tmp_path))[1]
    assert facts["capture"]["supported"] and facts["picture"]["tokens"]


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


# ---- settings ----------------------------------------------------------------------------------


def test_the_settings_are_those_of_the_file(folder, capsys, tmp_path):
    source, file = folder("llava", weights=False), tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(inspected.content(batch=3, lora=True, workers=0)))
    code, facts = report(capsys, source, "--params", str(file), "--gpu", "80")
    assert code == 0 and facts["memory"]["params"] == str(file)
    assert facts["memory"]["machine"] == {"name": "a GPU", "bytes": 80 * 2**30}
    stages = facts["memory"]["stages"]
    assert stages["answer"]["what"] == "3 answers of 64 tokens at once"
    assert stages["train"]["what"].startswith("LoRA of rank 4, 24 pairs")
    assert stages["pairs"]["total"] == sum(stages["pairs"]["parts"].values())
    assert facts["parts"]["projector"]["state"] == "frozen"
    assert facts["parts"]["decoder"]["linear"]["q_proj"] == 2


def test_without_settings_memory_is_left_out(folder, capsys, tmp_path, monkeypatch):
    source = folder("llava", weights=False)
    monkeypatch.chdir(tmp_path)
    code, facts = report(capsys, source)
    assert code == 0 and "memory" not in facts and "state" not in facts["parts"]["decoder"]
    assert inspect.main([source]) == 0
    assert "memory    unknown: no params.yaml here" in capsys.readouterr().out


def test_wrong_settings_end_with_one_line(folder, capsys, tmp_path):
    source, file = folder("llava", weights=False), tmp_path / "mine.yaml"
    lines = {}
    for name, change in (
        ("train.beta: must be greater than 0", {"beta": -1.0}),
        ("no layer of the decoder is named so", {"lora": True, "targets": ["nothing"]}),
    ):
        values = inspected.content(lora="lora" in change)
        values["train"] |= {"beta": change["beta"]} if "beta" in change else {}
        values["train"]["lora"] |= {"targets": change["targets"]} if "lora" in change else {}
        file.write_text(yaml.safe_dump(values))
        assert inspect.main([source, "--params", str(file)]) == 2
        lines[name] = capsys.readouterr().err
        assert name in lines[name] and lines[name].count("\n") == 1
    assert inspect.main([source, "--params", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: not found" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        inspect.main([source, "--gpu", "-3"])
    assert ended.value.code == 2


def test_a_hub_id_out_of_reach_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert inspect.main(["nobody/nothing"]) == 2
    printed = capsys.readouterr().err
    assert "nobody/nothing: no such folder, and it cannot be fetched" in printed
    assert printed.count("\n") == 1


# ---- the overlay -------------------------------------------------------------------------------


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
