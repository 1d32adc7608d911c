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
    monkeypatch.setattr(trainer, "cannot_share", lambda *_: "it is switched off")
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
        apart = prefix.apart_forward(ours.model, **inputs, labels=labels, fused_lm_head=True)
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
    pairs, answers = len(batch[IDS]), batch["completion_mask"].sum(1)
    longest = (batch["attention_mask"].sum(1)[:pairs] + 1 + answers[pairs:]).max()
    assert [len(kwargs["pixel_values"]) for kwargs in calls] == [pairs]
    assert calls[0]["input_ids"].shape == (pairs, longest)


def test_a_pair_goes_through_the_table_and_back():
    """Prompts of two tokens and of one, answers of different lengths."""
    answers = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 1, 1]]) > 0
    table = prefix.Table.of(answers)
    packed = table.packed(torch.arange(20).view(4, 5))
    assert packed[0].tolist() == [0, 1, 2, 3, 11, 12, 12]
    assert packed[1].tolist() == [5, 6, 15, 16, 17, 18, 19]
    assert table.real_BZ.tolist() == [[True] * 6 + [False], [True] * 7]
    back = table.unpacked(packed)
    assert back.tolist() == [[0, 1, 2, 3, 0], [5, 6, 0, 0, 0], [0, 11, 12, 0, 0], [*range(15, 20)]]
    # Several positions for each token are looked up alike.
    axes = torch.stack([torch.arange(20).view(4, 5), torch.arange(20, 40).view(4, 5)])
    assert table.packed(axes).equal(torch.stack([packed, packed + 20]))


def model(own_masks: bool = False, **config: Any) -> Any:
    one = SimpleNamespace(config=SimpleNamespace(**({"_attn_implementation": "sdpa"} | config)))
    masks = {"create_masks_for_generate": None} if own_masks else {}
    return SimpleNamespace(get_decoder=lambda: one, **masks)


FULL, WINDOW = "full_attention", "sliding_attention"


@pytest.mark.parametrize(
    ("config", "batch", "reason"),
    [
        ({}, {}, None),
        ({"sliding_window": None}, {}, None),
        ({"sliding_window": 7}, {}, "its layers see a window of 7 tokens, and the rows have 8"),
        ({"sliding_window": 8}, {}, None),
        ({"layer_types": [FULL] * 2, "sliding_window": 7}, {}, None),
        ({"layer_types": [FULL, WINDOW], "sliding_window": 7}, {}, "its layers see a window of 7"),
        ({"layer_types": [FULL, "linear_attention"]}, {}, "of the kind linear_attention"),
        ({"_attn_implementation": "eager"}, {}, "its attention is eager"),
        ({"_attn_implementation": capture.NAME}, {}, None),
        ({}, {"token_type_ids": None}, "the tokens of a picture see each other"),
        ({"own_masks": True}, {}, "the tokens of a picture see each other"),
    ],
)
def test_it_is_left_where_the_mask_does_not_say_it_all(config, batch, reason):
    found = prefix.cannot_share(model(**config), {"input_ids": torch.zeros(2, 8)} | batch)
    assert found is None if reason is None else reason in found
