"""A configuration that cannot work names its key, before anything is computed."""

import re
from typing import get_args

import pytest
from trl import DPOConfig

from adapt.params import InputError
from adapt.preference.settings import LossType
from tests.support.preference_rows import lora, settings
from tests.support.preferences import config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(w_vag=0.0, w_dpo=0.0, w_sft=0.0, w_attn=0.0),
            "w_vag: all loss weights .*w_anchor.* are 0",
        ),
        (dict(w_attn=-0.1), "w_attn: must be at least 0, got -0.1"),
        (dict(w_dpo=-1.0), "w_dpo: must be at least 0"),
        (dict(accumulation=0), "accumulation: expected auto, or a number of at least 1, got 0"),
        (
            dict(workers=2, accumulation=4),
            "batch_pairs: 4 pairs do not divide into 4 passes of 2 workers",
        ),
        (
            dict(workers=[3, 3]),
            "batch_pairs: 4 pairs do not divide into 1 passes of 3 to 3 workers",
        ),
        (
            dict(workers=[3, 4], w_keep=1.0, keep_rows=6),
            "keep_rows: 6 rows do not divide into 1 passes of 3 to 4 workers",
        ),
        (dict(workers=[2, 1]), r"workers: the fewest come first, as in \[1, 4\]"),
        (
            dict(workers=[0, 2]),
            r"workers: expected how many, or the fewest .* such as \[1, 4\], got \[0, 2\]",
        ),
        (dict(workers=[1, 2, 3]), r"workers: expected how many, or .*, got \[1, 2, 3\]"),
        (dict(loss_type="ippo"), "loss_type: expected sigmoid, .*bco_pair, .* got 'ippo'"),
        (dict(loss_type={"ippo": 1.0}), "loss_type: expected sigmoid, .* or several with weights"),
        (dict(loss_type={"ipo": 0.0}), "loss_type: expected .* got {'ipo': 0.0}"),
        (dict(loss_type={}), "loss_type: expected .* got {}"),
        (dict(loss_type=["ipo", "sigmoid"]), "loss_type: expected .*{sigmoid: 0.8, bco_pair: 0.2}"),
        (
            dict(loss_type={"sigmoid": 0.8, "ipo": 0.2}, w_dpo=0.0),
            "loss_type: sigmoid and ipo are forms of the same-image term",
        ),
        (dict(vag_form="text"), "vag_form: must be 'paper', 'same_text' or 'same_image'"),
        (dict(w_anchor=-1.0), "w_anchor: must be at least 0"),
        (
            dict(w_keep=1.0, keep_rows=3, accumulation=2),
            "keep_rows: 3 rows do not divide into 2 passes of 1 workers",
        ),
        (dict(keep_form="kd"), "keep_form: must be 'sft' or 'kl', got 'kd'"),
        (dict(loss_type="ipo", w_dpo=0.0), "loss_type: ipo is the form of the same-image term"),
        (dict(span_weight=0.0), "span_weight: must be greater than 0, got 0.0"),
        (dict(span_weight=4.0, w_dpo=0.0, w_vag=0.0), "span_weight: weighs the margins of w_vag"),
        (dict(tower="lora"), "tower: adapters of the tower need lora.rank above 0"),
        (
            dict(tower="full", lora=lora(8)),
            "tower: with lora.rank above 0 adapters alone are trained",
        ),
        (dict(lora=lora(0, bits=4)), "lora.bits: a base in 4 bits is trained by adapters"),
        (dict(lora=lora(8, bits=4), precision="fp32"), "precision: a base in 4 bits computes in"),
        (dict(lora=lora(8, dropout=1.0)), "lora.dropout: must be less than 1"),
        (dict(lora=lora(8, targets="q_proj")), "lora.targets: expected all, or names of linear"),
        (dict(save_dtype="int8"), "save_dtype: must be 'auto', 'fp32', 'bf16' or 'fp16'"),
        (dict(shard="ddp"), "shard: must be 'none' or 'fsdp', got 'ddp'"),
        (dict(shard="fsdp"), "shard: fsdp divides a model among Ray's workers; set workers above"),
        (
            dict(shard="fsdp", workers=2, lora=lora(8, bits=4)),
            "shard: fsdp does not divide a base in 4 bits; set lora.bits to 16",
        ),
        (
            dict(shard="fsdp", workers=2, optimizer="adafactor"),
            "shard: fsdp divides what adamw keeps, not adafactor; set optimizer to adamw",
        ),
        (
            dict(offload="optimizer", optimizer="adafactor"),
            "offload: main memory takes adamw's moments, not adafactor's state; set optimizer to",
        ),
        (
            dict(offload="optimizer", optimizer="adamw_8bit", lora=lora(8)),
            "offload: main memory takes adamw's moments, not adamw_8bit's state; set optimizer to",
        ),
        (dict(offload="weights"), "offload: must be 'none' or 'optimizer', got 'weights'"),
        (dict(optimizer="sgd"), "optimizer: must be 'adamw', 'adamw_8bit' or 'adafactor'"),
        (dict(precision="fp16"), "precision: must be 'auto', 'fp32' or 'bf16', got 'fp16'"),
    ],
)
def test_bad_values_name_their_key(changes, message):
    with pytest.raises(InputError, match=f"^params.yaml: train.{message}"):
        settings(**changes)


def test_a_number_of_rows_that_nobody_takes_is_no_mistake():
    assert settings(w_keep=0.0, keep_rows=3, accumulation=2).w_keep == 0


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        (dict(workers=[1, 4]), {1: (4, 6), 2: (2, 6), 3: (2, 4), 4: (1, 6)}),
        (dict(workers=[4, 1000], accumulation=3), {4: (6, 1), 6: (4, 1), 8: (3, 1)}),
        (dict(workers=[1, 5], w_keep=1.0, keep_rows=16), {1: (4, 6), 2: (2, 6), 4: (1, 6)}),
        (dict(workers=[3, 3]), {3: (1, 8)}),
        (dict(workers=4), {4: (1, 6)}),
        (dict(workers=0), {1: (1, 24)}),
    ],
)
def test_any_number_of_workers_takes_the_same_step_in_passes_that_are_no_larger(changes, shares):
    """24 pairs; by number of workers: the passes of each, and the pairs of a pass."""
    config = settings(batch_pairs=24, **changes)
    made = {count: config.at(count) for count in config.worlds}
    found = {count: (one.accumulation, one.pass_pairs) for count, one in made.items()}
    assert found == shares
    assert all(one.processes == n and one.parts * one.pass_pairs == 24 for n, one in made.items())


def test_a_file_of_rows_to_keep_is_of_no_use_without_pictures():
    keep = {"kinds": ["other"], "images": 0, "path": "rows.parquet"}
    with pytest.raises(InputError, match=r"^params.yaml: pairs.keep.path: images is 0, so that no"):
        config(keep=keep)


def test_loss_types_are_those_of_trl_that_need_no_option():
    named = re.findall(r"`'(\w+)'`", DPOConfig.__dataclass_fields__["loss_type"].metadata["help"])
    assert set(get_args(LossType)) == set(named) - {"exo_pair", "sft"}


def test_the_tower_is_trained_with_all_the_rest_and_left_alone_beside_adapters():
    assert settings(tower="auto").tower == "full"
    assert settings(tower="auto", lora=lora(8)).tower == "frozen"
