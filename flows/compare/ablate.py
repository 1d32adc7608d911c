"""The flow of a comparison: learning rates, scores of every arm and seed, table and runs."""

import json
from collections.abc import Sequence

from prefect import flow

from adapt import params
from adapt.params import Settings
from adapt.tracking import runs
from adapt.tracking.store import Store, TrackingConfig
from flows.compare import rates, scoring, table
from flows.compare.arms import Arm, Comparison
from flows.compare.scoring import ArmScores


@flow(name="ablate", flow_run_name="ablate", validate_parameters=False)
def ablate(comparison: Comparison, names: Sequence[str]) -> str:
    """Score the arms `names` on every seed; returns the table in Markdown."""
    store = Store(comparison.root, params.load(comparison.content, "tracking", TrackingConfig))
    arms = [comparison.arm(name) for name in names]
    name = "" if comparison.split == "test" else f"arms on {comparison.split}"
    with runs.stage_run(store, "arms", comparison.arms, name) as run:
        # 1. The same chance for every arm: its learning rate is chosen on validation.
        arms = rates.tuned(comparison, arms)
        # 2. The split to report on, once per arm and seed.
        scores = scoring.score(comparison, arms, comparison.arms.seeds, comparison.split)
        by_name = {arm.name: arm for arm in arms}
        for one in scores:
            _child(store, run.run_id, by_name[one.arm], one, comparison.split)
        # 3. Side by side.
        text = table.write(comparison, scores)
        files = sorted(comparison.folder.iterdir())
        run.log_files("arms", {path.name: path for path in files})
        run.tag({"mlflow.note.content": text})
    return text


def _child(store: Store, parent: str, arm: Arm, scores: ArmScores, split: str) -> None:
    """An MLflow run for one arm and seed, so that arms can be compared there."""
    stage, config = ("train", arm.train) if arm.train else ("steer", arm.steer or Settings())
    name = f"{arm.name}, seed {scores.seed}"
    with runs.stage_run(store, stage, config, name, parent) as run:
        run.tag({"adapt.arm": json.dumps(arm.changes.named)})
        run.log_metrics({f"{split}/{key}": value for key, value in sorted(scores.metrics.items())})
