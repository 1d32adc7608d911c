"""Build the trainer of one worker from a configuration, a base model and a file of pairs."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image
from peft import LoraConfig
from transformers import PrinterCallback
from transformers.utils import logging
from trl import DPOConfig

from adapt import environment
from adapt.models.load import load_model, load_processor
from adapt.preference.collate import GuidedCollator
from adapt.preference.pairs import read_pairs
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import Config
from adapt.preference.trainer import AdaptTrainer, Weights


def build_trainer(
    config: Config, base: Path, pairs: Path, cache: ReferenceCache, output: Path
) -> AdaptTrainer:
    """Model, data, collator, reference and TRL configuration of one worker."""
    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, environment.cpus() // config.processes))
    model, processor = load_model(base), load_processor(base)
    for name, parameter in model.named_parameters():
        # As LLaVA's own fine-tuning: the vision tower stays as it is.
        parameter.requires_grad_(not any(part in name for part in ("vision_tower", "visual.")))
    collator = GuidedCollator(processor=processor, noise=config.noise, guide=config.w_vag > 0)
    trainer = AdaptTrainer(
        model=model,
        args=_arguments(config, output),
        data_collator=collator,
        train_dataset=_dataset(pairs),
        processing_class=processor,
        peft_config=lora(config.lora_rank) if config.lora_rank else None,
        weights=Weights(vag=config.w_vag, dpo=config.w_dpo, sft=config.w_sft, attn=config.w_attn),
        anchor_tokens=config.anchor.anchor_tokens,
        attn_layers=config.attn_layers,
        cache=cache,
    )
    # It prints a dict of thirty metrics a step; `ReportCallback` prints what matters.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _dataset(pairs: Path) -> Dataset:
    """The pairs as TRL expects them: image, prompt, chosen and rejected turns."""
    rows = []
    for p in read_pairs(pairs):
        row: dict[str, Any] = {"id": p.id, "image": {"bytes": p.images[0], "path": None}}
        row["prompt"] = [{"role": "user", "content": p.question}]
        row["chosen"] = [{"role": "assistant", "content": p.chosen}]
        row["rejected"] = [{"role": "assistant", "content": p.rejected}]
        rows.append(row | {"anchor": list(p.anchor), "grid": list(p.grid)})
    return Dataset.from_list(rows).cast_column("image", Image())


def _arguments(config: Config, output: Path) -> DPOConfig:
    is_cuda, checkpointing = torch.cuda.is_available(), config.gradient_checkpointing
    has_bf16 = is_cuda and torch.cuda.is_bf16_supported()
    return DPOConfig(
        output_dir=str(output),
        max_steps=config.steps,
        per_device_train_batch_size=config.pass_pairs,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, config.steps // 20),
        beta=config.beta,
        loss_type=[config.loss_type],
        max_length=None,
        activation_checkpointing=checkpointing,
        # The other kind hides the attention of the forward pass.
        activation_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        seed=config.seed,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_steps=config.checkpoint_every,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not is_cuda,
        bf16=config.precision == "bf16" or (config.precision == "auto" and has_bf16),
        # Every trained parameter takes part in every pass.
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        ddp_backend="gloo" if config.processes > 1 and not is_cuda else None,
    )


def lora(rank: int) -> LoraConfig:
    """LoRA on the attention projections of the language model."""
    projections = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)"
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=projections)
