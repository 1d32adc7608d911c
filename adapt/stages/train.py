"""Stage `train`: the ADAPT loss on preference pairs, from the base model, as a Ray Train job.

Where it runs: in this process (`train.workers: 0`), on a local Ray (the default), or, when
RAY_API_SERVER_ADDRESS names a Ray Jobs address, on that cluster; the result comes back into the
workspace either way. A run that was cut off, at whichever moment, is gone on with or collected: its
checkpoints, and its result until DVC knows it, are in the state folder. Writes `model/` and
`history.csv`; reports the mean of every training metric over the last tenth of the steps.
"""

from pathlib import Path

from adapt.cluster import submit
from adapt.environment import state_dir
from adapt.preference.settings import Config
from adapt.progress import Log


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Train here or on the cluster; see the module docstring."""
    inputs = [Path("base/model"), Path("pairs/pairs.parquet"), Path("pairs/plain.parquet")]
    if submit.address() is not None:
        return submit.submit("train", config, inputs, results, out, log)
    from adapt.preference.fit import fit

    base, pairs, plain = (results / path for path in inputs)
    state = state_dir(results.parent) / "train"
    return fit(config, base, pairs, out, state, log, results.parent, plain)


if __name__ == "__main__":
    from adapt.launch import launch

    launch("train")
