"""TRL's `DPOTrainer` with the ADAPT loss: attention seen during its forward, one more at most.

A step makes one pass over the plain images and, where a term asks for it, one over the guided ones
and one over rows of other kinds. Each pass is a forward and its backward, so that the activations
of one pass alone are in memory:

* plain: same-image DPO is TRL's own loss, with every metric of TRL's, of a forward in which both
  answers share their prompt (`adapt/preference/prefix.py`); SFT, the anchored reward and attention
  supervision look at the chosen half of the same forward. Without same-image DPO the rejected half
  is not computed.
* guided: VAG-DPO, in the form of the collator's (`train.vag_form`): which answers and pictures its
  two halves are.
* kept: rows with one answer, which are no pairs (`adapt/preference/keeping.py`).

There is no second model: before the first step the policy is its own reference, whose values are
kept (`adapt/preference/reference.py`). With no other weight than `w_dpo`, every number is TRL's.

Shapes: B pairs, S sequence, R response tokens, N image tokens, L layers.
"""

import copy
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn

from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import image_columns
from adapt.attention.settings import Layers
from adapt.models.continued import response_rows
from adapt.names import one_line
from adapt.preference import reference
from adapt.preference.collate import (
    ANCHOR,
    FLAT,
    NOT_INPUTS,
    PASS,
    REFERENCE,
    TOKEN_WEIGHTS,
    chosen_half,
    part,
)
from adapt.preference.dataset import chosen, with_columns
from adapt.preference.head import check_head
from adapt.preference.keeping import KeepingTrainer
from adapt.preference.losses import Metrics, Weights, anchored, displacement, dpo, sft
from adapt.preference.prefix import apart_forward, cannot_share, pair_forward
from adapt.preference.settings import AttnTarget
from adapt.preference.spans import weighed
from adapt.preference.supervision import (
    anchor_supervision,
    attention_supervision,
    box_supervision,
)
from adapt.preference.targets import PRODUCERS, TARGETS

Way = Callable[..., Any]


class AdaptTrainer(KeepingTrainer):
    """Expects batches of `GuidedCollator`.

    Args:
        weights: of the loss terms; that of same-image DPO multiplies TRL's loss, whose own weights
            are left alone.
        anchor_tokens: K, the tokens that the anchor is read from.
        attn_layers: supervised decoder layers.
        attn_target: what their attention is held to; boxes need batches that have targets.
        cache: where reference log-probabilities are kept; what is missing is computed here, with
            progress.
        ref_model: None for the policy itself as it is now, or with LoRA without its adapter.
    """

    ref_model: nn.Module | None

    def __init__(
        self,
        *args: Any,
        weights: Weights,
        anchor_tokens: int,
        attn_layers: Layers,
        cache: reference.ReferenceCache,
        model: nn.Module,
        attn_target: AttnTarget = "early",
        ref_model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        if ref_model is None and kwargs.get("peft_config") is None and not is_peft_model(model):
            # Asked for none, TRL would load the model's folder once more. This is another name for
            # the same weights.
            ref_model = copy.copy(model)
        super().__init__(*args, weights=weights, model=model, ref_model=ref_model, **kwargs)
        self._said: str | None = None  # why prompts are not shared
        check_head(self)
        self.anchor_tokens, self.attn_layers = anchor_tokens, attn_layers
        self.attn_target = attn_target
        places = (
            self._drawn()
        )  # a forward for each row that is never trained on would be for nothing
        source = reference.Source(
            rows=chosen(self.train_dataset, places),
            collate=self.data_collator,
            batch_size=self.args.per_device_train_batch_size,
            log_probs=self._reference_log_probs,
            accelerator=self.accelerator,
            span_weight=self.data_collator.span_weight,
            weights=f"{self.model.dtype} {getattr(self.model, 'quantization_method', None) or ''}",
            form=self.data_collator.form,
        )
        columns = reference.columns(source, cache, guided=weights.vag > 0)
        self.train_dataset = with_columns(self.train_dataset, columns, places)
        self._learn(cache, source.weights)
        self.precompute_ref_logps = True  # TRL's name for: take them from the batch
        if self.ref_model is not None:
            self.accelerator._models.remove(self.ref_model)  # or its memory stays taken
            self.ref_model = None

    # ---- the loss ------------------------------------------------------------------------------

    def _compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool
    ) -> Tensor:
        """L_ADAPT, the weighted sum of the terms.

        docs/method.md, section 4. Where the inputs name a pass, the sum of the terms of that one.
        """
        assert not return_outputs, "TRL would recompute the logits for it"
        passes = (inputs[PASS],) if PASS in inputs else self.weights.passes()
        terms: dict[str, Tensor] = {}
        if "plain" in passes:
            batch = part(inputs, guided=False)
            outputs, capture = self._plain_forward(model, batch)
            if self.weights.dpo > 0:
                # TRL's own equation and metrics, of the forward that has been made.
                weighted = weighed(outputs, batch.get(TOKEN_WEIGHTS))
                terms["dpo"] = super()._compute_loss(lambda **_: weighted, batch, False)
            terms |= self._chosen_terms(outputs, batch)
            if capture is not None:
                terms["attn"] = self._attention_term(capture, inputs)
        if "guided" in passes:
            batch = part(inputs, guided=True)
            first_B, second_B = self._answers(self._outputs(model, batch), batch).chunk(2)
            ref_first_B, ref_second_B = (batch[name] for name in REFERENCE)
            terms["vag"], metrics = dpo(first_B, second_B, ref_first_B, ref_second_B, self.beta)
            if self.data_collator.form == "paper":
                metrics["flat_anchors"] = inputs[FLAT].float().mean()
            self._note("vag", {"loss": terms["vag"], **metrics})
        if "kept" in passes:
            terms["keep"] = self._kept_term(model)
        return sum(getattr(self.weights, name) * term for name, term in terms.items())

    def _chosen_terms(self, outputs: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms of the chosen answers' likelihood on the plain images.

        SFT is there with weight 0 too: data-parallel training expects every parameter to take part.
        """
        ref_B, B = batch[REFERENCE[0]], len(batch[REFERENCE[0]])
        chosen_B = self._answers(outputs, batch)[:B]
        terms = {"sft": sft(outputs.log_probs[:B], batch["completion_mask"][:B, 1:] > 0)}
        if self.weights.anchor > 0:
            terms["anchor"] = anchored(chosen_B, ref_B, self.beta)
        for name, loss in terms.items():
            self._note(name, {"loss": loss})
        self._note("chosen", displacement(chosen_B, ref_B))
        return terms

    def _attention_term(self, capture: RowCapture, inputs: dict[str, Any]) -> Tensor:
        """Attention supervision of the chosen answers."""
        maps_BLRN, rows_BR, K = capture.stacked(), capture.rows_BR, self.anchor_tokens
        if self.attn_target == "boxes":
            targets = (inputs[PRODUCERS], inputs[TARGETS])
            loss, metrics = box_supervision(maps_BLRN, rows_BR, *targets, K)
        elif self.attn_target == "anchor":
            anchors = (inputs[ANCHOR], inputs[FLAT])
            loss, metrics = anchor_supervision(maps_BLRN, rows_BR >= 0, *anchors, K)
        else:
            loss, metrics = attention_supervision(maps_BLRN, rows_BR >= 0, inputs[ANCHOR], K)
        self._note("attn", {"loss": loss, **metrics})
        return loss

    def _answers(self, outputs: Any, batch: dict[str, Any]) -> Tensor:
        """log pi of each answer as margins count it, [rows]: the (weighted) sum over its tokens.

        `batch` may have more rows than `outputs`, the rejected ones behind.
        """
        return weighed(outputs, batch.get(TOKEN_WEIGHTS)).log_probs.sum(1)

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
        inputs = {k: v for k, v in batch.items() if k not in NOT_INPUTS}
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
        weights = batch.pop(TOKEN_WEIGHTS, None)
        model = self.model if self.ref_model is None else self.ref_model
        # TRL calls the model itself, without gradients and without the adapter.
        called = model if guided else partial(self._way(batch), model)
        return self.compute_ref_log_probs(
            lambda **inputs: weighed(called(**inputs), weights), batch
        )

    def _note(self, term: str, metrics: Metrics) -> None:
        """Collect metrics for the next log line, averaged over workers as TRL does with its own."""
        values_1M = torch.stack([value.detach().float() for value in metrics.values()])[None]
        means = self.accelerator.gather(values_1M).mean(0).tolist()
        collected = self._metrics["train" if self.model.training else "eval"]
        for key, value in zip(metrics, means, strict=True):
            collected[f"{term}/{key}"].append(value)
