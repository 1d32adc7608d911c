"""Small inputs that people brought and that were read wrongly: each with its right value."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.data.schema import Preference
from adapt.data.tables import write_split
from tests.support import published
from tests.support.published import as_lines, imported
from tests.support.workspace import ROOT

CASES = ROOT.parent / "shared" / "cases"


@pytest.mark.parametrize("name", ["photo.jpg", "transparent.png"])
def test_every_tool_sees_the_same_pixels_of_what_is_stored(name, tmp_path):
    """A photo that the camera's EXIF turns, and a picture with colours under its clear parts."""
    file = CASES / "exif-rgba" / name
    if not file.is_file():
        pytest.skip(f"{file} is not on this machine")
    from datasets import Dataset
    from datasets import Image as Feature

    (tmp_path / name).write_bytes(file.read_bytes())
    row = {"question": "q", "chosen": "a", "rejected": "b", "image": name, "ds_name": "d"}
    as_lines(tmp_path / "a.jsonl", [row])
    _, (kept,), refused = imported(tmp_path)
    assert not refused
    plain = Image.open(io.BytesIO(kept.images[0])).convert("RGB")
    data = Dataset.from_list([{"image": {"bytes": kept.images[0], "path": None}}])
    seen = data.cast_column("image", Feature())[0]["image"]
    assert np.array_equal(np.asarray(plain), np.asarray(seen.convert("RGB")))
    came = Image.open(file)
    if came.getexif().get(274) == 6:
        assert plain.size == came.size[::-1]
    if came.mode == "RGBA":
        clear = np.asarray(came)[..., 3] == 0
        assert clear.any() and (np.asarray(plain)[clear] == 255).all()


def test_questions_that_begin_with_the_tag_of_a_picture_lose_it(tmp_path):
    published.ours(tmp_path / "in")
    _, rows, _ = imported(tmp_path / "in")
    rows = [row for row in rows if isinstance(row, Preference) and not row.history]
    tagged = [dataclasses.replace(row, question=f"<image>\n{row.question}") for row in rows]
    Path(tmp_path / "again").mkdir()
    write_split(tmp_path / "again" / "train.parquet", tagged)
    _, again, refused = imported(tmp_path / "again")
    assert again == rows and not refused
