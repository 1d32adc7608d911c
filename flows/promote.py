"""The end of a retraining: register the tuned model, let the gate compare it with the champion,
move the alias or not.

Registering is idempotent: weights that DVC knows under the same hash are one version. Before there
is a champion, the tuned model is compared with the base that it was tuned from, which `evaluate`
has measured on the same images.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adapt import environment
from adapt.evaluation import gate
from adapt.evaluation.judge import judge_split
from adapt.metrics.headline import HEADLINES
from adapt.params import InputError
from adapt.stages import answer
from adapt.tracking import registry, results, store
from adapt.tracking.runs import revision
from flows import plan

BASE_MODEL = "results/base/model"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a model. `promoted` is None when there was nothing to decide: it is the
    champion already.
    """

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
        return f"{model} version {self.version} was {'promoted to champion' if self.promoted else 'not promoted'}"


def promote(
    root: Path, config: Mapping[str, Any], run_id: str, move: bool
) -> tuple[Result, gate.Decision | None]:
    """Register results/train/model, decide, and, when the gate agrees and `move` is set, make it
    the champion.
    """
    tracking = config["tracking"]
    version = registered(root, tracking, run_id)
    champion = registry.champion(root, tracking)
    frame = root / "results" / "evaluate" / "judged.parquet"
    metrics = metrics_of(root)
    if version == champion:
        return Result(
            version=version,
            promoted=None,
            reasons=(),
            against="base model",
            before=shown(metrics, "base"),
            after=shown(metrics, "tuned"),
        ), None
    registry.set_alias(root, tracking, registry.CHALLENGER, version)
    old, old_metrics, arm = _reference(root, config, champion, frame, metrics)
    decision = gate.decide(
        gate.scores_from(frame, metrics, "tuned"),
        gate.scores_from(old, old_metrics, arm),
        config["gate"],
        config["evaluate"].bootstrap,
        config["evaluate"].seed,
    )
    if decision.promote and not move:
        decision = gate.Decision(
            False, (*decision.reasons, "passed, but this retraining may not move the champion")
        )
    registry.tag_decision(root, tracking, version, decision)
    if decision.promote:
        registry.set_alias(root, tracking, registry.CHAMPION, version)
    against = f"champion, version {champion}" if champion else "base model"
    return Result(
        version=version,
        promoted=decision.promote,
        reasons=decision.reasons,
        against=against,
        before=shown(old_metrics, arm),
        after=shown(metrics, "tuned"),
    ), decision


def registered(root: Path, tracking: store.TrackingConfig, run_id: str) -> str:
    """The version that holds results/train/model, made now if there is none."""
    md5 = results.output_hash(root, registry.MODEL)
    if not md5:
        raise InputError(f"dvc.lock has no {registry.MODEL}: a stage of dvc.yaml has to produce it")
    known = registry.version_with_tag(root, tracking, "dvc.model", md5)
    origin = {"dvc.model": md5, **revision(root)}
    return known or registry.register(root, tracking, root / registry.MODEL, run_id, origin)


def _reference(
    root: Path,
    config: Mapping[str, Any],
    champion: str | None,
    frame: Path,
    metrics: Mapping[str, float],
) -> tuple[Any, Mapping[str, float], str]:
    """Responses, metrics and arm of what the tuned model has to beat, measured on the same images."""
    if champion is None or is_base(root, config["tracking"].model, champion):
        return frame, metrics, "base"
    state = environment.state_dir(root)
    state.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=state, prefix="champion-") as folder:
        source = f"models:/{config['tracking'].model}/{champion}"
        model, _ = registry.download(root, source, Path(folder) / "model")
        splits = root / "results" / "data" / "splits"
        tables = answer.open_bench(config["answer"], model, splits, "test").ask("tuned", None)
    anchor_tokens = config["evaluate"].anchor.anchor_tokens
    judged = judge_split(tables.responses, tables.tokens, splits, "test", anchor_tokens)
    return judged.responses, {f"tuned/{k}": v for k, v in judged.metrics.items()}, "tuned"


def is_base(root: Path, model: str, version: str) -> bool:
    """Whether a registered version is what this retraining started from, so that `evaluate` has
    measured it already.
    """
    if plan.base_version(root, model) == version:
        return True
    tags = store.client(root).get_model_version(model, version).tags
    return bool(tags.get("dvc.model")) and tags["dvc.model"] == results.output_hash(
        root, BASE_MODEL
    )


def metrics_of(root: Path) -> dict[str, float]:
    """What `evaluate` measured."""
    return dict(
        json.loads((root / "results" / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    )


def shown(metrics: Mapping[str, float], arm: str) -> dict[str, float]:
    """The few numbers that the table at the end has, by title."""
    keys = {number.title: f"{arm}/{number.key}" for number in HEADLINES}
    return {title: float(metrics[key]) for title, key in keys.items() if key in metrics}
