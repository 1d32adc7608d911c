"""Build the trainer of one worker from a configuration, a base model and a file of pairs."""

from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from transformers.utils import logging
from trl import DPOConfig
from trl.trainer.utils import disable_dropout_in_model

from adapt import environment
from adapt.data.tables import read_split
from adapt.models.load import load_model, load_processor
from adapt.models.prompts import end_tokens
from adapt.models.roles import Role, role_of_parameters
from adapt.pairs.table import read_ids, read_pairs
from adapt.preference import adapters, optimizers, parts
from adapt.preference.collate import GuidedCollator
from adapt.preference.dataset import dataset
from adapt.preference.precision import base_dtype, computes_in_bf16, let_copies_go
from adapt.preference.reference import ReferenceCache
from adapt.preference.rehearsal import PlainCollator, Rehearsal
from adapt.preference.settings import Config
from adapt.preference.targets import BoxTargets
from adapt.preference.trainer import AdaptTrainer, Weights
from adapt.preference.validation import Validation


def build_trainer(
    config: Config,
    device: torch.device,
    base: Path,
    pairs: Path,
    cache: ReferenceCache,
    output: Path,
    plain: Path | None = None,
    validation: Validation | None = None,
) -> tuple[AdaptTrainer, parts.Parts]:
    """Model, data, collator, reference and TRL configuration of one worker; and what it trains.

    `plain`: the file of plain rows, where `w_keep` is above 0. `validation`: see `StepTrainer`.
    """
    logging.disable_progress_bar()
    # Ray gives a worker's process one thread. The stage's own process has what it was given.
    if device.type == "cpu" and config.workers:
        torch.set_num_threads(max(1, environment.cpus() // config.processes))
    model, processor = _load(config, base, device), load_processor(base)
    weights, ends = Weights.of(config), end_tokens(model, processor)
    roles, lora = _prepare(config, model)
    trainer = AdaptTrainer(
        model=model,
        args=arguments(config, device, output),
        data_collator=_collator(config, model, processor, ends),
        train_dataset=dataset(read_pairs(pairs), read_ids(pairs)),
        processing_class=processor,
        peft_config=lora,
        weights=weights,
        rehearsal=_rehearsal(config, processor, ends, plain),
        validation=validation,
        anchor_tokens=config.anchor.anchor_tokens,
        attn_layers=config.attn_layers,
        attn_target=config.attn_target,
        cache=cache,
        shard=config.shard == "fsdp",
        offload=config.offload == "optimizer",
    )
    adapters.hold_in_float32(trainer.model)
    # It prints a dict of thirty metrics a step; `ReportCallback` prints what matters.
    trainer.remove_callback(PrinterCallback)
    return trainer, parts.describe(trainer, roles, config)


def _collator(config: Config, model: Any, processor: Any, ends: tuple[int, ...]) -> GuidedCollator:
    return GuidedCollator(
        processor=processor,
        ends=ends,
        noise=config.noise,
        guide="guided" in Weights.of(config).passes(),
        form=config.vag_form,
        span_weight=config.span_weight,
        aim=_aim(config, model, processor, ends),
    )


def _rehearsal(
    config: Config, processor: Any, ends: tuple[int, ...], plain: Path | None
) -> Rehearsal | None:
    """The plain rows of a run that keeps what the base knew."""
    if config.w_keep == 0:
        return None
    assert plain is not None, "w_keep is above 0"
    return Rehearsal(
        rows=read_split(plain),
        collate=PlainCollator(processor=processor, ends=ends),
        count=config.keep_rows,
        seed=config.seed,
        form=config.keep_form,
    )


def _aim(config: Config, model: Any, processor: Any, ends: tuple[int, ...]) -> BoxTargets | None:
    """What makes targets of boxes, where these supervise attention."""
    if config.attn_target != "boxes" or config.w_attn == 0:
        return None
    return BoxTargets(config=model.config, processor=processor, ends=ends)


def _load(config: Config, base: Path, device: torch.device) -> Any:
    """The base as it is trained; without dropout, as TRL has it, but for that of adapters."""
    if config.lora.bits == 4:
        model = adapters.load_nf4(base)
    else:
        place = torch.device("cpu") if config.shard == "fsdp" else device
        model = load_model(base, place, base_dtype(config, base, device))
    disable_dropout_in_model(model)
    if computes_in_bf16(config, device):
        let_copies_go(model)
    return model


def _prepare(config: Config, model: Any) -> tuple[dict[str, Role], Any]:
    """Who is who in the base, and the adapters that TRL is to add, or None."""
    if config.lora.rank == 0:
        return parts.free(model, config), None
    return role_of_parameters(model), adapters.lora(model, config.lora, config.tower)


def arguments(config: Config, device: torch.device, output: Path) -> DPOConfig:
    """TRL's configuration of one process on one device."""
    checkpointing = config.checkpointing
    made = DPOConfig(
        output_dir=str(output),
        max_steps=config.steps,
        per_device_train_batch_size=config.pass_pairs,
        gradient_accumulation_steps=config.passes,
        **optimizers.arguments(config),
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, config.steps // 20),
        beta=config.beta,
        loss_type=[*config.loss_mix],
        loss_weights=[*config.loss_mix.values()],
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
