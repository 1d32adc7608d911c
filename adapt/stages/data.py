"""Stage `data`: validated splits with images inside, drawn here or brought by the user.

`data.source` is "scenes" (draw the default world, `adapt/data/scenes.py`) or a folder with
`train.parquet`, `validation.parquet`, `test.parquet` and `vocabulary.json` as
`adapt/data/schema.py` describes them. Both take the same road: the drawn world is first written as
such a folder. Writes `splits/`. A row that fails validation goes to `quarantine/data.jsonl` of the
workspace with its reason; more than the share `data.max_rejected` stops the stage.
"""

from pathlib import Path

from adapt.data.settings import Config
from adapt.progress import Log


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Draw or read, validate, and write the splits; see the module docstring."""
    from adapt.data import splits

    return splits.build(config, results.parent, out / "splits")


if __name__ == "__main__":
    from adapt.launch import launch

    launch("data")
