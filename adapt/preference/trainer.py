"""TRL's `DPOTrainer` with the ADAPT loss: one extra forward at most, attention seen during the one
there is.

A step makes one pass over the plain images and, for VAG-DPO, one over the guided ones. Each pass is
a forward and its backward, so that the activations of one pass alone are in memory:

* plain: same-image DPO is TRL's own loss, with every figure of TRL's, of a forward in which both
  answers share their prompt (`adapt/preference/prefix.py`); SFT and attention supervision look at
  the chosen half of the same forward. Without same-image DPO the rejected half is not computed.
* guided: VAG-DPO.

The reference model is let go before the first step: `adapt/preference/reference.py`. With `w_vag =
w_attn = w_sft = 0` every number is TRL's.

Shapes: B pairs, S sequence, R response tokens, N image tokens.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object, is_peft_model
from torch import Tensor, nn
from torch.utils.data import RandomSampler
from trl import DPOTrainer

from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import image_columns
from adapt.attention.settings import Layers
from adapt.models.load import load_model
from adapt.preference.collate import ANCHOR, IDS, REFERENCE, chosen_half, part
from adapt.preference.losses import attention_supervision, displacement, dpo, sft
from adapt.preference.prefix import can_share, sharing
from adapt.preference.reference import ReferenceCache, attach

PASS = "pass"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the loss terms."""

    vag: float
    dpo: float
    sft: float
    attn: float

    def passes(self) -> tuple[str, ...]:
        """The passes of a step that have a term."""
        plain = self.dpo + self.sft + self.attn > 0
        return (*(["plain"] if plain else []), *(["guided"] if self.vag > 0 else []))


class AdaptTrainer(DPOTrainer):
    """Expects batches of `GuidedCollator`.

    Args:
        weights: of the loss terms; that of same-image DPO multiplies TRL's loss, whose own weights
            are left alone.
        anchor_tokens: K, the tokens that the anchor is read from.
        attn_layers: supervised decoder layers.
        reference: where reference log-probabilities are kept; what is missing is computed here,
            with progress.
    """

    def __init__(
        self,
        *args: Any,
        weights: Weights,
        anchor_tokens: int,
        attn_layers: Layers,
        reference: ReferenceCache,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.weights, self.anchor_tokens, self.attn_layers = weights, anchor_tokens, attn_layers
        self._step: list[tuple[list[str], Tensor]] = []
        attach(self, reference, guided=weights.vag > 0)

    def _get_train_sampler(self, train_dataset: Any = None) -> RandomSampler:
        """Whole steps only: an epoch's left-over rows, others in each epoch, would make a step of
        fewer pairs.
        """
        pairs = (
            self.args.train_batch_size
            * self.args.gradient_accumulation_steps
            * self.args.world_size
        )
        rows = self.train_dataset if train_dataset is None else train_dataset
        return RandomSampler(rows, num_samples=max(len(rows) // pairs, 1) * pairs)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """One forward and backward for each pass; workers exchange gradients after the last."""
        *early, last = self.weights.passes()
        loss = torch.zeros((), device=self.args.device)
        for name in (*early, last):
            with nullcontext() if name == last else self.accelerator.no_sync(model):
                loss = loss + super().training_step(
                    model, {**inputs, PASS: name}, num_items_in_batch
                )
        self._step.append((inputs[IDS], loss))
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Stops before an update with gradients that are not finite, so that no checkpoint has seen
        one.

        All workers have the same gradients here and stop together.
        """
        norm = super()._clip_grad_norm(model)
        step, self._step = self._step, []
        if not torch.isfinite(torch.as_tensor(norm)):
            self._stop(step)
        return norm

    def _stop(self, step: list[tuple[list[str], Tensor]]) -> None:
        gathered = gather_object([(ids, loss.item()) for ids, loss in step])
        bad = [(ids, loss) for ids, loss in gathered if not math.isfinite(loss)]
        what = f"the loss is {bad[0][1]}" if bad else "the gradients are not finite"
        rows = ", ".join(row for ids, _ in bad or gathered for row in ids)
        raise FloatingPointError(f"{what} at step {self.state.global_step + 1}, in the rows {rows}")

    def _compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool
    ) -> Tensor:
        assert not return_outputs, "TRL would recompute the logits for it"
        passes = {"plain": self._plain, "guided": self._guided}
        names = [inputs[PASS]] if PASS in inputs else self.weights.passes()
        inputs = {key: value for key, value in inputs.items() if key != PASS}
        return torch.stack([passes[name](model, inputs) for name in names]).sum()

    def _plain(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        chosen, weights, batch = len(inputs[IDS]), self.weights, part(inputs, guided=False)
        both = self.for_pairs(
            model, batch
        )  # asked here: inside the block attention has another name
        with self._watching(model, batch, chosen) as capture:
            if weights.dpo > 0:
                loss, log_probs = self._pairs(both, batch)
                loss = weights.dpo * loss
            else:
                loss, log_probs = 0.0, self._log_probs(model, chosen_half(batch))
        mask_BR = batch["completion_mask"][:chosen, 1:] > 0
        # Also with weight 0: every trained parameter takes part, as data-parallel training expects.
        term = sft(log_probs[:chosen], mask_BR)
        self._note("sft", {"loss": term})
        self._note("chosen", displacement(log_probs[:chosen].sum(1), batch[REFERENCE[0]]))
        loss = loss + weights.sft * term
        if capture is not None:
            rows_BR = capture.rows_BR >= 0
            maps_BLRN = capture.stacked() * rows_BR[:, None, :, None]
            term, seen = attention_supervision(
                maps_BLRN, rows_BR, inputs[ANCHOR], self.anchor_tokens
            )
            self._note("attn", {"loss": term, **seen})
            loss = loss + weights.attn * term
        return loss

    def for_pairs(self, model: nn.Module, batch: dict[str, Any]) -> Callable[..., Any]:
        """The model as it answers for a batch whose halves have the same pictures."""
        return (
            sharing(model) if can_share(self.model, batch) and not self.aux_loss_enabled else model
        )

    def _pairs(self, model: Callable[..., Any], batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """TRL's loss, and the log-probabilities [2B, R] of the forward that it makes."""
        outputs = []

        def seen(**kwargs: Any) -> Any:
            outputs.append(model(**kwargs))
            return outputs[-1]

        return super()._compute_loss(seen, batch, False), outputs[0].log_probs

    def _guided(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        batch = part(inputs, guided=True)
        chosen_B, rejected_B = self._log_probs(model, batch).sum(1).chunk(2)
        ref_chosen_B, ref_rejected_B = (batch[name] for name in REFERENCE)
        term, seen = dpo(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, self.beta)
        anchor_BN = inputs[ANCHOR]
        flat_B = anchor_BN.amax(1) <= anchor_BN.amin(1)  # supports no place: v+ is white
        self._note("vag", {"loss": term, **seen, "flat_anchors": flat_B.float().mean()})
        return self.weights.vag * term

    def _log_probs(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Log-probability of each response token, 0 elsewhere: [rows, S - 1]."""
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        known = {
            key: value for key, value in batch.items() if key not in ("completion_mask", *REFERENCE)
        }
        return model(**known, labels=labels, use_cache=False, fused_lm_head=True).log_probs

    @contextmanager
    def _watching(
        self, model: nn.Module, batch: dict[str, Any], chosen: int
    ) -> Iterator[RowCapture | None]:
        """Capture attention of the chosen answers' tokens; the query that produces token p is row p
        - 1.
        """
        if self.weights.attn == 0:
            yield None
            return
        columns_BN = image_columns(batch["input_ids"][:chosen], self.model.config.image_token_id)
        capture = RowCapture(
            response_rows(batch["completion_mask"][:chosen]), columns_BN, self.attn_layers
        )
        with observed(model, capture):
            yield capture

    def _note(self, term: str, seen: dict[str, Tensor]) -> None:
        """Collect figures for the next log line, averaged over workers as TRL does with its own."""
        figures_1F = torch.stack([value.detach().float() for value in seen.values()])[None]
        means = self.accelerator.gather(figures_1F).mean(0).tolist()
        metrics = self._metrics["train" if self.model.training else "eval"]
        for key, value in zip(seen, means, strict=True):
            metrics[f"{term}/{key}"].append(value)

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


def response_rows(completion_mask_BS: Tensor) -> Tensor:
    """Query positions that produce the response tokens, [B, R], padded with -1.

    >>> response_rows(torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]]))
    tensor([[ 1,  2],
            [ 0, -1]])
    """
    shifted = completion_mask_BS[:, 1:].bool()
    position = torch.arange(shifted.shape[1], device=shifted.device).expand_as(shifted)
    rows = (
        torch.where(shifted, position, shifted.shape[1])
        .sort(1)
        .values[:, : max(int(shifted.sum(1).max()), 1)]
    )
    return rows.masked_fill(rows == shifted.shape[1], -1)
