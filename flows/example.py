"""Your data and your benchmark: what bringing them looks like, with both drawn here.

    python -m flows.example              # what `make example` does
    python -m flows.example --folder /tmp/example --images 600

It clones this project into a folder of its own (`example/`), so that your results stay as they are,
and draws two things there in published forms: preferences in RLHF-V's columns, which say nothing of
what is in the pictures, and yes/no questions in POPE's. Then it sets these keys of the clone's
params.yaml and retrains the default base:

    data:   {source: drawn/rlhf-v}                       recognised by its columns
    answer: {questions: 100, benchmarks: [{name: pope, path: drawn/pope/questions.json, ...}]}
    gate:   {pope.f1: {max_loss: 1.0}, mass_late_early: {max_loss: 0.05}}

What could not be measured without knowing what is in the pictures is said, and the gate answers by
the benchmark. A second call goes on where the first one ended.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from adapt import command, environment
from adapt.data import scenes
from adapt.data.settings import ScenesConfig
from adapt.files import whole_folder
from adapt.names import one_line
from adapt.params import InputError, load, read
from adapt.progress import track

SEED = 1_000_003  # of this world, which is not the one that the base has learnt
ASKED = 300  # pictures with questions of the benchmark
SETTINGS: dict[str, Any] = {
    "data": {"source": "drawn/rlhf-v"},
    "answer": {
        "questions": 100,
        # The default base has learnt the bare questions.
        "benchmarks": [{"name": "pope", "path": "drawn/pope/questions.json", "suffix": ""}],
    },
    "gate": {"pope.f1": {"max_loss": 1.0}, "mass_late_early": {"max_loss": 0.05}},
}
RLHF_V = pa.schema(
    {
        "ds_name": pa.string(),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "text": pa.string(),
        "origin_dataset": pa.string(),
        "origin_split": pa.string(),
        "idx": pa.int64(),
        "image_path": pa.string(),
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code is that of `flows.retrain`."""
    parser = environment.parser("flows.example", __doc__)
    where = "the workspace that is made (example)"
    parser.add_argument("--folder", type=Path, default=Path("example"), help=where)
    count = "pictures of which pairs are drawn; two in three have one (2400)"
    parser.add_argument("--images", type=int, default=2400, metavar="N", help=count)
    options = parser.parse_args(arguments)
    root, folder = Path.cwd(), options.folder.resolve()
    work = partial(prepare, root, folder, options.images)
    if code := command.ended("example", work, stopped=""):
        return code
    print(one_line(f"example: retraining in {options.folder}"), flush=True)
    env = os.environ | {"ADAPT_STATE": str(folder / ".state")}
    with subprocess.Popen([sys.executable, "-m", "flows.retrain"], cwd=folder, env=env) as retrain:
        while True:
            with suppress(KeyboardInterrupt):  # reaches the retraining too, which ends in its way
                return retrain.wait()


def prepare(root: Path, folder: Path, images: int) -> None:
    """The workspace `folder` with data, benchmark and parameters; what is there already stays."""
    if not folder.exists():
        words = ["git", "clone", "--quiet", "--local", str(root), str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().partition("\n")[0]
            raise InputError(f"{folder}: cannot be cloned from {root}: {reason}")
    path = folder / "params.yaml"
    content = read(path)
    if not (folder / "drawn").exists():
        # The parameters first: where drawing is interrupted, the next call begins here again.
        world = load(content, "scenes", ScenesConfig)
        for section, values in SETTINGS.items():
            content[section] = values if section == "gate" else content[section] | values
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        with whole_folder(folder / "drawn") as drawn:
            draw(drawn, world.model_copy(update={"train_images": images, "test_images": ASKED}))


def draw(folder: Path, world: ScenesConfig) -> None:
    """Write `rlhf-v/` and `pope/` of this world into the folder."""
    (folder / "rlhf-v").mkdir()
    pairs = list(preferences(scenes.drawn(world, "train", SEED)))
    table = pa.Table.from_pylist(pairs, schema=RLHF_V)
    pq.write_table(table, folder / "rlhf-v" / "RLHF-V-Dataset.parquet", row_group_size=1000)
    pictures = folder / "pope" / "images"
    pictures.mkdir(parents=True)
    asked = [row for row in scenes.drawn(world, "test", SEED) if row.kind == "exists"]
    lines = []
    for number, row in enumerate(track(asked, "writing questions"), 1):
        name = f"{row.image_id}.png"
        (pictures / name).write_bytes(row.images[0])
        label = row.answer.split(",")[0]
        question = {"question_id": number, "image": name, "text": row.question, "label": label}
        lines.append(json.dumps(question) + "\n")
    (folder / "pope" / "questions.json").write_text("".join(lines), encoding="utf-8")


def preferences(rows: Iterator[scenes.SceneExample]) -> Iterator[dict[str, Any]]:
    """Rows of RLHF-V: what is true is preferred to what habit says; nothing says what is there."""
    number, before = 0, None
    for row in rows:
        pairs = [(row, row.noisy_answer)] if row.noisy_answer else []
        # Habit says yes to what is absent. The question before is about something that is there:
        # without its pair, training would only learn to say no.
        if pairs and row.kind == "exists" and before is not None:
            thing = before.id.rpartition("exists-")[2]
            pairs.append((before, f"no, there is no {thing}."))
        for one, rejected in pairs:
            yield _row(number, one, rejected)
            number += 1
        before = row if row.kind == "exists" else None


def _row(number: int, row: scenes.SceneExample, rejected: str) -> dict[str, Any]:
    pair = {"question": row.question, "chosen": row.answer, "rejected": rejected}
    return {
        "ds_name": "drawn",
        "image": {"bytes": row.images[0], "path": f"{row.image_id}.png"},
        "text": json.dumps(pair),
        "origin_dataset": "scenes",
        "origin_split": json.dumps({"model": "habit", "type": row.kind}),
        "idx": number,
        "image_path": f"{row.image_id}.png",
    }


if __name__ == "__main__":
    raise SystemExit(main())
