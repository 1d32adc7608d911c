"""A picture that EXIF turns is one picture everywhere: import, anchor, training, panels, inspect.

The same pictures are brought twice, once as a camera on its side stores them and once upright. All
that is made of them must be equal, and the anchor must lie on the upright picture.
"""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapt.attention.settings import AnchorConfig
from adapt.data.schema import open_images
from adapt.data.settings import Config, SplitConfig
from adapt.data.tables import read_preferences, read_split
from adapt.inspect.probes import read_picture
from adapt.models.load import save
from adapt.pairs.settings import KeepConfig, PairsConfig
from adapt.pairs.table import read_pairs
from adapt.preference.dataset import dataset
from adapt.progress import unlogged
from adapt.stages import data, pairs
from tests.support import tiny_world
from tests.support.preference_rows import collator

ORIENTATION = 0x0112
TURNS = {  # how the camera was held: what its pixels need to stand upright
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_270,
    8: Image.Transpose.ROTATE_90,
}
BACK = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
WORLD = tiny_world.scenes(size=32, noise=0.0)


def upright(number: int) -> Image.Image:
    """Half dark, half light, so that its way up matters; another one for each number."""
    shade = np.random.default_rng(number).integers(0, 90, (48, 32, 3), dtype=np.uint8)
    shade[:24] += 150
    return Image.fromarray(shade)


def stored(picture: Image.Image, orientation: int) -> bytes:
    """The picture as PNG, its pixels turned and the turn noted in EXIF; 1 leaves it upright."""
    buffer, turned = io.BytesIO(), picture
    exif = picture.getexif()
    if orientation != 1:
        turned = picture.transpose(BACK[orientation])
        exif[ORIENTATION] = orientation
    turned.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def brought(folder: Path, orientation: int) -> None:
    """A folder of preferences about ten such pictures."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(10):
        name = f"images/{number}.png"
        (folder / name).write_bytes(stored(upright(number), orientation))
        said = {"chosen": "a red car and a tree.", "rejected": "a blue house."}
        row = {"id": f"row-{number}", "image": name, "prompt": "describe the picture.", **said}
        lines.append(json.dumps(row) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The results folder of a workspace whose pictures are stored in this orientation."""

    @cache
    def results(orientation: int) -> Path:
        root = tmp_path_factory.mktemp("workspace")
        brought(root / "mine", orientation)
        results = root / "results"
        for stage in ("data", "pairs"):
            (results / stage).mkdir(parents=True)
        split = SplitConfig(validation=2, test=2)
        about = {"source": "mine", "format": "auto", "pictures": "", "split": split}
        config = Config(**about, max_rejected=0.0, scenes=WORLD, seed=7)
        data.run(config, results, results / "data", unlogged)
        save(tiny_world.model(), tiny_world.processor(), results / "base" / "model")
        sampling = {"images": 1, "kinds": ("describe",), "samples": 2, "min_gap": 0.1}
        asked = PairsConfig(
            source="given",
            limit=0,
            skip=0,
            temperature=1.0,
            unit="answer",
            chosen="any",
            min_best="any",
            likelihood="any",
            repeats="keep",
            keep=KeepConfig(kinds=("exists",), images=0, path=""),
            batch=4,
            actors=0,
            actor_cpus=1,
            anchor=AnchorConfig(anchor_tokens=2, noise_images=2),
            device="cpu",
            max_new_tokens=4,
            seed=7,
            **sampling,
        )
        pairs.run(asked, results, results / "pairs", unlogged)
        return results

    return results


@pytest.mark.parametrize("orientation", TURNS)
def test_what_is_stored_after_import_is_upright(made: Any, orientation: int) -> None:
    split = made(orientation) / "data" / "splits" / "train.parquet"
    for row in read_preferences(split):
        number = int(row.id.removeprefix("row-"))
        plain = Image.open(io.BytesIO(row.images[0]))  # as a tool sees it that knows no EXIF
        assert plain.size == (32, 48) and plain.getexif().get(ORIENTATION, 1) == 1
        assert np.array_equal(np.asarray(plain.convert("RGB")), np.asarray(upright(number)))


@pytest.mark.parametrize("orientation", TURNS)
def test_anchors_and_training_see_what_the_upright_file_shows(made: Any, orientation: int) -> None:
    turned, plain = (read_pairs(made(way) / "pairs" / "pairs.parquet") for way in (orientation, 1))
    assert len(turned) == len(plain) > 0
    for one, other in zip(turned, plain, strict=True):
        assert (one.id, one.anchor, one.views) == (other.id, other.anchor, other.views)
        assert one.support == other.support
    both = [collator()([dataset(rows, [row.id for row in rows])[0]]) for rows in (turned, plain)]
    assert both[0].keys() == both[1].keys()
    for name, value in both[0].items():
        assert np.array_equal(np.asarray(value), np.asarray(both[1][name])), name


@pytest.mark.parametrize("orientation", TURNS)
def test_panels_and_inspection_draw_the_upright_picture(
    made: Any, orientation: int, tmp_path: Path
) -> None:
    row = read_split(made(orientation) / "data" / "splits" / "test.parquet")[0]
    number = int(row.id.removeprefix("row-"))
    (shown,) = open_images(row)
    (tmp_path / "turned.png").write_bytes(stored(upright(number), orientation))
    inspected = read_picture(tmp_path / "turned.png")
    for picture in (shown, inspected):
        assert np.array_equal(np.asarray(picture), np.asarray(upright(number)))
