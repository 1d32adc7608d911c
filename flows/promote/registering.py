"""What a promotion registers: a version that is complete, so that it answers wherever it is loaded.

The weights as stage `train` left them, what answers beside them, what MLflow loads it by, and the
model card. It is put together in a folder of the state, where the weights are hard links: they take
their room once. Weights of one hash stay one version, whatever lies beside them.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from adapt import environment
from adapt.data.schema import read_vocabulary
from adapt.evaluation.comparison import COMPARED, change
from adapt.files import linked
from adapt.generation import chosen
from adapt.metrics.headline import HEADLINES
from adapt.metrics.measures import measure
from adapt.params import Content
from adapt.registry import card, contents, registry
from adapt.registry.away import asks
from adapt.registry.card import Facts, Measured
from adapt.registry.describing import STEERING
from adapt.registry.standing import WEIGHTS
from adapt.serving import bundle, mlmodel
from adapt.serving.door_config import DoorConfig
from adapt.tracking import lineage, runs
from adapt.tracking.store import Store
from adapt.watching import profile
from flows.contest import Contestant

if TYPE_CHECKING:
    from adapt.serving.settings import ServeConfig

SPLITS = "results/data/splits"
ENDS = ("", "_low", "_high")  # of a value and its interval, in detection.csv


@asks
def registered(
    store: Store,
    config: Content,
    run_id: str,
    weights: str,
    sides: tuple[Contestant, Contestant],
) -> str:
    """The version that holds results/train/model, made now if there is none.

    `sides`: the tuned model and its base, as they were judged.
    """
    if known := registry.version_of(store, weights):
        return known
    rule = chosen.rules(store.root / "results" / "answer").get("tuned")
    steering = rule.told if rule else ""
    tags = {WEIGHTS: weights, STEERING: steering, **lineage.revision(store.root)}
    facts = gathered(store, config, sides, tags)
    about = card.text(facts)
    run = runs.recorded(store, run_id)
    with composed(store.root, config, about) as folder:
        return registry.register(store, folder, run, tags, about)


@contextmanager
def composed(root: Path, config: Content, about: str) -> Iterator[Path]:
    """The version as a folder that is gone when the block ends."""
    model, state = root / registry.MODEL, environment.state_dir(root)
    contents.check_weights(model)
    state.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=state, prefix="version-") as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(model, folder, copy_function=linked)
        # Answers of before there was anything to serve them with have left nothing for it.
        if bundle.can_compose(root / "results"):
            _complete(root, config, folder)
        fresh(folder / card.NAME, f"{about}\n")
        yield folder


def _complete(root: Path, config: Content, folder: Path) -> None:
    """Add what the version is asked by, watched by, and loaded by."""
    serve: ServeConfig = config["serve"]
    bundle.compose(root / "results", "tuned", lineage.output_hash(root, SPLITS), folder)
    known = bundle.read(folder)
    detector = known.detector if known else None
    values = {"threshold": serve.threshold, "seed": config["evaluate"].seed}
    inside = folder / bundle.FOLDER
    words = read_vocabulary(inside / "vocabulary.json")
    profile.made(root / "results", "tuned", detector, words, **values).write(inside)
    mlmodel.write(folder, DoorConfig.of(serve))


def fresh(path: Path, text: str) -> None:
    """Write a file that may be a link to the model's own of that name, which has to stay."""
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


# ---- the card --------------------------------------------------------------------------------


def gathered(
    store: Store,
    config: Content,
    sides: tuple[Contestant, Contestant],
    tags: Mapping[str, str],
) -> Facts:
    """What the card tells of this retraining."""
    root = store.root
    base = _json(root / "results" / "base" / "source.json")
    version = f", version {base['version']}" if base.get("version") else ""
    splits = {str(one["name"]): int(one["rows"]) for one in lineage.datasets(root)}
    return Facts(
        model=store.config.model,
        started=f"{base.get('source') or config['base'].source}{version}",
        family=str(_json(root / registry.MODEL / "config.json").get("model_type", "unknown type")),
        measured=measured(root, config, sides),
        judged=f"the test split of {config['data'].source}",
        pictures=sides[0].judged["image_id"].nunique(),
        alarm=alarm(root / "results" / "evaluate"),
        steering=tags.get(STEERING, ""),
        data=lineage.output_hash(root, SPLITS),
        splits=splits,
        revision=tags.get("mlflow.source.git.commit", ""),
        is_dirty=tags.get("adapt.git_dirty") == "true",
        weights=tags[WEIGHTS],
    )


def measured(root: Path, config: Content, sides: tuple[Contestant, Contestant]) -> list[Measured]:
    """The headline figures and those of short questions, with intervals where they are known."""
    tuned, base = sides
    steered = _json(root / "results" / "evaluate" / "metrics.json")
    draws = config["evaluate"]
    shown: dict[str, tuple[str, int]] = {one.key: (one.title, one.digits) for one in HEADLINES}
    for key in COMPARED:
        number = measure(key, {})
        shown.setdefault(key, (number.title, number.digits))
    found = []
    for key, (title, digits) in shown.items():
        is_counted = key in COMPARED and key in tuned.metrics and key in base.metrics
        judged = ([tuned.judged], [base.judged])
        of = change(key, *judged, draws.bootstrap, draws.seed) if is_counted else None
        found.append(
            Measured(
                title=title,
                base=base.metrics.get(key),
                tuned=tuned.metrics.get(key),
                steered=steered.get(f"tuned_steered/{key}"),
                change=(of.points[0], of.points[1], of.points[2]) if of else None,
                digits=digits,
            )
        )
    return found


def alarm(evaluated: Path) -> list[str]:
    """What is known of the detector that is served, in sentences; none where none was fitted."""
    table = evaluated / "detection.csv"
    is_there = bundle.can_compose(evaluated.parent)
    by = bundle.warned_by(evaluated, "tuned") if is_there else "none"
    if by == "none" or not table.exists():
        return []
    on = _json(evaluated / bundle.DETECTORS[by]).get("fitted_on", {})
    told = [
        f"It reads attention and the token's probability, and was fitted on {on.get('words')} "
        f"object words in {on.get('images')} validation pictures, {on.get('hallucinated')} of them "
        f"hallucinated, as the {by} model said them."
    ]
    score = f"own_{bundle.SERVED}" if by == "tuned" else bundle.SERVED
    rows, names = pd.read_csv(table).set_index("score"), [f"tuned_auroc{e}" for e in ENDS]
    if score in rows.index and set(names) <= set(rows.columns):
        point, low, high = rows.loc[score, names].astype(float)
        told.append(f"AUROC on its test words: {point:.2f} [{low:.2f}, {high:.2f}].")
    return told


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
