"""Stage `pairs`: preference pairs with their visual anchors, given or of the base model's own.

Given pairs are those of preference data: only the anchor is computed, from a pass over the first K
tokens of the chosen answer. Own ones are sampled: for a random part of the training images several
answers to every question; ground truth ranks them, the best and the worst are kept when they differ
enough, and the anchor is read from the first K tokens of the same samples. What was worked out
before for the same model, settings and row is not worked out again. Writes `pairs.parquet`,
`plain.parquet`, the rows with one answer that training may rehearse beside them (`pairs.keep`;
none unless asked for), and `report.json`, which says what may spoil a training on the pairs.
"""

from pathlib import Path

from adapt.data.outside import Outside
from adapt.pairs.settings import PairsConfig as Config
from adapt.params import require
from adapt.progress import Log


def inputs(config: Config) -> tuple[str, ...]:
    """What it reads below `results/`, for a cluster."""
    return "data/splits", "base/model"


def outside(config: Config) -> tuple[Outside, ...]:
    """What it reads elsewhere: the file of `keep.path`; InputError where there is none."""
    file = config.keep.file
    if file is None:
        return ()
    require(file.is_file(), "pairs.keep.path", f"{file}: there is no such file")
    return (Outside(("keep", "path"), config.keep.path, (file,)),)


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Make the pairs; see the module docstring."""
    from adapt.pairs.make import make_pairs

    splits, base = results / "data" / "splits", results / "base" / "model"
    return make_pairs(config, splits, base, out, log)


if __name__ == "__main__":
    from adapt.launch import launch

    launch("pairs")
