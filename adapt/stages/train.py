"""Stage `train`: the ADAPT loss on preference pairs, from the base model, as a Ray Train job.

Where it runs: in this process (`train.workers: 0`), on a local Ray (the default), or on a cluster
(`adapt.launch`). A run that was cut off, at whichever moment, is gone on with or collected: its
checkpoints, and its result until DVC knows it, are in the state folder. Writes `model/`, of the
last checkpoint or (`train.validation`) of the best on the validation split, and `history.csv`;
reports the mean of every training metric over the last tenth of the steps.
"""

from pathlib import Path

from adapt.environment import state_dir
from adapt.preference.settings import Config
from adapt.progress import Log

READ = ("base/model", "pairs/pairs.parquet", "pairs/plain.parquet")
SPLITS = "data/splits"


def inputs(config: Config) -> tuple[str, ...]:
    """What it reads below `results/`, for a cluster; the splits where checkpoints are validated."""
    return (*READ, SPLITS) if config.validation else READ


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Train; see the module docstring."""
    from adapt.inspect.settled import settle
    from adapt.preference.fit import fit

    base, pairs, plain = (results / path for path in READ)
    splits, state = results / SPLITS, state_dir(results.parent) / "train"
    return fit(config, base, pairs, out, state, log, results.parent, plain, splits, settle)


if __name__ == "__main__":
    from adapt.launch import launch

    launch("train")
