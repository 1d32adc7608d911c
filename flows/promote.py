"""The end of a retraining: register the model, ask the gate, move the champion's alias or not.

`promote` is the one place that moves the champion. Registering is idempotent: weights that DVC
knows under the same hash are one version. Before there is a champion, the tuned model is compared
with the base that it was tuned from, which `evaluate` has judged on the same images.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from adapt import environment
from adapt.evaluation import gate
from adapt.evaluation.judge import Judged, judge_split
from adapt.metrics.headline import HEADLINES
from adapt.params import Content, InputError
from adapt.stages import answer
from adapt.tracking import lineage, registry
from adapt.tracking.store import Store
from flows import plan

if TYPE_CHECKING:
    import pandas as pd

BASE_MODEL = "results/base/model"


@dataclass(frozen=True)
class Promotion:
    """How it ended: `promoted` is None for what is champion already; headline metrics by title."""

    version: str
    promoted: bool | None
    reasons: tuple[str, ...]
    against: str
    before: dict[str, float]
    after: dict[str, float]

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


@dataclass(frozen=True)
class Contestant:
    """One side of the comparison: the arm `arm` of judged answers and of their metrics."""

    name: str
    arm: str
    judged: "pd.DataFrame | Path"
    metrics: Mapping[str, float]

    def scores(self) -> gate.Scores:
        """What the gate compares."""
        return gate.scores_from(self.judged, self.metrics, self.arm)

    def headline(self) -> dict[str, float]:
        """The few numbers that the table at the end has, by title."""
        keys = {number.title: f"{self.arm}/{number.key}" for number in HEADLINES}
        return {title: float(self.metrics[k]) for title, k in keys.items() if k in self.metrics}


def promote(store: Store, config: Content, run_id: str, move: bool) -> Promotion:
    """Register results/train/model, decide, and make it the champion if `move` is set."""
    evaluated = store.root / "results" / "evaluate"
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    base = Contestant("base model", "base", evaluated / "judged.parquet", metrics)
    tuned = replace(base, arm="tuned")
    # 1. Register first: a model that is refused is kept, with the reasons, beside its run.
    version, champion = _registered(store, run_id), registry.champion(store)
    promoted: bool | None = None
    reasons, reference = tuple[str, ...](), base
    if version != champion:
        registry.set_alias(store, registry.CHALLENGER, version)
        # 2. The gate's decision; one that may not be carried out says so among its reasons.
        reference = _reference(store, config, champion, base)
        resamples, seed = config["evaluate"].bootstrap, config["evaluate"].seed
        scores = tuned.scores(), reference.scores()
        decision = gate.decide(*scores, config["gate"], resamples, seed)
        promoted, reasons = decision.promote and move, decision.reasons
        if decision.promote and not move:
            reasons = (*reasons, "passed, but this retraining may not move the champion")
        # 3. Write the reasons before the alias moves: who sees a new champion finds them there.
        word = "promoted" if promoted else "refused"
        registry.tag(store, version, {"adapt.decision": word, "adapt.reasons": "\n".join(reasons)})
        if promoted:
            registry.set_alias(store, registry.CHAMPION, version)
    against, before, after = reference.name, reference.headline(), tuned.headline()
    return Promotion(version, promoted, reasons, against=against, before=before, after=after)


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
        judged = judge_model(config, model, store.root / "results" / "data" / "splits")
    metrics = {f"tuned/{key}": value for key, value in judged.metrics.items()}
    return Contestant(name, "tuned", judged.responses, metrics)


def judge_model(config: Content, model: Path, splits: Path) -> Judged:
    """A model from elsewhere on the test split, answered and judged as the stages do."""
    tables = answer.open_bench(config["answer"], model, splits, "test").ask("tuned", None)
    anchor_tokens = config["evaluate"].anchor.anchor_tokens
    return judge_split(tables.responses, tables.tokens, splits, "test", anchor_tokens)


def _is_base(store: Store, version: str) -> bool:
    """Whether this retraining started from `version`: then `evaluate` has judged it."""
    if plan.base_version(store.root, store.config.model) == version:
        return True
    md5 = registry.tags(store, version).get("dvc.model")
    return bool(md5) and md5 == lineage.output_hash(store.root, BASE_MODEL)
