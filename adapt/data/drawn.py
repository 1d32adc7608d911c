"""Stage `data` on source "scenes": the drawn world, written as it is drawn.

It needs none of an import's checks: its rows are right by construction, its pictures are PNG of our
own, and what is drawn for a split is drawn for it alone.
"""

import json
from pathlib import Path

from adapt.data import scenes
from adapt.data.disk import told
from adapt.data.importing import quarantine
from adapt.data.schema import SPLITS, write_vocabulary
from adapt.data.settings import Config
from adapt.data.tables import Writer


def build(config: Config, workspace: Path, out: Path) -> dict[str, float]:
    """Draw the splits into the folder `out`, and say what they are; returns figures."""
    (workspace / quarantine.FILE).unlink(missing_ok=True)
    objects: dict[str, int] = {}
    counts: dict[str, float] = {}
    with told(out):
        splits = out / "splits"
        splits.mkdir()
        write_vocabulary(splits / "vocabulary.json", scenes.vocabulary())
        for split in SPLITS:
            rows, images = 0, len(objects)
            with Writer(splits / f"{split}.parquet", "evaluation", several=False) as writer:
                for row in scenes.drawn(config.scenes, split, config.seed):
                    writer.write(row)
                    objects[row.image_id] = len(row.objects or ())
                    rows += 1
            counts[f"{split}/images"] = float(len(objects) - images)
            counts[f"{split}/rows"] = float(rows)
        rows = sum(int(counts[f"{split}/rows"]) for split in SPLITS)
        about = {"source": "scenes", "format": "scenes", "why": "drawn here", "revision": ""}
        text = json.dumps({**about, "rows": rows, "rejected": 0}, indent=2)
        (out / "source.json").write_text(text + "\n", encoding="utf-8")
    return counts | {
        "objects_per_image": sum(objects.values()) / len(objects),
        "rejected": 0.0,
        "pictures": float(len(objects)),
        "near_duplicates": 0.0,
        "repeated_rows": 0.0,
        "rows_with_truth": float(rows),
        "rows_without_truth": 0.0,
    }
