"""Configuration, model and pairs that do not fit are refused before anything is computed."""

import dataclasses
import re
from pathlib import Path

import pytest

from adapt.models.load import save
from adapt.params import InputError
from adapt.preference.checks import check
from adapt.preference.pairs import PairView, write_pairs
from tests.support import tiny_world
from tests.support.preference_rows import ANCHOR, changed, origin, pairs, settings


def refused(folder, tmp_path, rows, *, made=None, **changes) -> str:
    write_pairs(tmp_path / "pairs.parquet", rows, made or origin())
    with pytest.raises(InputError) as error:
        check(settings(**changes), Path(folder), tmp_path / "pairs.parquet")
    return str(error.value)


def test_a_fitting_configuration_passes(base, tmp_path):
    write_pairs(tmp_path / "pairs.parquet", pairs(4), origin())
    check(settings(), Path(base), tmp_path / "pairs.parquet")


def test_layers_that_the_model_does_not_have(base, tmp_path):
    assert refused(base, tmp_path, pairs(4), attn_layers=[1, 3]) == (
        "train.attn_layers: the model has layers 0 to 2, got [1, 3]"
    )


def test_fewer_pairs_than_a_step(base, tmp_path):
    assert refused(base, tmp_path, pairs(3)).startswith("train.batch_pairs: 4 pairs a step, but ")


def test_more_anchor_tokens_than_any_answer_has(base, tmp_path):
    anchor = ANCHOR | {"anchor_tokens": 40}
    message = refused(base, tmp_path, pairs(4), anchor=anchor)
    assert message.startswith(
        "anchor.anchor_tokens: 40 tokens leave nothing to supervise:"
        " the longest chosen answer has 1"
    )
    check(settings(anchor=anchor, w_attn=0.0), Path(base), tmp_path / "pairs.parquet")


def test_an_anchor_on_other_grids_than_the_models(base, tmp_path):
    views = (PairView(image=0, kind="whole", rows=2, columns=8),)
    rows = [*pairs(3), changed(pairs(1)[0], id="odd", views=views)]
    assert refused(base, tmp_path, rows).endswith(
        "row 4 (odd): views: an anchor on whole 2 x 8 (16 tokens), but the model sees these"
        " pictures on whole 4 x 4 (16 tokens); run the pairs stage again (dvc repro pairs)"
    )
    rows = [changed(p, anchor=(*p.anchor, 0.0)) for p in pairs(4)]
    assert "row 1 (row-0): views: an anchor on whole 4 x 4 (17 tokens)" in refused(
        base, tmp_path, rows
    )


def test_pairs_of_another_model_or_template(base, tmp_path):
    known = origin()
    for field, value in (("model_type", "qwen2_vl"), ("prompt", "0123456789ab")):
        other = dataclasses.replace(known, **{field: value})
        message = refused(base, tmp_path, pairs(4), made=other)
        assert f" {value}, but the base " in message and "run the pairs stage again" in message


def test_a_text_with_a_special_token_of_the_models(base, tmp_path):
    for field in ("question", "chosen", "rejected"):
        rows = [*pairs(3), changed(pairs(1)[0], id="odd", **{field: "a red </s> car."})]
        assert re.search(
            r"pairs.parquet: row 4 \(odd\): .*</s>, a special token", refused(base, tmp_path, rows)
        )


def test_a_row_longer_than_the_models_positions(base, tmp_path):
    long = changed(pairs(1)[0], id="odd", rejected="a red car, " * 200)
    assert re.search(
        r"row 4 \(odd\): prompt and answer have \d+ tokens, the model has 512 positions",
        refused(base, tmp_path, [*pairs(3), long]),
    )


def test_a_file_that_is_no_picture(base, tmp_path):
    rows = [*pairs(3), changed(pairs(1)[0], id="odd", images=(b"none",))]
    assert "row 4 (odd): a picture is not an image file" in refused(base, tmp_path, rows)


def test_a_folder_without_a_model(base, tmp_path):
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty", tmp_path, pairs(4)).endswith(
        "no processor (tokenizer_config.json) beside the model"
    )


def test_a_saved_processor_has_no_truncation_of_an_earlier_call(tmp_path):
    from adapt.models.load import load_processor

    processor = tiny_world.processor()
    processor.tokenizer(["describe the picture."], truncation=True, max_length=2)
    save(tiny_world.model(), processor, tmp_path)
    assert len(load_processor(tmp_path).tokenizer("describe the picture.").input_ids) > 2
