"""The kept pass of a step: what the policy still makes of plain rows, which are no pairs.

    keep_form: sft    L_keep = mean over rows of -log pi(y | v, x) / |y|    of the rows' own answers
    keep_form: kl     L_keep = mean over rows of KL(ref || pi)              at the tokens of these

The first teaches what is right there, the second (`adapt/preference/distillation.py`) holds on to
what the base said. Both are means over rows, of which every part of a step has equally many.

Shapes: N answer tokens of all rows, V vocabulary.
"""

from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn

from adapt.preference.distillation import answer_logits, distillation
from adapt.preference.losses import sft
from adapt.preference.reference import ReferenceCache
from adapt.preference.rehearsal import Rehearsal
from adapt.preference.steps import StepTrainer
from adapt.preference.teacher import Lesson, Teacher, taught


class KeepingTrainer(StepTrainer):
    """Takes plain rows besides the batches that it is given.

    Args:
        rehearsal: the plain rows; None where the kept pass has no weight.
    """

    ref_model: nn.Module | None

    def __init__(self, *args: Any, rehearsal: Rehearsal | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rehearsal = rehearsal
        self.teacher: Teacher | None = None

    def _learn(self, cache: ReferenceCache, weights: str) -> None:
        """Work out what the base says at plain rows, before the policy leaves it.

        `weights` says how the base is held.
        """
        if self.rehearsal is None or self.rehearsal.form == "sft":
            return
        lesson = Lesson(
            rehearsal=self.rehearsal,
            batch_size=len(self._kept_places()),
            logits=self._reference_logits,
            accelerator=self.accelerator,
            weights=weights,
        )
        self.teacher = taught(lesson, cache)

    def _kept_term(self, model: nn.Module) -> Tensor:
        """L_keep of the plain rows of this part of a step."""
        assert self.rehearsal is not None, "its weight is above 0"
        places = self._kept_places()
        batch = self._prepare_inputs(self.rehearsal.batch(places))
        if self.teacher is None:
            loss = sft(self._outputs(model, batch).log_probs, batch["completion_mask"][:, 1:] > 0)
        else:
            reference, counts = self.teacher.of(places)
            logits_NV = answer_logits(model, batch)
            loss = distillation(reference.to(logits_NV.device), logits_NV, counts)
        self._note("keep", {"loss": loss})
        return loss

    def _kept_places(self) -> list[int]:
        """The plain rows of the part of a step that comes now, on this process."""
        assert self.rehearsal is not None, "the kept pass has a weight"
        processes = self.accelerator.num_processes
        part = len(self._step) * processes + self.accelerator.process_index
        parts = processes * self.args.gradient_accumulation_steps
        return self.rehearsal.places(self.state.global_step, part, parts)

    def _ids(self, inputs: dict[str, Any]) -> list[str]:
        kept = [] if self.rehearsal is None else self.rehearsal.ids(self._kept_places())
        return super()._ids(inputs) + kept

    @torch.no_grad()
    def _reference_logits(self, batch: dict[str, Any]) -> Tensor:
        """Of the answer tokens of plain rows, by the model that is the reference, [N, V]."""
        model = self.model if self.ref_model is None else self.ref_model
        without = model.disable_adapter() if is_peft_model(model) else nullcontext()
        with without, self.accelerator.autocast():
            return answer_logits(model, self._prepare_inputs(batch))
