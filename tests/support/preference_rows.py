"""Preference pairs about pictures of noise, as a file for `fit` and as rows for a trainer; settings
and trainers for them.
"""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from trl import DPOConfig, DPOTrainer

from adapt.attention.support import SIDE
from adapt.data.schema import Example, Turn
from adapt.models.load import load_model
from adapt.models.prompts import end_tokens, prompt_version
from adapt.pairs.table import Origin, Pair, PairView
from adapt.params import load
from adapt.preference.collate import GUIDED, REFERENCE, GuidedCollator, part
from adapt.preference.dataset import FEATURES, dataset
from adapt.preference.prefix import twice
from adapt.preference.reference import ReferenceCache
from adapt.preference.rehearsal import PlainCollator, Rehearsal
from adapt.preference.settings import AttnTarget, Config, VagForm
from adapt.preference.targets import BoxTargets
from adapt.preference.trainer import AdaptTrainer, Weights
from tests.support import tiny_world

ANCHOR = {"anchor_tokens": 3, "noise_images": 2}
TRAIN = dict(
    workers=0,
    shard="none",
    max_failures=1,
    wait_minutes=1,
    batch_pairs=4,
    accumulation=1,
    steps=6,
    optimizer="adamw",
    offload="none",
    learning_rate=1e-3,
    beta=0.5,
    loss_type="sigmoid",
    w_vag=1.0,
    vag_form="paper",
    w_dpo=0.5,
    w_sft=1.0,
    w_anchor=0.0,
    w_attn=0.1,
    attn_layers="all",
    attn_target="early",
    span_weight=1.0,
    w_keep=0.0,
    keep_form="sft",
    keep_rows=4,
    noise=0.3,
    tower="frozen",
    tower_learning_rate=1e-3,
    lora=dict(rank=0, alpha=0.0, dropout=0.0, targets="all", bits=16),
    precision="auto",
    save_dtype="auto",
    gradient_checkpointing=False,
    checkpoint_every=3,
    validation=0,
    log_every=1,
)
NONE = dict.fromkeys(("vag", "dpo", "sft", "anchor", "attn"), 0.0)


def lora(rank: int = 2, **changes: Any) -> dict[str, Any]:
    """The section `train.lora`."""
    return {**TRAIN["lora"], "rank": rank, **changes}


def settings(anchor: dict[str, int] = ANCHOR, **changes: Any) -> Config:
    """The train section for `pairs`, checked as that of a params.yaml is."""
    shared = {"anchor": anchor, "device": "cpu", "max_new_tokens": 8, "seed": 1}
    return load({"train": TRAIN | changes, **shared}, "train", Config)


# ---- the pair file -------------------------------------------------------------------------------


def pairs(count: int) -> list[Pair]:
    """The two answers of `tiny_world` by turns, each with an anchor on another patch."""
    return [
        Pair(
            id=f"row-{i}",
            kind="describe",
            images=(_png(i),),
            question=tiny_world.QUESTIONS[i % 2],
            chosen=tiny_world.ANSWERS[i % 2],
            rejected=tiny_world.ANSWERS[(i + 1) % 2],
            chosen_score=1.0,
            rejected_score=0.0,
            anchor=tuple(float(k == i % 16) + 0.1 for k in range(16)),
            views=(PairView(image=0, kind="whole", rows=4, columns=4),),
            support=(support(i),),
        )
        for i in range(count)
    ]


def spanned(made: list[Pair]) -> list[Pair]:
    """Those of `pairs` with what decides: a red car and a blue house; the first "no"."""
    spans = {tiny_world.ANSWERS[0]: ((2, 9), (13, 23)), tiny_world.ANSWERS[1]: ((0, 2),)}
    return [
        changed(row, chosen_spans=spans[row.chosen], rejected_spans=spans[row.rejected])
        for row in made
    ]


def origin() -> Origin:
    return Origin(prompt=prompt_version(tiny_world.processor()), model_type="llava")


def support(patch: int) -> bytes:
    """A map that is full at one patch of 4 x 4 and 9 % elsewhere."""
    values, side = np.full((SIDE, SIDE), 23, np.uint8), SIDE // 4
    y, x = divmod(patch % 16, 4)
    values[y * side : (y + 1) * side, x * side : (x + 1) * side] = 255
    return values.tobytes()


def _png(seed: int) -> bytes:
    return png(tiny_world.picture(seed))


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def changed(pair: Pair, **changes: Any) -> Pair:
    return dataclasses.replace(pair, **changes)


def plain_rows(count: int) -> list[Example]:
    """Rows with one answer about pictures that no pair has, every third one with a turn before."""
    before = (Turn(question=tiny_world.QUESTIONS[0], answer="a tree."),)
    return [
        Example(
            id=f"plain-{i}",
            image_id=str(100 + i),
            images=(_png(100 + i),),
            kind="exists",
            history=() if i % 3 else before,
            question=tiny_world.QUESTIONS[1],
            answer=tiny_world.ANSWERS[1] if i % 2 else "yes, a red car.",
            objects=None,
            absent=None,
        )
        for i in range(count)
    ]


def rehearsal(rows: Sequence[Example], count: int = 4, **options: Any) -> Rehearsal:
    ends = end_tokens(tiny_world.model(), tiny_world.processor())
    collate = PlainCollator(processor=tiny_world.processor(), ends=ends)
    return Rehearsal(**{"rows": rows, "collate": collate, "count": count, "seed": 1} | options)


# ---- trainers ------------------------------------------------------------------------------------


def rows() -> list[dict[str, Any]]:
    return [{**row} for row in data_of(pairs(4))]


def held(made: list[dict[str, Any]]) -> Dataset:
    """Rows in a data set that has them in memory."""
    return Dataset.from_list([{k: row[k] for k in FEATURES} for row in made], features=FEATURES)


def data_of(made: list[Pair]) -> Dataset:
    return dataset(made, [pair.id for pair in made])


def collator(processor: Any = None, model: Any = None, **options: Any) -> GuidedCollator:
    processor = processor or tiny_world.processor()
    ends = end_tokens(model or tiny_world.model(), processor)
    return GuidedCollator(processor=processor, ends=ends, **{"noise": 0.3} | options)


def box_targets(processor: Any = None, model: Any = None) -> BoxTargets:
    processor, model = processor or tiny_world.processor(), model or tiny_world.model()
    return BoxTargets(config=model.config, processor=processor, ends=end_tokens(model, processor))


def config(tmp_path: Path, **changes: Any) -> DPOConfig:
    arguments = dict(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        beta=0.5,
        report_to=[],
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        remove_unused_columns=False,
        max_length=None,
        max_steps=1,
    )
    return DPOConfig(**{**arguments, **changes})


def perturbed(base: str) -> Any:
    """The policy a few steps away from the reference, so that the loss is not log 2."""
    model = load_model(base)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def trl_trainer(base: str, tmp_path: Path, **changes: Any) -> DPOTrainer:
    """TRL's own, on the tensors of our batches: a sequence and its pictures for each answer."""
    ours = collator(guide=False)
    return DPOTrainer(
        model=perturbed(base),
        args=config(tmp_path, **changes),
        data_collator=lambda rows: twice(part(ours(rows), guided=False)),
        train_dataset=data_of(pairs(4)),
        processing_class=tiny_world.processor(),
    )


def adapt_trainer(
    base: str,
    tmp_path: Path,
    weights: Weights,
    *,
    data: list[dict[str, Any]] | Dataset | None = None,
    digest: str = "base",
    noise: float = 0.3,
    form: VagForm = "paper",
    size: int = 4,
    span_weight: float = 1.0,
    rehearsal: Rehearsal | None = None,
    attn_target: AttnTarget = "early",
    **changes: Any,
) -> AdaptTrainer:
    """Its reference is the base, its policy a few steps away."""
    aim = box_targets() if attn_target == "boxes" else None
    return AdaptTrainer(
        model=perturbed(base),
        ref_model=load_model(base),
        args=config(tmp_path, per_device_train_batch_size=size, **changes),
        data_collator=collator(noise=noise, form=form, span_weight=span_weight, aim=aim),
        weights=weights,
        rehearsal=rehearsal,
        attn_target=attn_target,
        anchor_tokens=2,
        train_dataset=held(data) if isinstance(data, list) else data or data_of(pairs(4)),
        processing_class=tiny_world.processor(),
        attn_layers="all",
        cache=ReferenceCache(uri=str(tmp_path / "reference"), base=digest),
    )


def batch_of(trainer: Any, *, equal_images: bool = False) -> dict[str, Any]:
    batch = dict(trainer.data_collator([*trainer.train_dataset]))
    if equal_images:
        batch[f"{GUIDED}pixel_values"] = batch["pixel_values"].repeat(2, 1, 1, 1)
        batch |= {GUIDED + name: batch[name] for name in REFERENCE}
    return batch


def loss_of(trainer: Any, **options: bool) -> torch.Tensor:
    trainer.model.train()
    return trainer.compute_loss(trainer.model, batch_of(trainer, **options))


def gradients(trainer: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
