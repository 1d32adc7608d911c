"""The end of a retraining: register the model, ask the gate, move the champion's alias or not.

`promote` is the one place that moves the champion. Registering is idempotent: weights that DVC
knows under the same hash are one version. Before there is a champion, the tuned model is compared
with the base that it was tuned from, which `evaluate` has judged on the same images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from adapt import environment
from adapt.evaluation import gate
from adapt.metrics.headline import HEADLINES, Headline
from adapt.metrics.measures import Measure, measure
from adapt.params import Content, InputError
from adapt.tracking import lineage, registry
from adapt.tracking.store import Store
from flows import contest, outside
from flows.contest import Contestant

BASE_MODEL = "results/base/model"


@dataclass(frozen=True)
class Promotion:
    """How it ended: `promoted` is None for what is champion already.

    `before` and `after` have what was measured by title, `digits` with how many decimals it is
    shown.
    """

    version: str
    promoted: bool | None
    reasons: tuple[str, ...]
    against: str
    before: dict[str, float]
    after: dict[str, float]
    digits: dict[str, int]

    def sentence(self, model: str) -> str:
        """The ending in words."""
        if self.promoted is None:
            return f"{model} version {self.version} is the champion already"
        ending = "promoted to champion" if self.promoted else "not promoted"
        return f"{model} version {self.version} was {ending}"

    def run_tags(self) -> dict[str, str]:
        """Tags for the run of the retraining; the note is what MLflow's UI shows as description."""
        tags = {"adapt.model_version": self.version}
        if self.promoted is None:
            return tags
        heading = "**Promoted**" if self.promoted else "**Not promoted**"
        note = "\n".join([heading, "", *(f"* {reason}" for reason in self.reasons)])
        tags |= {"adapt.promoted": str(self.promoted).lower(), "mlflow.note.content": note}
        return tags | {"adapt.reasons": "\n".join(self.reasons)}


def promote(store: Store, config: Content, run_id: str, move: bool) -> Promotion:
    """Register results/train/model, decide, and make it the champion if `move` is set."""
    folder, rules = store.root / "results" / "evaluate", config["gate"]
    base = contest.evaluated(folder, rules, "base", "base model")
    tuned = contest.evaluated(folder, rules, "tuned", "tuned model")
    # 1. Register first: a model that is refused is kept, with the reasons, beside its run.
    version, champion = _registered(store, run_id), registry.champion(store)
    promoted: bool | None = None
    reasons, reference = tuple[str, ...](), base
    if version != champion:
        registry.set_alias(store, registry.CHALLENGER, version)
        # 2. The gate's decision; one that may not be carried out says so among its reasons.
        reference = _reference(store, config, champion, base)
        draws = gate.Draws(config["evaluate"].bootstrap, config["evaluate"].seed)
        sides = tuned.scores(rules), reference.scores(rules)
        decision = gate.decide(*sides, rules, contest.labels(config), draws)
        promoted, reasons = decision.promote and move, decision.reasons
        if decision.promote and not move:
            reasons = (*reasons, "passed, but this retraining may not move the champion")
        # 3. Write the reasons before the alias moves: who sees a new champion finds them there.
        word = "promoted" if promoted else "refused"
        registry.tag(store, version, {"adapt.decision": word, "adapt.reasons": "\n".join(reasons)})
        if promoted:
            registry.set_alias(store, registry.CHAMPION, version)
    numbers = shown(config)
    before, after = (_numbers(one.metrics, numbers) for one in (reference, tuned))
    digits = {number.title: number.digits for number in numbers.values()}
    return Promotion(version, promoted, reasons, reference.name, before, after, digits)


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


def _registered(store: Store, run_id: str) -> str:
    """The version that holds results/train/model, made now if there is none."""
    md5 = lineage.output_hash(store.root, registry.MODEL)
    if not md5:
        raise InputError(f"dvc.lock has no {registry.MODEL}: a stage of dvc.yaml has to produce it")
    known = registry.version_with_tag(store, "dvc.model", md5)
    origin = {"dvc.model": md5, **lineage.revision(store.root)}
    return known or registry.register(store, store.root / registry.MODEL, run_id, origin)


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
        model, _ = registry.download(store.client, source, Path(folder) / "model")
        return contest.anew(config, model, store.root, name)


def _is_base(store: Store, version: str) -> bool:
    """Whether this retraining started from `version`: then `evaluate` has judged it."""
    if outside.base_version(store.root, store.config.model) == version:
        return True
    md5 = registry.tags(store, version).get("dvc.model")
    return bool(md5) and md5 == lineage.output_hash(store.root, BASE_MODEL)
