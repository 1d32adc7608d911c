"""Stage `base`: the model that a retraining starts from.

`base.source` is "scratch" (train the embedded default model on the training split, noisy answers
included), a local folder, a hub id, or a registry alias such as `models:/adapt@champion`. Writes
`model/`, `source.json` and, for "scratch", `history.csv`; reports how much the model hallucinates
on the validation split.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.params import require, shared

if TYPE_CHECKING:
    from adapt.data.schema import Example, Vocabulary

Log = Callable[[int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Section `base` of params.yaml; sizes and steps matter to source "scratch" only."""

    source: str
    vision_steps: int
    vision_batch: int
    language_steps: int
    language_batch: int
    learning_rate: float
    width: int
    vision_layers: int
    text_layers: int
    heads: int
    patch_size: int
    max_new_tokens: int = shared()
    seed: int = shared()

    def __post_init__(self) -> None:
        require(
            bool(self.source),
            "source",
            "must name a model: scratch, a folder, a hub id or models:/NAME@ALIAS",
        )
        for key in (
            "vision_steps",
            "vision_batch",
            "language_steps",
            "language_batch",
            "width",
            "vision_layers",
            "text_layers",
            "heads",
            "patch_size",
            "max_new_tokens",
        ):
            require(getattr(self, key) >= 1, key, f"must be at least 1, got {getattr(self, key)}")
        require(
            self.learning_rate > 0, "learning_rate", f"must be positive, got {self.learning_rate}"
        )
        require(
            self.width % self.heads == 0,
            "width",
            f"must be divisible by heads ({self.heads}), got {self.width}",
        )


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Produce `out/model` and measure it on the validation split; see the module docstring."""
    from adapt.data.schema import read_split, read_vocabulary
    from adapt.models.load import load_model, load_processor, save
    from adapt.progress import History

    splits = results / "data" / "splits"
    vocabulary = read_vocabulary(splits / "vocabulary.json")
    history = History(log)
    version = ""
    if config.source == "scratch":
        model, processor = _from_scratch(config, splits, vocabulary, history)
    else:
        source, version = _resolve(config.source, results.parent, out / "model")
        model, processor = load_model(source), load_processor(source)
    save(model, processor, out / "model")
    history.write(out / "history.csv")
    (out / "source.json").write_text(
        json.dumps({"source": config.source, "version": version}) + "\n"
    )
    rows = read_split(splits / "validation.parquet")
    return validate(model, processor, rows, vocabulary, config.max_new_tokens)


def _from_scratch(
    config: Config, splits: Path, vocabulary: "Vocabulary", log: Log
) -> tuple[Any, Any]:
    from adapt.data.schema import open_image, read_split
    from adapt.models.pretrain import Schedule, pretrain
    from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer

    rows = read_split(splits / "train.parquet")
    width, height = open_image(rows[0]).size
    fits = width == height and width % config.patch_size == 0
    require(
        fits,
        "base.patch_size",
        f"{config.patch_size} does not divide square images of {width} x {height} pixels",
    )
    shape = Shape(
        width=config.width,
        vision_layers=config.vision_layers,
        text_layers=config.text_layers,
        heads=config.heads,
        patch_size=config.patch_size,
        image_size=width,
    )
    tokenizer = build_tokenizer(
        text for e in rows for text in (e.question, e.answer, e.noisy_answer)
    )
    processor = build_processor(tokenizer, shape)
    model = build_model(tokenizer, shape, config.seed)
    plan = Schedule(
        vision_steps=config.vision_steps,
        vision_batch=config.vision_batch,
        language_steps=config.language_steps,
        language_batch=config.language_batch,
        learning_rate=config.learning_rate,
    )
    pretrain(model, processor, rows, vocabulary, plan, config.seed, log)
    return model.eval(), processor


def _resolve(source: str, root: Path, folder: Path) -> tuple[str | Path, str]:
    """A loadable path or hub id, and the version of a registered model, fetched into `folder` (""
    for others).
    """
    if not source.startswith("models:/"):
        return source, ""
    from adapt.tracking.registry import download

    return download(root, source, folder)


def validate(
    model: Any,
    processor: Any,
    rows: Sequence["Example"],
    vocabulary: "Vocabulary",
    max_new_tokens: int,
    batch: int = 100,
) -> dict[str, float]:
    """CHAIR_i, Hal, Cover, Cog (percent) and answer length (tokens) of greedy descriptions."""
    from adapt.data.schema import open_image
    from adapt.generation.answer import answer
    from adapt.metrics.chair import aggregate, count
    from adapt.progress import track

    rows = [e for e in rows if e.kind == "describe"]
    counts, lengths = [], []
    for start in track(range(0, len(rows), batch), "validating"):
        part = rows[start : start + batch]
        answers = answer(
            model,
            processor,
            [open_image(e) for e in part],
            [e.question for e in part],
            anchor_tokens=1,
            max_new_tokens=max_new_tokens,
        )
        lengths += answers.mask_BT.sum(1).tolist()
        counts += [count(t, e, vocabulary) for t, e in zip(answers.texts, part, strict=True)]
    return {**aggregate(counts), "length": sum(lengths) / max(len(lengths), 1)}


if __name__ == "__main__":
    from adapt.launch import launch

    launch("base")
