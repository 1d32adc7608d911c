"""The end of a retraining: register the model, ask the gate, move the champion or not.

`promote` is the one place where the gate moves the champion; what a person says is in
`flows.promote.hand`. Both write into the ledger, and what is there decides. Registering is
idempotent: weights that DVC knows under the same hash are one version. Before there is a champion,
the tuned model is compared with the base that it was tuned from, which `evaluate` has judged on the
same images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from adapt import environment
from adapt.evaluation import gate
from adapt.evaluation.rules import Rules
from adapt.metrics.headline import HEADLINES, Headline
from adapt.metrics.measures import Measure, measure
from adapt.params import Content, InputError
from adapt.registry import registry, settling
from adapt.registry.download import download
from adapt.registry.ledger import Entry
from adapt.registry.standing import WEIGHTS, Standing
from adapt.tracking import lineage
from adapt.tracking.store import Store
from flows import contest, outside
from flows.contest import Contestant
from flows.promote import registering
from flows.promote.ending import How, Promotion
from flows.promote.hand import approve, person, reject, rollback, why_not

__all__ = ["approve", "promote", "reject", "rollback", "shown"]

BASE_MODEL = "results/base/model"
SPLITS = "results/data/splits"
TRIES = 5  # the champion may move while the gate decides


@dataclass(frozen=True)
class _Sides:
    """What is asked of the gate: the tuned model, and the base, as `evaluate` judged them."""

    tuned: Contestant
    base: Contestant


def promote(store: Store, config: Content, run_id: str, move: bool, who: str = "") -> Promotion:
    """Register results/train/model, decide, and make it the champion if `move` is set.

    `who` or what retrains, for the ledger; the user of this process where it is not given.
    `RegistryAway` where the registry does not answer; whatever was written until then holds.
    """
    folder, rules = store.root / "results" / "evaluate", config["gate"]
    sides = _Sides(
        contest.evaluated(folder, rules, "tuned", "tuned model"),
        contest.evaluated(folder, rules, "base", "base model"),
    )
    weights = _weights(store)
    stands = settling.settled(store, begin=True)
    for _ in range(TRIES):
        # 1. What a person took back stays so, and is not even registered again.
        if block := stands.state.block("", weights):
            version = registry.version_of(store, weights) or stands.state.named(weights)
            return _told(config, version, "refused", why_not(version, block), sides, sides.base)
        # 2. Register: a model that is refused is kept, with the reasons, beside its run.
        judged = (sides.tuned, sides.base)
        version = registering.registered(store, config, run_id, weights, judged)
        if version == stands.champion:
            return _told(config, version, "champion", (), sides, sides.base)
        # 3. Ask the gate, and write down what it says. If the champion has moved meanwhile, or a
        #    person has said no, that does not count, and it is asked anew.
        reference = _reference(store, config, stands.champion, sides.base)
        ending, reasons = _asked(config, sides.tuned, reference, move)
        promotion = _told(config, version, ending, reasons, sides, reference)
        by = who or f"a retraining of {person()}"
        counted, stands = _noted(store, stands, promotion, run_id, by)
        if counted:
            return promotion
    raise InputError(f"the champion of {store.config.model} moved {TRIES} times meanwhile; retrain")


def _asked(
    config: Content, tuned: Contestant, reference: Contestant, move: bool
) -> tuple[How, tuple[str, ...]]:
    """The gate's decision; one that is not carried out says so among its reasons."""
    rules: Rules = config["gate"]
    draws = gate.Draws(config["evaluate"].bootstrap, config["evaluate"].seed)
    sides = tuned.scores(rules), reference.scores(rules)
    decision = gate.decide(*sides, rules, contest.labels(config), draws)
    if not decision.promote:
        return "refused", decision.reasons
    if not move:
        held = "passed, but this retraining may not move the champion"
        return "held", (*decision.reasons, held)
    if rules.approval == "required":
        return "waiting", (*decision.reasons, "passed, and a person has to approve it")
    return "promoted", decision.reasons


def _noted(
    store: Store, stands: Standing, promotion: Promotion, run_id: str, who: str
) -> tuple[bool, Standing]:
    """Write the decision into the ledger, unless it says the same already."""
    assert promotion.ending != "champion"
    champion, latest = stands.state.champion, stands.state.latest.get(promotion.version)
    entry = Entry(
        what=promotion.ending,
        of=promotion.version,
        against=champion,
        to=promotion.version if promotion.promoted else "",
        weights=_weights(store),
        who=who,
        reasons=promotion.reasons,
        figures=promotion.figures(),
        data=lineage.output_hash(store.root, SPLITS),
        revision=lineage.revision(store.root).get("mlflow.source.git.commit", ""),
        run=run_id,
        seen=stands.state.tail,
    )
    same = ("what", "against", "reasons", "figures")
    is_said = latest and all(getattr(entry, key) == getattr(latest, key) for key in same)
    # What waited is forgotten where the champion has moved, also where it has come back since.
    if is_said and (entry.what != "waiting" or stands.state.waiting == latest):
        return True, stands
    return settling.decide(store, entry)


def _told(
    config: Content,
    version: str,
    ending: How,
    reasons: tuple[str, ...],
    sides: _Sides,
    reference: Contestant,
) -> Promotion:
    """The ending, with what was measured of both."""
    numbers = shown(config)
    before, after = (_numbers(one.metrics, numbers) for one in (reference, sides.tuned))
    digits = {number.title: number.digits for number in numbers.values()}
    return Promotion(version, ending, reasons, reference.name, before, after, digits)


def shown(config: Content) -> dict[str, Headline | Measure]:
    """What the table at the end has: the headline numbers, then what else a rule names, by metric.

    Metrics that a rule's sentence tells beside its own are in the table as well.
    """
    numbers: dict[str, Headline | Measure] = {number.key: number for number in HEADLINES}
    labels = contest.labels(config)
    for key in config["gate"].named:
        of = measure(key, labels)
        others = {of.beside: measure(of.beside, labels)} if of.beside else {}
        for name, one in ({key: of} | others).items():
            numbers.setdefault(name, one)
    return numbers


def _numbers(
    metrics: Mapping[str, float], numbers: Mapping[str, Headline | Measure]
) -> dict[str, float]:
    """Those that were measured, by title."""
    there = {key: number for key, number in numbers.items() if key in metrics}
    return {number.title: float(metrics[key]) for key, number in there.items()}


def _weights(store: Store) -> str:
    """DVC's hash of results/train/model."""
    md5 = lineage.output_hash(store.root, registry.MODEL)
    if not md5:
        raise InputError(f"dvc.lock has no {registry.MODEL}: a stage of dvc.yaml has to produce it")
    return md5


def _reference(store: Store, config: Content, champion: str | None, base: Contestant) -> Contestant:
    """What the tuned model has to beat, on the same images: the champion or the base."""
    if champion is None:
        return base
    name = f"champion, version {champion}"
    if _is_base(store, champion):
        return replace(base, name=name)
    state = environment.state_dir(store.root)
    state.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=state, prefix="champion-") as folder:
        source = f"models:/{store.config.model}/{champion}"
        model, _ = download(store.client, source, Path(folder) / "model")
        return contest.anew(config, model, store.root, name)


def _is_base(store: Store, version: str) -> bool:
    """Whether this retraining started from `version`: then `evaluate` has judged it."""
    if outside.base_version(store.root, store.config.model) == version:
        return True
    md5 = registry.tags(store, version).get(WEIGHTS)
    return bool(md5) and md5 == lineage.output_hash(store.root, BASE_MODEL)
