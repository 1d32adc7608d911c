"""The result of a training run: a plain model, its adapters if it has some, curves and counts.

model/                  weights in `train.save_dtype`, configuration, processor
model/adapter/          with LoRA: the adapters alone, for PEFT
history.csv             every curve, a row a step
modules.csv             what was trained, adapted and frozen: adapt/preference/parts.py
summary.json            the stage's metrics; stays behind when the result is handed over
manifest-<rank>.json    what there is: adapt/preference/manifest.py; stays behind as well
"""

import json
from pathlib import Path
from typing import Any

from adapt.files import linked
from adapt.models.load import save
from adapt.preference import adapters, manifest, movement, parts, validation
from adapt.preference.callback import final_metrics, write_history
from adapt.preference.checkpoints import SUMMARY
from adapt.preference.precision import asked_dtype
from adapt.preference.settings import Config


def write_result(
    trainer: Any, model: Any, what: parts.Parts, config: Config, base: Path, folder: Path
) -> None:
    """Write the result of a finished training into `folder`; `model` is whole."""
    # 1. A plain model in float32; the adapters as they are.
    if config.lora.rank > 0:
        adapters.save_adapter(model, folder / "model" / adapters.ADAPTER)
        model = adapters.merged(model, base)
    # 2. How far it is from the base decides what it can be stored in.
    asked = asked_dtype(config, base)
    found = movement.measure(model, base, what.trained, asked)
    movement.warn_if_still(found)
    dtype = movement.stored_dtype(found[""], asked, is_free=config.save_dtype == "auto")
    # 3. Weights, curves, and the numbers that sum the run up.
    save(model, trainer.processing_class, folder / "model", dtype)
    history = trainer.state.log_history
    write_history(history, folder / "history.csv")
    parts.write(what.table, folder / "modules.csv")
    kept = validation.chosen(history)
    summary = {**final_metrics(history), **what.metrics(), **movement.metrics(found), **kept}
    (folder / SUMMARY).write_text(json.dumps(summary))


def deliver(final: Path, out: Path) -> dict[str, float]:
    """Hand a saved result over to `out`; returns the metrics that lie beside it.

    By hard links, so that it is there twice and takes its space once; as a copy where `out` is on
    another file system.
    """
    metrics = json.loads((final / SUMMARY).read_text())
    for path in sorted(final.rglob("*")):
        if path.is_file() and path.name != SUMMARY and not manifest.is_manifest(path):
            linked(path, out / path.relative_to(final))
    return metrics
