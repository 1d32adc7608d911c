"""TRL's `DPOTrainer` with our steps: by passes, whole, finite, and resumed from their weights.

A pass is a forward and its backward, so that the activations of one pass alone are in memory. What
its loss is made of is in `adapt/preference/trainer.py`.
"""

import math
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object, is_peft_model
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import RandomSampler
from transformers import TrainerCallback

from adapt.models.load import load_model
from adapt.preference import shards
from adapt.preference.best import Best
from adapt.preference.collate import IDS, PASS, REFERENCE
from adapt.preference.losses import Weights
from adapt.preference.sharding import ShardTrainer
from adapt.preference.validation import Validation, best_of


class StepTrainer(ShardTrainer):
    """Expects batches that have the ids of their rows.

    Args:
        weights: of the loss terms; they say which passes a step makes.
        validation: what is asked at every checkpoint; None to take the last one.
    """

    train_dataset: Dataset
    control: Any

    def __init__(
        self, *args: Any, weights: Weights, validation: Validation | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.weights, self.validation = weights, validation
        if validation is not None:
            self.add_callback(_ValidateBase(self, validation))
        self._step: list[tuple[list[str], Tensor]] = []  # the rows and the loss of each part of it

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """One forward and backward for each pass; workers exchange gradients after the last."""
        values = [value for name, value in inputs.items() if name.endswith(REFERENCE)]
        assert not any(one.isnan().any() for one in values), "a row that `_drawn` does not know of"
        passes, loss = self.weights.passes(), torch.zeros((), device=self.args.device)
        for name in passes:
            one = {**inputs, PASS: name}
            with nullcontext() if name == passes[-1] else self.accelerator.no_sync(model):
                loss = loss + super().training_step(model, one, num_items_in_batch)
        self._step.append((self._ids(inputs), loss))
        return loss

    def _ids(self, inputs: dict[str, Any]) -> list[str]:
        """The rows that this part of a step looks at."""
        return [*inputs[IDS]]

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

    def _drawn(self) -> list[int]:
        """The numbers of the rows that the steps will take, in the order of the file.

        All rows where the steps take half as many or more. Any number of workers takes the same.
        """
        args, rows = self.args, len(self.train_dataset)
        pairs = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        taken = args.max_steps * pairs
        if taken <= 0 or 2 * taken >= rows:
            return [*range(rows)]
        # They lie in the first epoch, in the order of the loader that training will make as well.
        with torch.random.fork_rng(devices=[]):
            loader = self.get_train_dataloader()
            self.accelerator._dataloaders.remove(loader)
            sampler = loader.get_sampler()
            sampler.set_epoch(0)
            return sorted(islice(sampler, taken))

    # ---- checkpoints ---------------------------------------------------------------------------

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """With what the validation finds, and the best weights so far."""
        if self.validation is None:
            return super()._save_checkpoint(*args, **kwargs)
        self.validate(self.validation)
        super()._save_checkpoint(*args, **kwargs)
        if self.is_world_process_zero():
            name = f"checkpoint-{self.state.global_step}"
            self.validation.best.accompany(Path(self.args.output_dir) / name)

    def validate(self, validation: Validation) -> None:
        """A point of the validation's curves; the weights are kept where they are the best."""
        # 1. The steps that follow see the modes and random states that they would have seen.
        is_training, device = self.model.training, self.args.device
        cards = [device] if device.type == "cuda" else []
        self.model.eval()
        with torch.random.fork_rng(cards), self.accelerator.autocast(), self._speaking() as model:
            speaker = (model, self.processing_class, self.accelerator)
            figures = validation.figures(*speaker, is_divided=self.is_sharded)
        self.model.train(is_training)
        # 2. Into the history, as transformers' own points.
        state = self.state
        state.log_history.append({**figures, "step": state.global_step})
        self.control = self.callback_handler.on_log(self.args, state, self.control, figures)
        # 3. All processes have the same history, in which the base comes first.
        best = best_of(state.log_history)
        if best is not None and best["step"] == state.global_step:
            validation.best.keep(self._whole_tensors(), self.is_world_process_zero())

    def best(self) -> Best | None:
        """The weights of the best checkpoint; None where that is the last one, or none was."""
        best = best_of(self.state.log_history)
        is_last = best is None or best["step"] == self.state.global_step
        return None if is_last or self.validation is None else self.validation.best

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Resume from the weights of a checkpoint, whatever names they were saved under.

        transformers compares the file's keys with the model's and only warns when none fits; LLaVA
        and others are saved under older names, so that a resumed run would silently go on from the
        base weights.
        """
        is_divided = self.is_sharded or shards.are_in(Path(resume_from_checkpoint))
        if is_divided or is_peft_model(self.model):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        model = self.model if model is None else model
        model.load_state_dict(load_model(Path(resume_from_checkpoint)).state_dict())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints are runtime state, not a release: no card."""


class _ValidateBase(TrainerCallback):
    """Validates the base as a training begins; one that goes on knows it from its history."""

    def __init__(self, trainer: StepTrainer, validation: Validation) -> None:
        self._trainer, self._validation = trainer, validation

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first step."""
        if state.global_step == 0:
            self._trainer.validate(self._validation)
