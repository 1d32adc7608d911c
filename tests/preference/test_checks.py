"""Configuration, model and pairs that do not fit are refused before anything is computed."""

import dataclasses
import re
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from adapt.models.load import load_processor, save
from adapt.pairs.plain import write_plain
from adapt.pairs.table import PairPlace, PairView, write_pairs
from adapt.params import InputError
from adapt.preference.checks import check
from tests.support import tiny_world
from tests.support.preference_rows import (
    ANCHOR,
    changed,
    origin,
    pairs,
    plain_rows,
    settings,
    spanned,
)


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


def test_a_weight_of_spans_needs_some_and_a_tokenizer_that_knows(base, tmp_path, monkeypatch):
    message = refused(base, tmp_path, pairs(4), span_weight=4.0)
    assert message.startswith("train.span_weight: no answer in ")
    assert message.endswith(" has words that decide; set it to 1")
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    message = refused(base, tmp_path, spanned(pairs(4)), span_weight=4.0)
    assert message.startswith("train.span_weight: tokenizer ") and "tokenizer.json" in message
    check(settings(), Path(base), tmp_path / "pairs.parquet")


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


def test_boxes_that_no_answer_has(base, tmp_path):
    nowhere = PairPlace(start=2, end=9, image=0, boxes=())
    rows = [changed(pair, places=(nowhere,)) for pair in pairs(4)]
    for made in (pairs(4), rows):
        assert refused(base, tmp_path, made, attn_target="boxes") == (
            f"train.attn_target: boxes, but no chosen answer in {tmp_path / 'pairs.parquet'} names"
            " a thing whose box is known; give the training data objects with boxes, or set it to"
            " early or anchor"
        )
    somewhere = dataclasses.replace(nowhere, boxes=((0.0, 0.0, 0.5, 0.5),))
    write_pairs(
        tmp_path / "pairs.parquet", [*rows[1:], changed(rows[0], places=(somewhere,))], origin()
    )
    for changes in (
        dict(attn_target="boxes"),
        dict(attn_target="boxes", anchor=ANCHOR | {"anchor_tokens": 40}),
    ):
        check(settings(**changes), Path(base), tmp_path / "pairs.parquet")
    write_pairs(tmp_path / "pairs.parquet", pairs(4), origin())
    check(settings(attn_target="boxes", w_attn=0.0), Path(base), tmp_path / "pairs.parquet")


def test_a_tokenizer_that_cannot_place_a_mention(base, tmp_path, monkeypatch):
    monkeypatch.setattr(type(load_processor(base).tokenizer), "is_fast", False)
    message = refused(base, tmp_path, pairs(4), attn_target="boxes")
    name = type(load_processor(base).tokenizer).__name__
    problem = f"train.attn_target: tokenizer {name} does not say which characters its tokens"
    assert message.startswith(problem)


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


def refused_plain(base, tmp_path, rows, **changes) -> str:
    write_pairs(tmp_path / "pairs.parquet", pairs(4), origin())
    write_plain(tmp_path / "plain.parquet", rows)
    files = (tmp_path / "pairs.parquet", tmp_path / "plain.parquet")
    with pytest.raises(InputError) as error:
        check(settings(w_keep=1.0, **changes), Path(base), *files)
    return str(error.value)


def test_rows_to_keep_that_are_not_there(base, tmp_path):
    plain = tmp_path / "plain.parquet"
    message = refused_plain(base, tmp_path, plain_rows(7), keep_rows=8)
    assert message == f"train.keep_rows: 8 rows a step, but {plain} has 7 in all"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(answer="a red </s> car."), "answer .*</s>, a special token"),
        (dict(question="a red </s> car."), "question .*</s>, a special token"),
        (dict(answer="a red car, " * 200), r"prompt and answer have \d+ tokens, the model has 512"),
        (dict(images=(b"none",)), "a picture is not an image file"),
    ],
)
def test_a_row_to_keep_that_the_model_cannot_take(base, tmp_path, changes, message):
    odd = dataclasses.replace(plain_rows(1)[0], id="odd", **changes)
    said = refused_plain(base, tmp_path, [*plain_rows(4), odd])
    assert re.search(rf"plain.parquet: row 5 \(odd\): {message}", said)


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


def test_what_both_answers_begin_with_leaves_nothing_to_supervise(base, tmp_path):
    """Three tokens are early; what stands behind the prefix counts, not the answer."""
    parted = dict(chosen="a red car, a blue house.", rejected="a red car, a tree.")
    rows = [changed(pair, **parted, prefix="a red car, a") for pair in pairs(4)]
    write_pairs(tmp_path / "pairs.parquet", rows, origin())
    check(settings(anchor=ANCHOR), Path(base), tmp_path / "pairs.parquet")
    late = [changed(pair, prefix="a red car, a blue house", **parted) for pair in rows]
    late = [changed(pair, rejected="a red car, a blue house and a tree.") for pair in late]
    message = refused(base, tmp_path, late)
    assert message.startswith(
        "anchor.anchor_tokens: 3 tokens leave nothing to supervise: the longest chosen answer has 2"
        " to train (or set train.w_attn to 0)"
    )
