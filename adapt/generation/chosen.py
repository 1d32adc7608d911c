"""How each model is steered: as params.yaml says, or, where it says `auto`, chosen on validation.

How strongly a model is to be steered depends on how far its attention decays, which training
changes: one number suits the base or the tuned model (docs/log.md). So for each of the two

1. every rule of `steer.grid` describes the same pictures of the validation split. Answers are kept
   by what they depend on (`kept.py`), so that one more rule costs its own answers alone;
2. the rule with the lowest Hal is taken among those that keep the Cover of the model's own plain
   descriptions (`choosing.py`).

Answers of a few words have no part in it: they end before steering begins. Where nobody knows what
is in the pictures, nothing can be chosen and the first rule of the grid is taken. Writes

    steering.csv    every rule that was tried, with its figures, and which one was chosen
    steering.json   the rule of each model, also where nothing was to be chosen

Whoever wants to know how a model is steered reads the latter.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import params
from adapt.data.lots import drawn
from adapt.generation.choosing import best
from adapt.generation.known import Known
from adapt.generation.settings import Config, SteerConfig, Steering
from adapt.metrics import chair
from adapt.metrics.measures import OBJECTS
from adapt.names import one_line
from adapt.params import InputError

if TYPE_CHECKING:
    from adapt.generation.bench import Bench

ADVICE = "write a value there, such as 1.2 for alpha (--steer 1.2)"
FIGURES = ("hal", "chair_i", "cover")
COLUMNS = ("arm", "chosen", *SteerConfig.model_fields, *FIGURES, "descriptions")
"""Of steering.csv; percent. A row is a rule, its figures empty where nothing had to be measured."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The rule by which one model is steered, and the figures of those that it was chosen from."""

    rule: SteerConfig
    tried: Mapping[SteerConfig, Mapping[str, float]]
    descriptions: int


def choose(bench: "Bench", arm: str, config: Config, known: Known) -> Choice:
    """How section `steer` steers the model of `bench`; `arm` is what the model is called.

    Asks the model only where a key is `auto` and there is something to choose by; else the first
    rule of the grid is taken, which as shipped steers nobody.
    """
    steering = config.steer
    if not steering.auto or not known.rows:
        rule = steering.rules[0]
        if steering.auto:
            problem = f"the validation split has no {OBJECTS}; {arm} is steered with {rule.told}"
            print(one_line(f"steer.{steering.auto[0]}: auto, but {problem}"), flush=True)
        return Choice(rule=rule, tried={}, descriptions=0)
    limit = steering.grid.descriptions
    rows = drawn(known.rows, limit, config.seed) if limit else known.rows
    asked = bench.turned_to("validation", rows)
    plain = _figures(asked, arm, None, known)
    # A rule that does nothing is the plain model, which is not asked again.
    tried = {
        rule: _figures(asked, arm, rule, known) if rule.acts else plain for rule in steering.rules
    }
    rule = steering.rules[best(list(tried.values()), plain)]
    print(one_line(f"{arm} is steered with {rule.told}: {_told(plain, tried[rule])}"), flush=True)
    return Choice(rule=rule, tried=tried, descriptions=len(rows))


def _figures(bench: "Bench", arm: str, rule: SteerConfig | None, known: Known) -> dict[str, float]:
    """CHAIR_i, Hal and Cover of the descriptions that a rule leads to."""
    label = f"{arm}, {rule.told}," if rule else arm
    said = bench.ask(label, rule).responses
    truth = {row.id: row for row in known.rows}
    pairs = zip(said.id, said.response, strict=True)
    counts = [chair.count(text, truth[identity], known.words) for identity, text in pairs]
    return chair.aggregate(counts)


def _told(plain: Mapping[str, float], steered: Mapping[str, float]) -> str:
    names = {"hal": "Hal", "cover": "Cover"}
    shown = [
        f"{name} {plain[k]:.1f} -> {steered[k]:.1f}" for k, name in names.items() if k in plain
    ]
    return f"{', '.join(shown)} on validation"


# ---- files -------------------------------------------------------------------------------------


def write(out: Path, choices: Mapping[str, Choice]) -> None:
    """`steering.csv` and `steering.json` of models by their arms."""
    rules = {arm: one.rule.model_dump(mode="json") for arm, one in choices.items()}
    (out / "steering.json").write_text(json.dumps(rules, indent=2) + "\n", encoding="utf-8")
    with (out / "steering.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for arm, one in choices.items():
            table.writerows(_rows(arm, one))


def _rows(arm: str, one: Choice) -> list[dict[str, Any]]:
    measured = one.tried or {one.rule: dict[str, float]()}
    return [
        {"arm": arm, "chosen": rule == one.rule, "descriptions": one.descriptions}
        | rule.model_dump(mode="json")
        | {name: figures.get(name, "") for name in FIGURES}
        for rule, figures in measured.items()
    ]


def rules(answers: Path) -> dict[str, SteerConfig]:
    """The rules that stage `answer` left in its folder, by arm; none where it left none."""
    file = answers / "steering.json"
    if not file.exists():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return {arm: params.load(content, arm, SteerConfig, str(file)) for arm in content}


def rule_of(weights: str, steering: Steering, answers: Path) -> SteerConfig:
    """How a model with these weights is steered outside of stage `answer`.

    InputError where a key is `auto` and stage `answer` has chosen nothing for the model.
    """
    if not steering.auto:
        return steering.rules[0]
    require_choice(steering, answers)
    models = json.loads((answers / "models.json").read_text(encoding="utf-8"))
    for arm, rule in rules(answers).items():
        if models[arm] == weights:
            return rule
    problem = f"auto is chosen by stage answer, and {answers} has no choice for this model"
    raise InputError(f"steer.{steering.auto[0]}: {problem}; {ADVICE}")


def require_choice(steering: Steering, answers: Path) -> None:
    """InputError where a key is `auto` and stage `answer` has not chosen its value yet."""
    if steering.auto and not rules(answers):
        problem = f"auto is chosen by stage answer, which has left nothing in {answers}"
        raise InputError(f"steer.{steering.auto[0]}: {problem}; run it, or {ADVICE}")
