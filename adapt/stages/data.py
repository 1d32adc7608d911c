"""Stage `data`: checked rows in three splits, pictures inside, drawn here or brought by the user.

`data.source` is "scenes" (draw the default world, `adapt/data/scenes.py`), or a folder, a file,
`hf:owner/name` or an `s3://` address with preferences or questions in a published format
(`adapt/data/formats`) or in our own (`adapt/data/columns.py`). Writes `splits/` and `source.json`.

A row that fails a check goes to `quarantine/data.jsonl` of the workspace with its reason; more than
the share `data.max_rejected` stops the stage. What was found of a row is kept in the state folder,
so that the next run checks new and changed rows only.
"""

from pathlib import Path

from adapt.data.settings import Config
from adapt.progress import Log


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Draw or import, and write the splits; see the module docstring."""
    if config.source == "scenes":
        from adapt.data import drawn

        return drawn.build(config, results.parent, out)
    from adapt.data.importing import build

    return build.build(config, results.parent, out)


if __name__ == "__main__":
    from adapt.launch import launch

    launch("data")
