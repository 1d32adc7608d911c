"""Both answers of a pair behind one prompt are what they are behind a prompt each."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adapt.attention import capture
from adapt.preference import prefix, trainer
from adapt.preference.collate import IDS, part
from adapt.preference.trainer import Weights
from tests.support.preference_rows import adapt_trainer, batch_of, gradients

ALL = Weights(vag=0, dpo=1, sft=1, attn=1)


def loss_and_gradients(
    base: str, tmp_path: Path, **changes: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ours = adapt_trainer(base, tmp_path, ALL, **changes)
    ours.model.train()
    loss = ours.compute_loss(ours.model, batch_of(ours))
    loss.backward()
    return loss.detach(), gradients(ours)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_plain_terms_are_the_same_with_and_without(base, tmp_path, monkeypatch, checkpointing):
    changes: dict[str, Any] = {}
    if checkpointing:
        changes = {
            "activation_checkpointing": True,
            "activation_checkpointing_kwargs": {"use_reentrant": False},
        }
    shared, got = loss_and_gradients(base, tmp_path / "shared", **changes)
    monkeypatch.setattr(trainer, "can_share", lambda *_: False)
    apart, expected = loss_and_gradients(base, tmp_path / "apart", **changes)
    torch.testing.assert_close(shared, apart, atol=1e-5, rtol=1e-6)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        largest = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(got[name], gradient, atol=2e-6 * largest, rtol=1e-5, msg=name)


def test_prompts_of_different_lengths_and_every_output_of_the_head(base, tmp_path):
    ours = adapt_trainer(base, tmp_path, ALL)
    batch = part(batch_of(ours), guided=False)
    assert not batch["attention_mask"].all(), "some prompt and some answer must be padded"
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values")} | {
        "use_cache": False
    }
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    with torch.no_grad():
        apart = ours.model(**inputs, labels=labels, fused_lm_head=True)
        shared = prefix.pair_forward(ours.model, **inputs, labels=labels, fused_lm_head=True)
    for name in ("log_probs", "entropy", "mean_logits", "is_top1"):
        real = labels[:, 1:] != -100
        torch.testing.assert_close(
            shared[name][real], apart[name][real], atol=1e-5, rtol=1e-5, msg=name
        )
        assert shared[name].shape == apart[name].shape
    torch.testing.assert_close(shared.log_probs, apart.log_probs, atol=1e-5, rtol=1e-5)


def test_a_pair_is_one_sequence_and_its_picture_is_seen_once(base, tmp_path, monkeypatch):
    ours, calls = adapt_trainer(base, tmp_path, ALL), []
    batch, forward = batch_of(ours), ours.model.forward
    monkeypatch.setattr(
        ours.model, "forward", lambda **kwargs: (calls.append(kwargs), forward(**kwargs))[1]
    )
    ours.compute_loss(ours.model, batch)
    pairs, tokens = len(batch[IDS]), int(batch["completion_mask"].any(0).sum())
    assert [len(kwargs["pixel_values"]) for kwargs in calls] == [pairs]
    assert calls[0]["input_ids"].shape == (pairs, batch["input_ids"].shape[1] + tokens + 1)


def decoder(**config: Any) -> Any:
    one = SimpleNamespace(config=SimpleNamespace(**({"_attn_implementation": "sdpa"} | config)))
    return SimpleNamespace(get_decoder=lambda: one)


@pytest.mark.parametrize(
    ("config", "batch", "expected"),
    [
        ({}, {}, True),
        ({"sliding_window": None}, {}, True),
        ({"sliding_window": 4096}, {}, False),
        ({"layer_types": ["full_attention"] * 2, "sliding_window": 4096}, {}, True),
        ({"layer_types": ["full_attention", "sliding_attention"]}, {}, False),
        ({"_attn_implementation": "eager"}, {}, False),
        ({"_attn_implementation": capture.NAME}, {}, True),
        ({}, {"token_type_ids": None}, False),
    ],
)
def test_it_is_left_where_the_mask_does_not_say_it_all(config, batch, expected):
    assert prefix.can_share(decoder(**config), batch) == expected
