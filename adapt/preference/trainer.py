"""TRL's `DPOTrainer` with the ADAPT loss: one extra forward for VAG-DPO, attention seen during the one it has.

With `w_vag = w_attn = w_sft = 0` every number is TRL's own. Shapes: B pairs, S sequence, R response tokens, N image
tokens.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn
from trl import DPOTrainer

from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import image_columns
from adapt.models.load import load_model
from adapt.preference.collate import ANCHOR, GUIDED
from adapt.preference.losses import attention_supervision, vag_dpo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the loss terms; `dpo` and `sft` go to TRL as `loss_weights`."""

    vag: float
    dpo: float
    sft: float
    attn: float

    def trl_losses(self) -> tuple[list[str], list[float]]:
        """`loss_type` and `loss_weights` of `DPOConfig`; DPO stays in the list, with weight 0, when all are 0."""
        terms = [(name, weight) for name, weight in (("sigmoid", self.dpo), ("sft", self.sft)) if weight > 0]
        terms = terms or [("sigmoid", 0.0)]
        return [name for name, _ in terms], [weight for _, weight in terms]


class AdaptTrainer(DPOTrainer):
    """Expects batches of `GuidedCollator`.

    Args:
        weights: of the loss terms.
        anchor_tokens: K, the tokens that the anchor is read from.
        attn_layers: supervised decoder layers, empty for all.
    """

    def __init__(
        self, *args: Any, weights: Weights, anchor_tokens: int, attn_layers: tuple[int, ...], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.weights, self.anchor_tokens, self.attn_layers = weights, anchor_tokens, attn_layers

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool) -> Any:
        inputs = dict(inputs)
        guided, anchor_BN = inputs.pop(GUIDED), inputs.pop(ANCHOR)
        with self._watching(model, inputs) as capture:
            result = super()._compute_loss(model, inputs, return_outputs)
        loss, outputs = result if return_outputs else (result, None)
        if capture is not None:
            mask_BR = capture.rows_BR >= 0
            maps_BLRN = capture.stacked() * mask_BR[:, None, :, None]
            term, seen = attention_supervision(maps_BLRN, mask_BR, anchor_BN, self.anchor_tokens)
            loss = loss + self.weights.attn * term
            self._note({"attn/loss": term.detach(), **seen})
        if self.weights.vag > 0:
            term, seen = self._vag(model, {**inputs, "pixel_values": guided})
            loss = loss + self.weights.vag * term
            self._note({"vag/loss": term.detach(), **seen})
        return (loss, outputs) if return_outputs else loss

    def _vag(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """One forward of policy and reference on [chosen with v+, rejected with v-]."""
        mask = inputs["completion_mask"]
        labels = inputs["input_ids"].masked_fill(mask == 0, -100)
        kwargs = {key: value for key, value in inputs.items() if key != "completion_mask"}
        log_probs = model(**kwargs, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        chosen_B, rejected_B = log_probs[:, -(mask.shape[1] - 1) :].sum(1).chunk(2)
        reference = self.model if self.ref_model is None else self.ref_model
        ref_chosen_B, ref_rejected_B = self.compute_ref_log_probs(reference, inputs)
        return vag_dpo(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, self.beta)

    @contextmanager
    def _watching(self, model: nn.Module, inputs: dict[str, Any]) -> Iterator[RowCapture | None]:
        """Capture attention of the chosen answers' tokens; the query that produces token p is row p - 1."""
        if self.weights.attn == 0:
            yield None
            return
        chosen = len(inputs["input_ids"]) // 2
        columns_BN = image_columns(inputs["input_ids"][:chosen], self.model.config.image_token_id)
        capture = RowCapture(response_rows(inputs["completion_mask"][:chosen]), columns_BN, self.attn_layers)
        with observed(model, capture):
            yield capture

    def _note(self, seen: dict[str, Tensor]) -> None:
        """Collect figures for the next log line, averaged over workers as TRL does with its own."""
        mode = "train" if self.model.training else "eval"
        for key, value in seen.items():
            self._metrics[mode][key].append(self.accelerator.gather_for_metrics(value).mean().item())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Resume from the weights of a checkpoint, whatever names they were saved under.

        transformers compares the file's keys with the model's and only warns when none fits; LLaVA and others are
        saved under older names, so that a resumed run would silently go on from the base weights.
        """
        if is_peft_model(self.model):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        model = self.model if model is None else model
        model.load_state_dict(load_model(Path(resume_from_checkpoint)).state_dict())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints are runtime state, not a release: no card."""


def response_rows(completion_mask_BS: Tensor) -> Tensor:
    """Query positions that produce the response tokens, [B, R], padded with -1.

    >>> response_rows(torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]]))
    tensor([[ 1,  2],
            [ 0, -1]])
    """
    shifted = completion_mask_BS[:, 1:].bool()
    position = torch.arange(shifted.shape[1], device=shifted.device).expand_as(shifted)
    rows = torch.where(shifted, position, shifted.shape[1]).sort(1).values[:, : max(int(shifted.sum(1).max()), 1)]
    return rows.masked_fill(rows == shifted.shape[1], -1)
