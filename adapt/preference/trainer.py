"""TRL's `DPOTrainer` with the ADAPT loss: attention seen during its forward, one more at most.

A step makes one pass over the plain images and, for VAG-DPO, one over the guided ones. Each pass is
a forward and its backward, so that the activations of one pass alone are in memory:

* plain: same-image DPO is TRL's own loss, with every metric of TRL's, of a forward in which both
  answers share their prompt (`adapt/preference/prefix.py`); SFT and attention supervision look at
  the chosen half of the same forward. Without same-image DPO the rejected half is not computed.
* guided: VAG-DPO.

There is no second model: before the first step the policy is its own reference, whose values are
kept (`adapt/preference/reference.py`). With `w_vag = w_attn = w_sft = 0` every number is TRL's.

Shapes: B pairs, S sequence, R response tokens, N image tokens, L layers.
"""

import copy
import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object, is_peft_model
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import RandomSampler
from trl import DPOTrainer

from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import image_columns
from adapt.attention.settings import Layers
from adapt.models.load import load_model
from adapt.names import one_line
from adapt.preference import reference
from adapt.preference.collate import (
    ANCHOR,
    FLAT,
    IDS,
    PASS,
    REFERENCE,
    chosen_half,
    part,
    response_rows,
)
from adapt.preference.dataset import with_columns
from adapt.preference.head import check_head
from adapt.preference.losses import (
    Metrics,
    Weights,
    attention_supervision,
    displacement,
    dpo,
    sft,
)
from adapt.preference.prefix import apart_forward, cannot_share, pair_forward

Way = Callable[..., Any]


class AdaptTrainer(DPOTrainer):
    """Expects batches of `GuidedCollator`.

    Args:
        weights: of the loss terms; that of same-image DPO multiplies TRL's loss, whose own weights
            are left alone.
        anchor_tokens: K, the tokens that the anchor is read from.
        attn_layers: supervised decoder layers.
        cache: where reference log-probabilities are kept; what is missing is computed here, with
            progress.
        ref_model: None for the policy itself as it is now, or with LoRA without its adapter.
    """

    train_dataset: Dataset
    ref_model: nn.Module | None

    def __init__(
        self,
        *args: Any,
        weights: Weights,
        anchor_tokens: int,
        attn_layers: Layers,
        cache: reference.ReferenceCache,
        model: nn.Module,
        ref_model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        if ref_model is None and kwargs.get("peft_config") is None and not is_peft_model(model):
            # Asked for none, TRL would load the model's folder once more. This is another name for
            # the same weights.
            ref_model = copy.copy(model)
        super().__init__(*args, model=model, ref_model=ref_model, **kwargs)
        self._said: str | None = None  # why prompts are not shared
        check_head(self)
        self.weights, self.anchor_tokens, self.attn_layers = weights, anchor_tokens, attn_layers
        self._step: list[tuple[list[str], Tensor]] = []  # the rows and the loss of each part of it
        source = reference.Source(
            rows=self.train_dataset,
            collate=self.data_collator,
            batch_size=self.args.per_device_train_batch_size,
            log_probs=self._reference_log_probs,
            accelerator=self.accelerator,
            weights=f"{self.model.dtype} {getattr(self.model, 'quantization_method', None) or ''}",
        )
        columns = reference.columns(source, cache, guided=weights.vag > 0)
        self.train_dataset = with_columns(self.train_dataset, columns)
        self.precompute_ref_logps = True  # TRL's name for: take them from the batch
        if self.ref_model is not None:
            self.accelerator._models.remove(self.ref_model)  # or its memory stays taken
            self.ref_model = None

    # ---- the loss ------------------------------------------------------------------------------

    def _compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool
    ) -> Tensor:
        """L_ADAPT = w_vag L_VAG + w_dpo L_DPO + w_sft L_SFT + w_attn L_attn: docs/method.md, 4.

        Where the inputs name a pass, the sum of the terms of that one.
        """
        assert not return_outputs, "TRL would recompute the logits for it"
        passes = (inputs[PASS],) if PASS in inputs else self.weights.passes()
        B, anchor_BN = len(inputs[IDS]), inputs[ANCHOR]
        terms: dict[str, Tensor] = {}
        if "plain" in passes:
            batch = part(inputs, guided=False)
            outputs, capture = self._plain_forward(model, batch)
            if self.weights.dpo > 0:
                # TRL's own equation and metrics, of the forward that has been made.
                terms["dpo"] = super()._compute_loss(lambda **_: outputs, batch, False)
            chosen_BR = outputs.log_probs[:B]
            # Also with weight 0: data-parallel training expects every parameter to take part.
            terms["sft"] = sft(chosen_BR, batch["completion_mask"][:B, 1:] > 0)
            self._note("sft", {"loss": terms["sft"]})
            self._note("chosen", displacement(chosen_BR.sum(1), batch[REFERENCE[0]]))
            if capture is not None:
                maps_BLRN, real_BR, K = capture.stacked(), capture.rows_BR >= 0, self.anchor_tokens
                terms["attn"], metrics = attention_supervision(maps_BLRN, real_BR, anchor_BN, K)
                self._note("attn", {"loss": terms["attn"], **metrics})
        if "guided" in passes:
            batch = part(inputs, guided=True)
            chosen_B, rejected_B = self._outputs(model, batch).log_probs.sum(1).chunk(2)
            ref_w_B, ref_l_B = (batch[name] for name in REFERENCE)
            terms["vag"], metrics = dpo(chosen_B, rejected_B, ref_w_B, ref_l_B, self.beta)
            metrics |= {"loss": terms["vag"], "flat_anchors": inputs[FLAT].float().mean()}
            self._note("vag", metrics)
        return sum(getattr(self.weights, name) * term for name, term in terms.items())

    def _plain_forward(
        self, model: nn.Module, batch: dict[str, Any]
    ) -> tuple[Any, RowCapture | None]:
        """Outputs of the answers that a term asks for; the chosen ones' attention if supervised."""
        chosen = chosen_half(batch)
        needed, way = (batch, self._way(batch)) if self.weights.dpo > 0 else (chosen, None)
        if self.weights.attn == 0:
            return self._outputs(model, needed, way), None
        columns_BN = image_columns(chosen["input_ids"], self.model.config.image_token_id)
        rows_BR = response_rows(chosen["completion_mask"])
        capture = RowCapture(rows_BR, columns_BN, self.attn_layers)
        with observed(model, capture):
            return self._outputs(model, needed, way), capture

    def _outputs(self, model: nn.Module, batch: dict[str, Any], way: Way | None = None) -> Any:
        """What TRL's fused head says of each response token, 0 elsewhere: [rows, S - 1].

        `way`: for rows of pairs whose pictures are there once.
        """
        inputs = {k: v for k, v in batch.items() if k not in ("completion_mask", *REFERENCE)}
        inputs["labels"] = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        inputs |= {"use_cache": False, "fused_lm_head": True}
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True  # TRL's loss takes the auxiliary one from them
        return model(**inputs) if way is None else way(model, **inputs)

    def _way(self, batch: dict[str, Any]) -> Way:
        """How both answers of each pair are computed; says once why not behind one prompt."""
        reason = cannot_share(self.model, batch)
        if self.aux_loss_enabled:
            reason = "its auxiliary loss is a mean over all positions, also those left out"
        if reason is not None and self._said is None and self.is_world_process_zero():
            self._said = reason
            print(
                one_line(f"train: every prompt is computed for each answer: {reason}"),
                file=sys.stderr,
            )
        return pair_forward if reason is None else apart_forward

    def _reference_log_probs(self, batch: dict[str, Any], guided: bool) -> tuple[Tensor, Tensor]:
        """Of the chosen and the rejected answers, [B] each, by TRL's own function.

        With LoRA the reference is the model without its adapter.
        """
        batch = self._prepare_inputs(part(batch, guided))
        model = self.model if self.ref_model is None else self.ref_model
        # TRL calls the model itself, without gradients and without the adapter.
        called = model if guided else partial(self._way(batch), model)
        return self.compute_ref_log_probs(called, batch)

    def _note(self, term: str, metrics: Metrics) -> None:
        """Collect metrics for the next log line, averaged over workers as TRL does with its own."""
        values_1M = torch.stack([value.detach().float() for value in metrics.values()])[None]
        means = self.accelerator.gather(values_1M).mean(0).tolist()
        collected = self._metrics["train" if self.model.training else "eval"]
        for key, value in zip(metrics, means, strict=True):
            collected[f"{term}/{key}"].append(value)

    # ---- a step --------------------------------------------------------------------------------

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """One forward and backward for each pass; workers exchange gradients after the last."""
        passes, loss = self.weights.passes(), torch.zeros((), device=self.args.device)
        for name in passes:
            one = {**inputs, PASS: name}
            with nullcontext() if name == passes[-1] else self.accelerator.no_sync(model):
                loss = loss + super().training_step(model, one, num_items_in_batch)
        self._step.append((inputs[IDS], loss))
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Stops before an update that is not finite, so that no checkpoint has seen one.

        All workers have the same gradients here and stop together.
        """
        norm = super()._clip_grad_norm(model)
        step, self._step = self._step, []
        if not torch.isfinite(torch.as_tensor(norm)):
            self._stop(step)
        return norm

    def _stop(self, step: list[tuple[list[str], Tensor]]) -> None:
        parts = gather_object([(ids, loss.item()) for ids, loss in step])
        bad = [(ids, loss) for ids, loss in parts if not math.isfinite(loss)]
        problem = f"the loss is {bad[0][1]}" if bad else "the gradients are not finite"
        rows = ", ".join(row for ids, _ in bad or parts for row in ids)
        number = self.state.global_step + 1
        raise FloatingPointError(f"{problem} at step {number}, in the rows {rows}")

    def _get_train_sampler(self, train_dataset: Any = None) -> RandomSampler:
        """Whole steps only: the rows left over in an epoch would make a step of fewer pairs."""
        args = self.args
        pairs = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        rows = self.train_dataset if train_dataset is None else train_dataset
        return RandomSampler(rows, num_samples=max(len(rows) // pairs, 1) * pairs)

    # ---- checkpoints ---------------------------------------------------------------------------

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Resume from the weights of a checkpoint, whatever names they were saved under.

        transformers compares the file's keys with the model's and only warns when none fits; LLaVA
        and others are saved under older names, so that a resumed run would silently go on from the
        base weights.
        """
        if is_peft_model(self.model):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        model = self.model if model is None else model
        model.load_state_dict(load_model(Path(resume_from_checkpoint)).state_dict())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints are runtime state, not a release: no card."""
