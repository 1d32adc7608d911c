"""Stage `base`: the model that a retraining starts from.

`base.source` is "scratch" (train the embedded default model on the world that section `scenes`
describes, whatever the splits hold), a local folder, a hub id, or a registry alias such as
`models:/adapt@champion`. Writes `model/`, whose chat template holds what section `prompt` adds,
`source.json` and `history.csv` (without rows unless "scratch"); reports how much the model
hallucinates on the validation split.
"""

import json
from pathlib import Path

from adapt.models.settings import Config
from adapt.progress import History, Log


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Produce `out/model` and measure it on the validation split; see the module docstring."""
    from adapt.data import scenes
    from adapt.data.readers import digests
    from adapt.data.schema import read_vocabulary
    from adapt.data.tables import read_split
    from adapt.environment import state_dir
    from adapt.generation.validate import validate
    from adapt.models import load, pretrain
    from adapt.models.device import generation_dtype, resolve
    from adapt.models.template import prompt_version, set_prompt
    from adapt.models.trial import check_together

    splits = results / "data" / "splits"
    vocabulary = read_vocabulary(splits / "vocabulary.json")
    history, version = History(log), ""
    if config.source == "scratch":
        world = [*scenes.drawn(config.scenes, "train", config.seed)]
        words = scenes.vocabulary()
        model, processor = pretrain.from_scratch(config, world, words, history)
    else:
        source, version = _resolve(config.source, results.parent, out / "model")
        model, processor = load.load_model(source, dtype=None), load.load_processor(source)
    commit = getattr(model.config, "_commit_hash", None) or ""  # where it comes from the hub
    set_prompt(processor, config.prompt)
    load.save(model, processor, out / "model")
    del model  # it may take half of the memory
    # What the other stages will load: on their device, in the numbers that they compute in.
    device = resolve(config.device)
    model = load.load_model(out / "model", device, generation_dtype(device))
    check_together(model, processor, config.source)
    history.write(out / "history.csv")
    prompted = {"prompt": prompt_version(processor), "commit": commit}
    origin = {"source": config.source, "version": version, **prompted}
    brought = results.parent / config.source
    if config.source != "scratch" and brought.is_dir():
        origin["files"] = digests.of_folder(brought, state_dir(results.parent) / "digests.json")
    (out / "source.json").write_text(json.dumps(origin) + "\n")
    rows = read_split(splits / "validation.parquet")
    return validate(model, processor, rows, vocabulary, config.max_new_tokens)


def _resolve(source: str, root: Path, folder: Path) -> tuple[str | Path, str]:
    """A loadable path or hub id; and a registered model's version, fetched into `folder`, or ""."""
    if not source.startswith("models:/"):
        return source, ""
    from adapt.registry.download import download
    from adapt.tracking.store import client

    return download(client(root), source, folder)


if __name__ == "__main__":
    from adapt.launch import launch

    launch("base")
