"""Rounds of retraining: each asks the model of the round before for pairs, and trains that model.

Pairs that were sampled from a model as it was before training say less and less about what it gets
wrong now. So a round samples from the model of the round before, on pictures that no round has
used, starts from that model and has it as its reference: iterated DPO, as RLAIF-V does four times
(arXiv 2405.17220).

A round is an arm of a comparison over `params.yaml`, with `pairs.skip` of its own, whose base is
the model of the training before (`cells.stage`); round 0 is the base of the first. All figures are
of the validation split. Every seed has a chain of its own, which ends

1. when its pictures have run out: a round takes `pairs.images` of them, and a part of that would
   be another training than those before it;
2. with the first round that is not better than all before it, by the rule that chooses elsewhere,
   too (`adapt.generation.choosing.best`): the lowest Hal among those that keep Cover and yes/no F1
   of the base. Plain answers are what counts, as they are for the gate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapt import params
from adapt.data.schema import read_vocabulary
from adapt.generation.choosing import best
from adapt.generation.settings import Steering
from adapt.metrics.measures import OBJECTS
from adapt.pairs.sample import pictures_of
from adapt.pairs.selected import decided, ranked_rows
from adapt.pairs.settings import PairsConfig
from adapt.params import Content, Count, InputError, Seed, Settings, require
from flows.compare import cells, scoring
from flows.compare.arms import ArmsConfig, Changes, Comparison
from flows.compare.cells import Cell
from flows.compare.scoring import ArmScores, Scoring

Figures = Mapping[str, float]
Compute = Callable[[str, Sequence[Cell]], object]  # what for, and what has to be there then
Tell = Callable[[str], object]
BASE = "base"


class RoundsConfig(Settings):
    """What was asked for; every seed is a world with a chain of its own."""

    rounds: Count
    seeds: tuple[Seed, ...]


@dataclass(frozen=True, kw_only=True)
class Round:
    """One model of a chain: 0 is the base, `before` the round whose model it starts from.

    `pairs` are those of its training; None of the base.
    """

    number: int
    seed: int
    before: "Round | None"
    plain: Scoring
    steered: Scoring | None
    pairs: Cell | None

    @property
    def cells(self) -> list[Cell]:
        """What has to be computed for its figures."""
        return [one.cell for one in self.scored]

    @property
    def scored(self) -> list[Scoring]:
        """Its plain and, where steering has an effect, its steered answers."""
        return [self.plain, *([self.steered] if self.steered else [])]

    @property
    def scores(self) -> list[ArmScores]:
        """Their scores, once they are computed."""
        return [one.scores for one in self.scored]

    @property
    def figures(self) -> Figures:
        """By which it is judged."""
        return self.plain.cell.metrics

    @property
    def training(self) -> Cell | None:
        """What made its model; None of the base."""
        return self.plain.model if self.number else None


# ---- what is played ----------------------------------------------------------------------------


def comparison(root: Path, content: Content, asked: RoundsConfig, jobs: int) -> Comparison:
    """The rounds as arms over a read params.yaml; InputError where there can be none."""
    require(
        content["pairs"]["source"] != "given",
        "params.yaml: pairs.source",
        "given answers are not a model's own, which rounds sample; set it to sample or both",
    )
    steering = params.load(content, "steer", Steering)
    ways = {"": {}, " steered": {"steer": dict[str, object]()}} if _acts(steering) else {"": {}}
    skip, images = content["pairs"]["skip"], content["pairs"]["images"]
    named = {f"{BASE}{way}": Changes(**steer) for way, steer in ways.items()}
    for number in range(1, asked.rounds + 1):
        own = {"pairs": {"skip": skip + (number - 1) * images}, "train": dict[str, object]()}
        named |= {f"{_name(number)}{way}": Changes(**own, **s) for way, s in ways.items()}
    rate = content["train"]["learning_rate"]
    arms = ArmsConfig(seeds=asked.seeds, learning_rates=(rate,), references=(BASE,), named=named)
    return Comparison(root=root, content=content, arms=arms, jobs=jobs, split="validation")


def _acts(steering: Steering) -> bool:
    return bool(steering.auto) or steering.rules[0].acts


def _name(number: int) -> str:
    return f"round {number}" if number else BASE


def round_of(of: Comparison, seed: int, number: int, before: Round | None) -> Round:
    """How a round comes by its figures; computes nothing."""
    start = before.training if before else None
    arms = [of.arm(name) for name in of.arms.named if name.split(" steered")[0] == _name(number)]
    plain, *steered = [scoring.scoring(of, arm, seed, of.split, start) for arm in arms]
    content = {**arms[0].content, "seed": seed}
    return Round(
        number=number,
        seed=seed,
        before=before,
        plain=plain,
        steered=steered[0] if steered else None,
        pairs=cells.stage(of.root, content, "pairs", start) if number else None,
    )


# ---- how it goes -------------------------------------------------------------------------------


def play(of: Comparison, rounds: int, compute: Compute, tell: Tell) -> Iterator[list[Round]]:
    """The rounds that were computed, those of one number together; the bases first."""
    # 1. Whether rounds can be, and how many, is known from the data, before a model is trained.
    data = {s: cells.stage(of.root, {**of.content, "seed": s}, "data") for s in of.arms.seeds}
    compute("data", [*data.values()])
    limits = {seed: _limit(of, seed, cell, rounds, tell) for seed, cell in data.items()}
    chains = {seed: [round_of(of, seed, 0, None)] for seed in of.arms.seeds}
    going = list(of.arms.seeds)
    for number in range(rounds + 1):
        # 2. The same round of all seeds that are still in it, several cells at a time.
        if number:
            going = [seed for seed in going if number <= limits[seed]]
            for seed in going:
                chains[seed].append(round_of(of, seed, number, chains[seed][-1]))
        if not going:
            return
        now = [chains[seed][-1] for seed in going]
        compute(_name(number), [cell for one in now for cell in one.cells])
        for one in now:
            _require_hal(one)
        yield now
        # 3. What is no better than what was there ends its chain.
        going = [seed for seed in going if _goes_on(chains[seed], tell)]


def best_of(figures: Sequence[Figures]) -> int:
    """The best of a chain, the base included, which is the first of them.

    >>> base = {"hal": 30.0, "cover": 95.0}
    >>> best_of([base, {"hal": 20.0, "cover": 94.5}, {"hal": 10.0, "cover": 90.0}])
    1
    """
    return best(figures, figures[0])


def is_improved(figures: Sequence[Figures]) -> bool:
    """Whether the last of a chain is the best of it; a base alone is.

    >>> base = {"hal": 30.0, "cover": 95.0}
    >>> is_improved([base, {"hal": 20.0, "cover": 94.5}]), is_improved([base, base])
    (True, False)
    """
    return best_of(figures) == len(figures) - 1


def _goes_on(chain: Sequence[Round], tell: Tell) -> bool:
    figures = [one.figures for one in chain]
    if is_improved(figures):
        return True
    last, kept = chain[-1], chain[best_of(figures)]
    shown = ", ".join(
        f"{name} {kept.figures[key]:.1f} -> {last.figures[key]:.1f}"
        for key, name in {"hal": "Hal", "cover": "Cover", "pope_f1": "POPE F1"}.items()
        if key in kept.figures and key in last.figures
    )
    worse = f"{_name(last.number)} is no better than {_name(kept.number)} on validation"
    tell(f"seed {last.seed}: {worse} ({shown}); no further round")
    return False


def _limit(of: Comparison, seed: int, data: Cell, rounds: int, tell: Tell) -> int:
    """How many rounds there are pictures for, at most `rounds`; tells where that is fewer."""
    content = {**of.content, "seed": seed}
    config, splits = params.load(content, "pairs", PairsConfig), data.folder / "splits"
    train = splits / "train.parquet"
    if decided(config, train) == "given":
        problem = "the training split holds preferences, and rounds sample a model's own answers"
        raise InputError(f"params.yaml: pairs.source: {problem}; set it to both")
    rows = ranked_rows(config, train, read_vocabulary(splits / "vocabulary.json"))
    there = len(pictures_of(rows, seed))
    # The first takes what there is, as the pipeline does.
    enough = max(1, (there - config.skip) // config.images)
    if enough < rounds:
        left = f"{there} pictures, {config.skip} of them left out (pairs.skip)"
        takes = f"a round takes {config.images} (pairs.images)"
        tell(f"seed {seed}: {left}: {takes}, so that {enough} of {rounds} rounds are possible")
    return min(enough, rounds)


def _require_hal(one: Round) -> None:
    if "hal" not in one.figures:
        problem = f"rounds are judged by Hal, and the validation split has no {OBJECTS}"
        raise InputError(f"{problem}; bring such rows, or retrain by make run")
