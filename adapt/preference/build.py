"""Build the trainer of one worker from a configuration, a base model and a file of pairs."""

from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from transformers.utils import logging
from trl import DPOConfig
from trl.trainer.utils import disable_dropout_in_model

from adapt import environment
from adapt.models.load import load_model, load_processor
from adapt.models.prompts import end_tokens
from adapt.models.roles import Role, role_of_parameters
from adapt.preference import adapters, parts
from adapt.preference.collate import GuidedCollator
from adapt.preference.dataset import dataset
from adapt.preference.pairs import read_ids, read_pairs
from adapt.preference.precision import base_dtype, computes_in_bf16
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import Config
from adapt.preference.trainer import AdaptTrainer, Weights


def build_trainer(
    config: Config,
    device: torch.device,
    base: Path,
    pairs: Path,
    cache: ReferenceCache,
    output: Path,
) -> tuple[AdaptTrainer, parts.Parts]:
    """Model, data, collator, reference and TRL configuration of one worker; and what it trains."""
    logging.disable_progress_bar()
    if device.type == "cpu":
        torch.set_num_threads(max(1, environment.cpus() // config.processes))
    model, processor = _load(config, base, device), load_processor(base)
    ends, guide = end_tokens(model, processor), config.w_vag > 0
    collator = GuidedCollator(processor=processor, ends=ends, noise=config.noise, guide=guide)
    roles, lora = _prepare(config, model)
    trainer = AdaptTrainer(
        model=model,
        args=arguments(config, device, output),
        data_collator=collator,
        train_dataset=dataset(read_pairs(pairs), read_ids(pairs)),
        processing_class=processor,
        peft_config=lora,
        weights=Weights(vag=config.w_vag, dpo=config.w_dpo, sft=config.w_sft, attn=config.w_attn),
        anchor_tokens=config.anchor.anchor_tokens,
        attn_layers=config.attn_layers,
        cache=cache,
    )
    adapters.hold_in_float32(trainer.model)
    # It prints a dict of thirty metrics a step; `ReportCallback` prints what matters.
    trainer.remove_callback(PrinterCallback)
    return trainer, parts.describe(trainer, roles, config)


def _load(config: Config, base: Path, device: torch.device) -> Any:
    """The base as it is trained; without dropout, as TRL has it, but for that of adapters."""
    if config.lora.bits == 4:
        model = adapters.load_nf4(base)
    else:
        model = load_model(base, device, base_dtype(config, base, device))
    disable_dropout_in_model(model)
    return model


def _prepare(config: Config, model: Any) -> tuple[dict[str, Role], Any]:
    """Who is who in the base, and the adapters that TRL is to add, or None."""
    if config.lora.rank == 0:
        return parts.free(model, config), None
    return role_of_parameters(model), adapters.lora(model, config.lora, config.tower)


def arguments(config: Config, device: torch.device, output: Path) -> DPOConfig:
    """TRL's configuration of one process on one device."""
    checkpointing = config.gradient_checkpointing
    made = DPOConfig(
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
        # It would switch the adapters' off too; `_load` has done it for the rest.
        disable_dropout=False,
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
        use_cpu=device.type == "cpu",
        bf16=computes_in_bf16(config, device),
        # Every trained parameter takes part in every pass: adapt/preference/parts.py.
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        ddp_backend="gloo" if config.processes > 1 and device.type == "cpu" else None,
    )
    # With several GPUs transformers would divide every batch among all of them (DataParallel),
    # which TRL refuses. A process has one; `train.workers` is how to use more.
    if made.n_gpu > 1:
        made._n_gpu = 1
    return made
