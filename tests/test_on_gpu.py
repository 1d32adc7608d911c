"""What is proven on a CPU holds on a GPU: attention, decoding, steering, prefix sharing, a step.

Every family, in float32 and in bfloat16. Without a CUDA device these tests skip;
ADAPT_TEST_DEVICE=cpu rehearses them.
"""

import copy
import gc
import os
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import layout_of
from adapt.generation.answer import Decoding, answer
from adapt.generation.settings import SteerConfig
from adapt.models.prompts import prompt_inputs
from adapt.models.roles import role_of_parameters
from adapt.preference import prefix
from adapt.preference.collate import part
from adapt.preference.dataset import FEATURES
from adapt.preference.offloaded import MOMENTS, OffloadedAdamW
from adapt.preference.reference import ReferenceCache
from adapt.preference.trainer import AdaptTrainer, Weights
from tests.attention.test_families import similarities
from tests.preference.test_families import APART, batch_of, outputs, rows
from tests.support.families import ANSWER, CASES, QUESTIONS, built, inputs, picture
from tests.support.preference_rows import NONE, collator, config

DEVICE = os.environ.get("ADAPT_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="no CUDA device here; ADAPT_TEST_DEVICE=cpu rehearses these tests",
    ),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
# bfloat16 has 8 bits: two orders of one sum differ by some 256ths.
TOLERANCE = {
    torch.float32: {"atol": 2e-5, "rtol": 1e-4},
    torch.bfloat16: {"atol": 2e-2, "rtol": 5e-2},
}
BOTH = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype)[6:])
FAMILIES = pytest.mark.parametrize("name", CASES)
ALWAYS = SteerConfig(alpha=1.0, tau=100.0, trigger="amc", anchor_share=1.0, layers="all")


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """A convolution may round its float32 inputs to 11 bits, and so depend on its batch."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_device(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The family's model on the device, in this precision, and its processor."""
    model, processor = built(name)
    return copy.deepcopy(model).to(DEVICE, dtype), processor


def pictures(name: str, count: int = 2) -> list[list[Any]]:
    """Prompts of one picture each, of the family's sizes by turns."""
    sizes = list(CASES[name].views)
    return [[picture(sizes[i % len(sizes)], i)] for i in range(count)]


def eager_maps(model: Any, batch: dict[str, Any]) -> Tensor:
    """Reference: eager attention, mean over heads, [B, L, S, S] in float32."""
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    with torch.no_grad():
        maps = twin(**batch, output_attentions=True).attentions
    return torch.stack([one.float() for one in maps], 1).mean(2)


# ---- attention -----------------------------------------------------------------------------------


@BOTH
@FAMILIES
def test_capture_equals_eager_and_output_equals_sdpa(name, dtype):
    model, _ = on_device(name, dtype)
    answers = [" " + " ".join(ANSWER.split()[:n]) for n in (6, 9)]
    batch = inputs(name, pictures(name), answers, "right").to(DEVICE, dtype)
    columns_BN = layout_of(model, batch).columns_BN
    ends_B = batch["attention_mask"].cumsum(1).argmax(1)
    rows_BR = ends_B[:, None] - torch.arange(5, -1, -1, device=DEVICE)
    capture = RowCapture(rows_BR, columns_BN)
    plain = model(**batch).logits
    with observed(model, capture):  # with gradients, as in training: a kernel depends on them
        assert torch.equal(model(**batch).logits, plain)
    maps_BLSS, seen_BLRN = eager_maps(model, batch), capture.stacked().float().detach()
    for b, row in enumerate(columns_BN):
        wanted = maps_BLSS[b][:, rows_BR[b]][:, :, row[row >= 0]]
        torch.testing.assert_close(seen_BLRN[b][:, :, row >= 0], wanted, **TOLERANCE[dtype])


# ---- generation ----------------------------------------------------------------------------------


@BOTH
@FAMILIES
def test_decoded_maps_equal_teacher_forced_eager(name, dtype):
    (model, processor), K = on_device(name, dtype), 3
    decoding = Decoding(anchor_tokens=K, max_new_tokens=5, similarity=True)
    answers = answer(model, processor, pictures(name), QUESTIONS, decoding)
    batch = prompt_inputs(model, processor, pictures(name), QUESTIONS)
    start, tokens_BT = batch["input_ids"].shape[1], answers.tokens_BT
    batch["input_ids"] = torch.cat([batch["input_ids"], tokens_BT], 1)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones_like(tokens_BT)], 1)
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in batch:
            generated = torch.full_like(tokens_BT, name == "paligemma")
            batch[key] = torch.cat([batch[key], generated], 1)
    maps_BLSS = eager_maps(model, batch)
    for b, row in enumerate(answers.layout.columns_BN):
        wanted = maps_BLSS[b][:, start - 1 : start - 1 + K][:, :, row[row >= 0]].transpose(0, 1)
        seen = answers.first_BKLN[b][:, :, row >= 0].float()
        torch.testing.assert_close(seen, wanted, **TOLERANCE[dtype])
    own = maps_BLSS[:, :, start - 1 : -1, start:].sum(-1).transpose(1, 2)
    torch.testing.assert_close(answers.prelim_BTL, own, **TOLERANCE[dtype])
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
    wanted = similarities([one.float() for one in states], answers.layout, start)
    torch.testing.assert_close(answers.similarity_BTPM, wanted, **TOLERANCE[dtype])


@BOTH
@FAMILIES
def test_watching_changes_no_token_and_steering_moves_attention(name, dtype):
    model, processor = on_device(name, dtype)

    def run(steer: SteerConfig | None = None) -> Any:
        decoding = Decoding(anchor_tokens=2, max_new_tokens=6, steer=steer)
        return answer(model, processor, pictures(name), QUESTIONS, decoding)

    batch = prompt_inputs(model, processor, pictures(name), QUESTIONS)
    start = batch["input_ids"].shape[1]
    plain = model.generate(**batch, max_new_tokens=6, do_sample=False)[:, start:]
    off = ALWAYS.model_copy(update={"alpha": 0.0})
    watched, steered = run(), run(ALWAYS)
    assert torch.equal(watched.tokens_BT, plain) and torch.equal(run(off).tokens_BT, plain)
    assert steered.fired_BTL[:, 2:].any() and not steered.fired_BTL[:, :2].any()
    assert not torch.equal(steered.mass_BTL[:, 2], watched.mass_BTL[:, 2])


@FAMILIES
def test_eight_answers_at_once_are_eight_alone(name):
    model, processor = on_device(name)
    asked, shown = [QUESTIONS[i % 2] for i in range(8)], pictures(name, 8)
    decoding = Decoding(anchor_tokens=2, max_new_tokens=8)
    together = answer(model, processor, shown, asked, decoding)
    for i in range(8):
        alone = answer(model, processor, shown[i : i + 1], asked[i : i + 1], decoding)
        assert alone.texts == together.texts[i : i + 1]
        length = int(alone.mask_BT.sum())
        assert length == int(together.mask_BT[i].sum())
        torch.testing.assert_close(
            alone.mass_BTL[0, :length], together.mass_BTL[i, :length], atol=1e-5, rtol=1e-4
        )


# ---- preference training -------------------------------------------------------------------------


def moved_to_device(batch: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Tensors on the device, the floating ones in this precision."""
    return {
        key: value.to(DEVICE, dtype if value.is_floating_point() else value.dtype)
        for key, value in batch.items()
    }


@BOTH
@pytest.mark.parametrize("name", sorted(CASES.keys() - APART))
def test_shared_prompts_change_no_log_probability(name, dtype):
    model, _ = on_device(name, dtype)
    add_fused_lm_head(model)
    batch = moved_to_device(batch_of(name, model, rows(name)), dtype)
    assert prefix.cannot_share(model, batch) is None
    with torch.no_grad():
        shared, apart = (
            outputs(way, model, batch).log_probs.float()
            for way in (prefix.pair_forward, prefix.apart_forward)
        )
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(shared, apart, atol=tolerance, rtol=tolerance)


def trainer(name: str, folder: Any, weights: Weights, bf16: bool, **options: Any) -> AdaptTrainer:
    """Of the family's model, in float32; with `bf16` its passes compute in bfloat16."""
    model, processor = copy.deepcopy(built(name)[0]), built(name)[1]
    arguments = {"use_cpu": DEVICE == "cpu", "bf16": bf16, "save_strategy": "no"}
    return AdaptTrainer(
        model=model,
        args=config(folder, per_device_train_batch_size=3, **arguments, **options),
        data_collator=collator(processor, model),
        weights=weights,
        anchor_tokens=2,
        train_dataset=Dataset.from_list(rows(name), features=FEATURES),
        processing_class=processor,
        attn_layers="all",
        cache=ReferenceCache(uri=str(folder / "reference"), base=f"{name} {bf16}"),
    )


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@FAMILIES
def test_a_step_of_the_whole_loss_moves_decoder_and_projector(name, bf16, tmp_path):
    options = {"bf16": bf16, "learning_rate": 1e-2}
    ours = trainer(name, tmp_path, Weights(vag=1.0, dpo=0.5, sft=1.0, attn=0.1), **options)
    before = {key: p.detach().cpu().clone() for key, p in ours.model.named_parameters()}
    assert 0 < ours.train().training_loss < 1e3
    roles = role_of_parameters(ours.model)
    now = {key: p.detach().cpu() for key, p in ours.model.named_parameters()}
    assert {p.dtype for p in now.values()} == {torch.float32}
    assert {"decoder", "projector"} <= {roles[k] for k, p in now.items() if not p.equal(before[k])}


MIB = 2**20
SHAPES = ((6 * MIB,), (1024, 4096), (512, 4096), (33, 7))  # the smallest one has no page of 4 KiB


def updated(kind: type[torch.optim.AdamW]) -> tuple[Any, list[Tensor], int]:
    """An optimizer after three steps, weights and moments on the CPU, and the GPU's memory that the
    steps have taken beside weights and gradients.
    """
    torch.manual_seed(1)
    made = [torch.nn.Parameter(torch.randn(shape, device=DEVICE)) for shape in SHAPES]
    for each in made:
        each.grad = torch.empty_like(each)
    groups = [{"params": made[:2], "weight_decay": 0.3}, {"params": made[2:], "lr": 1e-2}]
    before, optimizer = used(), kind(groups, lr=1e-3, fused=True)
    for _ in range(3):
        for each in made:
            each.grad.normal_()
        optimizer.step()
    taken = used(most=True) - before
    moments = [optimizer.state[each][name] for each in made for name in MOMENTS]
    return optimizer, [each.detach().cpu() for each in made + moments], taken


def test_moments_in_main_memory_change_no_bit_and_leave_room():
    plain, expected, most = updated(torch.optim.AdamW)
    moved, found, least = updated(OffloadedAdamW)
    assert all(one.equal(other) for one, other in zip(expected, found, strict=True))
    # 1. They are in locked pages, and those of one tensor are all that the GPU sees at once.
    states = [*moved.state.values()]
    moments = [state[name] for state in states for name in MOMENTS]
    assert all(each.device.type == "cpu" for each in moments)
    assert all(each.is_pinned() == (DEVICE == "cuda") for each in moments)
    if DEVICE == "cuda":
        assert most >= 2 * 48 * MIB and least <= 2 * 24 * MIB + MIB
    # 2. What is taken over from AdamW is in main memory again; the pages from before may go.
    moved.load_state_dict(plain.state_dict())
    del states, moments
    gc.collect()
    for optimizer in (plain, moved):
        for each in (w for group in optimizer.param_groups for w in group["params"]):
            each.grad.fill_(0.5)
        optimizer.step()
    for one, other in zip(plain.state.values(), moved.state.values(), strict=True):
        assert one.keys() == other.keys() and one["step"].device == other["step"].device
        assert all(one[name].cpu().equal(other[name].cpu()) for name in one)
        assert all(other[name].device.type == "cpu" for name in MOMENTS)


def used(most: bool = False) -> int:
    """Bytes of the GPU's memory: now, or the most since that was asked; 0 of a CPU."""
    if DEVICE != "cuda":
        return 0
    torch.cuda.synchronize()
    if most:
        return torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_same_image_dpo_is_trls(name, tmp_path):
    ours = trainer(name, tmp_path / "ours", Weights(**{**NONE, "dpo": 1.0}), bf16=False)
    with torch.no_grad():
        for parameter in ours.model.parameters():  # or the loss would be log 2
            parameter.mul_(1.05)
    model, processor = copy.deepcopy(ours.model), built(name)[1]
    plain = collator(processor, model, guide=False)
    theirs = DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(built(name)[0]),
        args=config(tmp_path / "trl", use_cpu=DEVICE == "cpu"),
        data_collator=lambda made: prefix.twice(part(plain(made), guided=False)),
        train_dataset=Dataset.from_list(rows(name), features=FEATURES),
        processing_class=processor,
    )
    losses = []
    for one in (ours, theirs):
        batch = one._prepare_inputs(one.data_collator([*one.train_dataset]))
        losses.append(one.compute_loss(one.model, batch).item())
    assert abs(losses[1] - 0.6931) > 1e-3
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)
