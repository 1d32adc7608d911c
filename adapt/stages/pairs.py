"""Stage `pairs`: preference pairs from the base model's own samples, with their visual anchors.

For a random part of the training images, several answers to every question are sampled; ground
truth ranks them, the best and the worst are kept when they differ enough. The anchor of an
image-question is read from the first K tokens of the same samples. Writes `pairs.parquet`.
"""

from pathlib import Path

from adapt.preference.settings import PairsConfig as Config
from adapt.progress import Log


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Sample, rank, annotate; see the module docstring."""
    from adapt.preference.sample import sample_pairs

    splits, base = results / "data" / "splits", results / "base" / "model"
    return sample_pairs(config, splits, base, out / "pairs.parquet", log)


if __name__ == "__main__":
    from adapt.launch import launch

    launch("pairs")
