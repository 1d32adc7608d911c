"""`auto` of `train.accumulation` and `train.gradient_checkpointing`: what a card of some size makes
of them.
"""

import dataclasses
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from adapt.inspect import settled
from adapt.inspect.machine import RUNTIME, USABLE, Machine
from adapt.inspect.settled import settle
from adapt.inspect.train_plan import peak
from adapt.models.load import save
from adapt.pairs.plain import write_plain
from adapt.pairs.table import write_pairs
from adapt.params import InputError
from adapt.preference.checks import check
from adapt.preference.fit import fit
from adapt.preference.settings import Config
from adapt.preference.trainer import AdaptTrainer
from tests.support import tiny_world
from tests.support.preference_rows import changed, origin, pairs, plain_rows, png, settings
from tests.test_house import ROOT

CPU = torch.device("cpu")
OPEN = dict(accumulation="auto", gradient_checkpointing="auto")
WAYS = [(1, False), (2, False), (4, False), (1, True), (2, True), (4, True)]
"""Passes of four pairs, and whether activations are computed again, the mildest first."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save(tiny_world.model(), tiny_world.processor(), folder / "base")
    write_pairs(folder / "pairs.parquet", pairs(6), origin())
    write_plain(folder / "plain.parquet", plain_rows(10))
    return folder


def card(usable: int) -> Machine:
    """A GPU whose processes can fill so many bytes."""
    memory = int((usable + RUNTIME) / USABLE) + 1
    return Machine(name="a card", is_gpu=True, memory=memory, generation=torch.float32)


class Cards:
    """Settings, as cards of some sizes settle them."""

    def __init__(self, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._base = inputs / "base"
        self.facts = check(settings(), self._base, inputs / "pairs.parquet")
        self._monkeypatch = monkeypatch

    def settle(self, config: Config, place: Machine) -> Config:
        self._monkeypatch.setattr(settled, "machine", lambda device: place)
        return settle(config, self._base, self.facts, CPU)

    def needed(self, config: Config) -> int:
        """Bytes that the plan expects of a step."""
        return peak(settled._subject(self._base, self.facts), config, self.facts.answer, card(0))


@pytest.fixture
def cards(inputs, monkeypatch) -> Cards:
    return Cards(inputs, monkeypatch)


def way(config: Config) -> tuple[int, bool]:
    return config.passes, config.checkpointing


def test_what_is_open_is_one_whole_pass_until_a_card_is_known(cards):
    config = settings(**OPEN)
    assert config.left_open == ("accumulation", "gradient_checkpointing")
    assert way(config) == (1, False) and config.pass_pairs == 4
    assert settings().left_open == ()
    on_cpus = dataclasses.replace(card(0), is_gpu=False)
    assert cards.settle(config, on_cpus) is config


def test_the_mildest_way_that_fits_is_taken(cards, capsys):
    config = settings(**OPEN)
    bytes_of = {
        one: cards.needed(settings(accumulation=one[0], gradient_checkpointing=one[1]))
        for one in WAYS
    }
    assert len(set(bytes_of.values())) > 3, "of a model so small some are equal"
    for usable in sorted(set(bytes_of.values())):
        expected = next(one for one in WAYS if bytes_of[one] <= usable)
        assert way(cards.settle(config, card(usable))) == expected
    assert way(cards.settle(config, card(10**9))) == (1, False)
    assert capsys.readouterr().err == ""
    # Where nothing fits, the smallest is tried, and said.
    assert way(cards.settle(config, card(min(bytes_of.values()) - 1))) == WAYS[-1]
    said = capsys.readouterr().err
    assert "train: the smallest passes would take 0.0 GiB of a card, which has" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(accumulation="auto", gradient_checkpointing=False), (4, False)),
        (dict(accumulation="auto", gradient_checkpointing=True), (4, True)),
        (dict(accumulation=2, gradient_checkpointing="auto"), (2, True)),
        (dict(accumulation=2, gradient_checkpointing=False), (2, False)),
        (dict(**OPEN, w_keep=1.0, keep_rows=2), (2, True)),  # rows that four do not divide
    ],
)
def test_what_is_set_is_left_alone(cards, changes, expected):
    assert way(cards.settle(settings(**changes), card(0))) == expected


def test_fewer_workers_of_a_range_start_from_one_pass_too(cards):
    alone = settings(workers=[1, 2], **OPEN).at(1)
    assert alone.left_open and way(alone) == (1, False) and alone.pass_pairs == 4
    assert way(cards.settle(alone, card(10**9))) == (1, False)
    assert way(cards.settle(alone, card(0))) == (4, True)
    # What is set is what the most workers take.
    assert settings(workers=[1, 2], accumulation=1).at(1).passes == 2


def test_answers_about_pictures_of_their_own_take_more(cards):
    config = settings(**OPEN, w_vag=0.0)
    together = cards.needed(config)
    assert way(cards.settle(config, card(together))) == (1, False)
    cards.facts = dataclasses.replace(cards.facts, apart=True)
    assert cards.needed(config) > together
    assert way(cards.settle(config, card(together))) != (1, False)


def test_the_longest_rows_and_the_widest_pictures_count(inputs, tmp_path):
    rows, base = pairs(6), inputs / "base"
    large = png(tiny_world.picture(3).resize((80, 48)))
    long = changed(rows[4], question=f"{rows[4].question} {rows[4].question}")
    said = changed(rows[2], rejected=f"{rows[2].chosen} {rows[2].rejected}")
    write_pairs(tmp_path / "pairs.parquet", [*rows[:2], said, rows[3], long, rows[5]], origin())
    short = check(settings(), base, inputs / "pairs.parquet")
    found = check(settings(), base, tmp_path / "pairs.parquet")
    assert found.prompt > short.prompt and found.answer > short.answer
    assert found.tokens == short.tokens == 16 and not found.apart
    sizes = settled._subject(base, found).sizes
    assert (sizes.prompt, sizes.image_tokens) == (found.prompt, 16)
    # A rejected answer's own, and a plain row's, as many tokens of more pixels.
    own = changed(rows[0], rejected_images=(large,))
    write_pairs(tmp_path / "own.parquet", [own, *rows[1:]], origin())
    found = check(settings(), base, tmp_path / "own.parquet")
    assert found.apart
    kept = [dataclasses.replace(one, images=(large,)) for one in plain_rows(4)]
    write_plain(tmp_path / "plain.parquet", kept)
    config = settings(w_keep=1.0)
    found = check(config, base, inputs / "pairs.parquet", tmp_path / "plain.parquet")
    assert not found.apart and found.sizes == ((80, 48),)


def losses(out: Path) -> list[str]:
    return (out / "history.csv").read_text().splitlines()


def train(inputs: Path, to: Path, config: Config) -> list[str]:
    (to / "out").mkdir(parents=True)
    files = (inputs / "base", inputs / "pairs.parquet", to / "out", to / "state")
    fit(config, *files, lambda step, metrics: None, settle=settle)
    return losses(to / "out")


def test_a_training_takes_what_was_found_and_says_so(inputs, tmp_path, monkeypatch, capsys):
    asked = train(inputs, tmp_path / "asked", settings(accumulation=4, gradient_checkpointing=True))
    capsys.readouterr()
    monkeypatch.setattr(settled, "machine", lambda device: card(0))
    found = train(inputs, tmp_path / "found", settings(**OPEN))
    assert found == asked
    said = capsys.readouterr().err
    assert "train: workers: 0, pairs a pass: 1, passes: 4" in said
    assert "train: activations are computed again (gradient_checkpointing: auto)" in said


@pytest.mark.parametrize("place", [(AdaptTrainer, "training_step"), (settled, "machine")])
def test_a_full_card_is_said_in_a_line(inputs, tmp_path, monkeypatch, place):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(*place, full)
    with pytest.raises(InputError) as raised:
        train(inputs, tmp_path, settings())
    said = "train: the memory of the cpu device is full (4 pairs a pass); more passes"
    assert str(raised.value).startswith(said)


AGREE = """
import sys
import torch
import torch.distributed as dist
from adapt.inspect.settled import _most
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
print(_most((1, 4)[rank], torch.device("cpu")))
dist.destroy_process_group()
"""


def test_all_workers_take_what_the_smallest_card_asks_for(tmp_path):
    start = partial(subprocess.Popen, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    command = [sys.executable, "-c", AGREE]
    both = [start([*command, str(rank), str(tmp_path / "meet")]) for rank in (0, 1)]
    try:
        assert [one.communicate(timeout=120)[0] for one in both] == ["4\n", "4\n"]
    finally:
        for one in both:
            one.kill()
            one.wait()
