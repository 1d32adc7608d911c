"""The trainer is TRL's where it should be: loss and gradients on the same batch, and VAG-DPO with equal images."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from adapt.models.load import load_model, save
from adapt.preference.collate import ANCHOR, GUIDED, GuidedCollator
from adapt.preference.trainer import AdaptTrainer, Weights, response_rows
from tests import tiny_world

ROWS = [
    {
        "id": f"row-{i}",
        "image": tiny_world.picture(i),
        "prompt": [{"role": "user", "content": tiny_world.QUESTIONS[i % 2]}],
        "chosen": [{"role": "assistant", "content": tiny_world.ANSWERS[i % 2]}],
        "rejected": [{"role": "assistant", "content": tiny_world.ANSWERS[(i + 1) % 2]}],
        "anchor": [float(k == i) + 0.1 for k in range(16)],
        "grid": [4, 4],
    }
    for i in range(4)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("base")
    save(tiny_world.model(), tiny_world.processor(), folder)
    return str(folder)


def config(tmp_path, losses=("sigmoid",), weights=(1.0,)) -> DPOConfig:
    return DPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=4, beta=0.5, report_to=[], use_cpu=True,
                     bf16=False, activation_checkpointing=False, remove_unused_columns=False, max_length=None,
                     loss_type=list(losses), loss_weights=list(weights), max_steps=1)  # fmt: skip


def perturbed(base: str) -> Any:
    """The policy a few steps away from the reference, so that the loss is not log 2."""
    model = load_model(base)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def adapt_trainer(base: str, tmp_path, weights: Weights, guide: bool = True) -> AdaptTrainer:
    losses, loss_weights = weights.trl_losses()
    collator = GuidedCollator(processor=tiny_world.processor(), noise=0.3, guide=guide)
    return AdaptTrainer(model=perturbed(base), args=config(tmp_path, losses, loss_weights), data_collator=collator,
                        train_dataset=Dataset.from_list(ROWS), processing_class=tiny_world.processor(),
                        weights=weights, anchor_tokens=2, attn_layers=())  # fmt: skip


def loss_of(trainer: Any, *, guide: bool = True) -> torch.Tensor:
    batch = GuidedCollator(processor=tiny_world.processor(), noise=0.3, guide=guide)([dict(r) for r in ROWS])
    if not isinstance(trainer, AdaptTrainer):
        batch = {k: v for k, v in batch.items() if k not in (GUIDED, ANCHOR)}
    trainer.model.train()
    return trainer.compute_loss(trainer.model, batch)


def gradients(trainer: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}


def test_without_extra_terms_loss_and_gradients_equal_trl(base, tmp_path):
    trl = DPOTrainer(model=perturbed(base), args=config(tmp_path), train_dataset=Dataset.from_list(ROWS),
                     processing_class=tiny_world.processor())  # fmt: skip
    ours = adapt_trainer(base, tmp_path, Weights(vag=0, dpo=1, sft=0, attn=0))
    expected, got = loss_of(trl), loss_of(ours)
    assert abs(expected.item() - 0.6931) > 1e-2, "the policy must differ from the reference"
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    expected.backward()
    got.backward()
    for name, gradient in gradients(trl).items():
        torch.testing.assert_close(gradients(ours)[name], gradient, atol=1e-6, rtol=1e-6, msg=name)


def test_vag_with_equal_images_equals_dpo(base, tmp_path):
    dpo = loss_of(adapt_trainer(base, tmp_path, Weights(vag=0, dpo=1, sft=0, attn=0)))
    vag = loss_of(adapt_trainer(base, tmp_path, Weights(vag=1, dpo=0, sft=0, attn=0)), guide=False)
    guided = loss_of(adapt_trainer(base, tmp_path, Weights(vag=1, dpo=0, sft=0, attn=0)))
    torch.testing.assert_close(vag, dpo, atol=1e-6, rtol=0)
    assert abs((guided - dpo).item()) > 1e-3, "guided images must matter"


def test_terms_add_up_with_their_weights(base, tmp_path):
    none = dict.fromkeys(("vag", "dpo", "sft", "attn"), 0.0)
    one = {term: loss_of(adapt_trainer(base, tmp_path, Weights(**{**none, term: 1.0}))) for term in none}
    total = loss_of(adapt_trainer(base, tmp_path, Weights(vag=0.5, dpo=0.25, sft=2.0, attn=3.0)))
    expected = 0.5 * one["vag"] + 0.25 * one["dpo"] + 2.0 * one["sft"] + 3.0 * one["attn"]
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)


def test_attention_supervision_reaches_queries_and_keys_and_nothing_behind_the_last_map(base, tmp_path):
    trainer = adapt_trainer(base, tmp_path, Weights(vag=0, dpo=0, sft=0, attn=1))
    loss_of(trainer).backward()
    prefix = "model.language_model.layers.2."
    found = gradients(trainer).items()
    last = {n.removeprefix(prefix): g.abs().sum() for n, g in found if n.startswith(prefix)}
    assert last["self_attn.q_proj.weight"] > 0 and last["self_attn.k_proj.weight"] > 0
    assert not any(total > 0 for name, total in last.items() if "v_proj" in name or "mlp" in name)


def test_guided_images_depend_on_the_row_alone():
    collate = GuidedCollator(processor=tiny_world.processor(), noise=0.3)
    both, second = collate([dict(r) for r in ROWS[:2]]), collate([dict(ROWS[1])])
    torch.testing.assert_close(both[GUIDED][1], second[GUIDED][0])
    torch.testing.assert_close(both[GUIDED][3], second[GUIDED][1])
    assert not torch.equal(both[GUIDED], both["pixel_values"])


def test_rows_that_produce_the_response():
    rows = response_rows(torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]))
    assert rows.tolist() == [[1, 2, 3], [0, 1, -1]]
