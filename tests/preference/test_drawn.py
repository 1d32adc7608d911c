"""The rows that steps take are the same on any number of workers; they alone have a reference."""

import math
from itertools import chain

import pytest
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from adapt.preference.dataset import ids_of
from adapt.preference.steps import StepTrainer
from adapt.preference.trainer import Weights
from tests.support.preference_rows import NONE, adapt_trainer, data_of, pairs

WEIGHTS = Weights(**{**NONE, "dpo": 1.0})


def trainer_of(base, folder, rows: int, steps: int):
    data = data_of(pairs(rows))
    return adapt_trainer(base, folder, WEIGHTS, data=data, size=4, max_steps=steps)


def known(trainer) -> list[int]:
    values = trainer.train_dataset.with_format(None)["ref_chosen_logps"]
    return [place for place, value in enumerate(values) if not math.isnan(value)]


def test_the_reference_is_that_of_the_rows_that_are_read(base, tmp_path):
    made = trainer_of(base, tmp_path, 40, steps=2)
    read: list[list[str]] = []
    collate = made.data_collator

    def spied(rows):
        read.append([row["id"] for row in rows])
        return collate(rows)

    made.data_collator = spied
    made.train()
    # Two steps of four rows, and the batch that the loader reads ahead.
    assert [len(one) for one in read] == [4, 4, 4]
    names = ids_of(made.train_dataset)
    assert sorted(names[place] for place in known(made)) == sorted(chain(*read[:2]))


def test_a_step_refuses_a_row_without_a_reference(base, tmp_path):
    made = trainer_of(base, tmp_path, 40, steps=2)
    left_out = next(place for place in range(40) if place not in known(made))
    batch = made.data_collator([made.train_dataset[left_out]])
    with pytest.raises(AssertionError, match="_drawn"):
        made.training_step(made.model, batch)


def test_most_rows_are_all_rows(base, tmp_path):
    assert known(trainer_of(base, tmp_path, 16, steps=2)) == [*range(16)]
    assert len(known(trainer_of(base, tmp_path, 22, steps=1))) == 4


def test_losses_are_those_with_the_reference_of_all_rows(base, tmp_path, monkeypatch):
    def losses(folder) -> list[float]:
        made = trainer_of(base, folder, 40, steps=3)
        made.args.logging_steps = 1
        made.train()
        return [row["loss"] for row in made.state.log_history if "loss" in row]

    some = losses(tmp_path / "some")
    monkeypatch.setattr(StepTrainer, "_drawn", lambda self: [*range(len(self.train_dataset))])
    every = losses(tmp_path / "every")
    assert len(some) == 3 and some == pytest.approx(every, rel=1e-5)


def test_the_order_of_rows_does_not_depend_on_the_number_of_workers(base, tmp_path):
    """Each step takes the same rows, whoever of the workers takes which of them."""
    made = trainer_of(base, tmp_path, 26, steps=12)

    def epoch(workers: int, number: int) -> list[list[int]]:
        ranks = []
        for rank in range(workers):
            sampler = made._get_train_sampler()
            loader = DataLoader(range(26), 4 // workers, sampler=sampler, collate_fn=list)
            options = {"num_processes": workers, "process_index": rank, "data_seed": 7}
            prepared = prepare_data_loader(loader, use_seedable_sampler=True, **options)
            prepared.set_epoch(number)
            ranks.append([*prepared.batch_sampler])
        return [[*chain(*parts)] for parts in zip(*ranks, strict=True)]

    for number in range(2):
        steps = epoch(1, number)
        assert [len(rows) for rows in steps] == [4] * 6, "whole steps alone"
        assert epoch(2, number) == epoch(4, number) == steps
    assert epoch(1, 0) != epoch(1, 1)
