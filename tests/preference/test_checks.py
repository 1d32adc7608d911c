"""Configuration, model and pairs that do not fit are refused before anything is computed."""

from pathlib import Path

import pytest

from adapt.models.load import save
from adapt.params import InputError
from adapt.preference.checks import check
from adapt.preference.pairs import write_pairs
from tests.support import tiny_world
from tests.support.preference_rows import ANCHOR, changed, pairs, settings


def refused(folder, tmp_path, rows, **changes) -> str:
    write_pairs(tmp_path / "pairs.parquet", rows)
    with pytest.raises(InputError) as error:
        check(settings(**changes), Path(folder), tmp_path / "pairs.parquet")
    return str(error.value)


def test_a_fitting_configuration_passes(base, tmp_path):
    write_pairs(tmp_path / "pairs.parquet", pairs(4))
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


def test_an_anchor_on_another_grid_than_the_models(base, tmp_path):
    rows = [changed(p, grid=(2, 8)) for p in pairs(4)]
    assert refused(base, tmp_path, rows).endswith(
        "row 1 (row-0): grid: an anchor on (2, 8), but the model sees this image on (4, 4);"
        " run the pairs stage again"
    )
    rows = [*pairs(3), changed(pairs(1)[0], id="odd", anchor=(1.0,) * 4, grid=(2, 2))]
    assert "row 4 (odd): grid: (2, 2), but (4, 4) in the first row" in refused(base, tmp_path, rows)


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
