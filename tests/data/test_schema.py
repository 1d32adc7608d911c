"""The record: what is refused and why, and files that Hugging Face `datasets` reads as they are."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adapt.data.schema import (
    Example,
    SceneObject,
    Vocabulary,
    open_images,
    open_picture,
    read_vocabulary,
    write_vocabulary,
)
from adapt.data.tables import read_rows, read_split, write_split
from adapt.data.validation import RowError, validate, validate_rows
from adapt.params import InputError

WORDS = Vocabulary(
    objects={"house": ("house", "houses"), "tree": ("tree",), "car": ("car",)},
    colours=("red", "green"),
)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def example(row_id: str = "a-0") -> Example:
    return Example(
        id=row_id,
        image_id="a",
        images=(png(),),
        kind="describe",
        history=(),
        question="describe the picture.",
        answer="a red house.",
        objects=(SceneObject(name="house", colour="red", box=(0.1, 0.2, 0.5, 1.0)),),
        absent=("tree",),
    )


def row(**changes: Any) -> dict[str, Any]:
    thing = {"name": "house", "colour": "red", "box": [0.1, 0.2, 0.5, 1.0]}
    good = {
        "id": "a-0",
        "image_id": "a",
        "images": [{"bytes": png(), "path": None}],
        "kind": "describe",
        "question": "describe the picture.",
        "answer": "a red house.",
        "objects": [thing],
        "absent": ["tree"],
    }
    return good | changes


def box(*values: float | None) -> list[dict[str, Any]]:
    return [{"name": "house", "colour": "red", "box": list(values)}]


def refusal(changed: dict[str, Any], folder: Path = Path("folder")) -> str:
    with pytest.raises(RowError) as caught:
        validate(changed, 3, file=folder / "train.parquet", vocabulary=WORDS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_row_becomes_an_example() -> None:
    assert validate(row(), 0, file=Path("train.parquet"), vocabulary=WORDS) == example()


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no answer": ({"answer": None}, "answer: is empty"),
    "blank question": ({"question": "  "}, "question: is empty"),
    "no image id": ({"image_id": ""}, "image_id: is empty"),
    "kind": ({"kind": "vqa"}, "kind: 'vqa' is not one of describe, exists, colour"),
    "exists": ({"kind": "exists", "answer": "Maybe."}, "begins with yes or no, not 'maybe'"),
    "no image": ({"images": [None]}, "image: has neither bytes nor path"),
    "empty image": (
        {"images": [{"bytes": b"", "path": None}]},
        "image: has neither bytes nor path",
    ),
    "text as image": (
        {"images": [{"bytes": b"hello", "path": None}]},
        "image: is not an image file",
    ),
    "truncated image": (
        {"images": [{"bytes": png()[:-200], "path": None}]},
        "image: does not decode (image file is trunc",
    ),
    "box order": (
        {"objects": box(0.5, 0.2, 0.1, 1.0)},
        "box of 'house' [0.5, 0.2, 0.1, 1.0] is not 0 <= x0 < x1 <= 1",
    ),
    "box in pixels": (
        {"objects": box(10, 20, 30, 40)},
        "box of 'house' [10, 20, 30, 40] is not 0 <=",
    ),
    "box not a number": ({"objects": box(float("nan"), 0, 1, 1)}, "is not 0 <="),
    "box of three": ({"objects": box(0, 0, 1)}, "has not four numbers"),
    "box with a hole": ({"objects": box(0, 0, 1, None)}, "has not four numbers"),
    "unknown object": (
        {"objects": [{"name": "huose", "colour": "", "box": [0, 0, 1, 1]}]},
        "'huose' is not in voc",
    ),
    "unknown colour": (
        {"objects": [{"name": "house", "colour": "teal", "box": [0, 0, 1, 1]}]},
        "colour 'teal'",
    ),
    "unknown absent": ({"absent": ["tre"]}, "absent: 'tre' is not in vocabulary.json"),
    "present and absent": ({"absent": ["tree", "house"]}, "absent: 'house' is also in objects"),
}


@pytest.mark.parametrize(("changes", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_refused_with_its_place(changes: dict[str, Any], reason: str) -> None:
    message = refusal(row(**changes))
    assert message.startswith("folder/train.parquet: row 3 (id a-0): ") and reason in message


def test_a_row_without_id_is_named_by_its_number() -> None:
    assert refusal(row(id=None)) == "folder/train.parquet: row 3 (id missing): id: is empty"


def test_an_image_path_is_read_inside_the_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")

    def with_path(path: str) -> dict[str, Any]:
        return row(images=[{"bytes": None, "path": path}])

    file = folder / "train.parquet"
    assert validate(with_path("images/a.png"), 0, file=file, vocabulary=WORDS).images == (png(),)
    for path in (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "images/../../secret.png",
    ):
        assert f"image: path {path!r} leads out of the data folder" in refusal(
            with_path(path), folder
        )
    assert "no such file" in refusal(with_path("images/b.png"), folder)
    assert "is a directory" in refusal(with_path("images"), folder)


def test_a_second_row_with_an_id_is_refused() -> None:
    results = list(
        validate_rows([row(), row()], file=Path("t.parquet"), vocabulary=WORDS, ids=set())
    )
    assert isinstance(results[0], Example)
    assert str(results[1]) == "t.parquet: row 1 (id a-0): id: occurs before"


def test_split_round_trip_with_the_same_bytes(tmp_path: Path) -> None:
    examples = [example(f"a-{i}") for i in range(5)]
    write_split(tmp_path / "one.parquet", examples)
    write_split(tmp_path / "two.parquet", examples)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    again = read_split(tmp_path / "one.parquet")
    assert again == examples and again[0].images[0] is again[4].images[0]
    assert open_images(again[0])[0].size == (30, 20)


def test_rows_of_one_image_store_it_once(tmp_path: Path) -> None:
    for count in (1, 100):
        write_split(tmp_path / f"{count}.parquet", [example(f"a-{i}") for i in range(count)])
    assert (tmp_path / "100.parquet").stat().st_size < (
        tmp_path / "1.parquet"
    ).stat().st_size + 3000


def test_hugging_face_datasets_reads_and_writes_the_format(tmp_path: Path) -> None:
    from datasets import Dataset, List
    from datasets import Image as ImageFeature

    write_split(tmp_path / "train.parquet", [example()])
    dataset = Dataset.from_parquet(
        str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert dataset.features["image"] == ImageFeature() and isinstance(
        dataset.features["objects"], List
    )
    assert np.array_equal(np.asarray(dataset[0]["image"]), np.asarray(open_images(example())[0]))
    assert dataset[0]["objects"] == [
        {"name": "house", "colour": "red", "box": [0.1, 0.2, 0.5, 1.0]}
    ]
    dataset.to_parquet(str(tmp_path / "again.parquet"))
    assert read_split(tmp_path / "again.parquet") == [example()]


def test_columns_of_a_wrong_type_or_missing_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_split(path, [example()])
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["answer", "kind"]), path)
    with pytest.raises(InputError, match=r"train\.parquet: missing column kind, answer$"):
        read_rows(path)
    pq.write_table(table.set_column(2, "image", pa.array(["a.png"])), path)
    with pytest.raises(
        InputError, match=r"train\.parquet: column image is string, expected struct"
    ):
        read_rows(path)


def test_other_types_of_the_same_values_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_split(path, [example()])
    table = pq.read_table(path)
    large = table.set_column(0, "id", table["id"].cast(pa.large_string()))
    pq.write_table(large.append_column("extra", pa.array([1])), path)
    assert validate(read_rows(path)[0], 0, file=path, vocabulary=WORDS) == example()


def test_what_is_no_parquet_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    with pytest.raises(InputError, match=r"train\.parquet: not found$"):
        read_rows(path)
    path.write_text("id,answer\n")
    with pytest.raises(InputError, match=r"not a parquet file, or damaged$"):
        read_rows(path)
    write_split(path, [example()])
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"not a parquet file, or damaged$"):
        read_rows(path)


def test_vocabulary_round_trip(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocabulary.json", WORDS)
    assert read_vocabulary(tmp_path / "vocabulary.json") == WORDS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "expected {"),
        ({"objects": {"house": ["house"]}}, "expected {"),
        ({"objects": {"house": []}, "colours": []}, "object 'house' has no words"),
        ({"objects": {"house": ["House"]}, "colours": []}, "'House' is not a lower-case word"),
        (
            {"objects": {"bat": ["bat"], "club": ["bat"]}, "colours": []},
            "'bat' means both 'bat' and 'club'",
        ),
    ],
)
def test_a_bad_vocabulary_is_one_clear_line(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_vocabulary(path)
    assert str(caught.value).startswith(f"{path}: ") and reason in str(caught.value)


def test_rows_of_several_pictures_have_a_list_of_them(tmp_path: Path) -> None:
    several = dataclasses.replace(example(), images=(png(), png()[:1] + png()[1:]))
    write_split(tmp_path / "two.parquet", [several, example("a-1")])
    assert "images" in pq.read_schema(tmp_path / "two.parquet").names
    assert read_split(tmp_path / "two.parquet") == [several, example("a-1")]
    bad = row(images=[{"bytes": png(), "path": None}, None])
    assert "images[1]: has neither bytes nor path" in refusal(bad)


@pytest.mark.parametrize(
    ("question", "kept"),
    [
        ("<image>\nIs it red?", "Is it red?"),
        ("Is it red?\n<image>", "Is it red?\n<image>"),
        ("Is it red?", "Is it red?"),
    ],
)
def test_tags_say_where_a_picture_stands(question: str, kept: str) -> None:
    good = validate(row(question=question), 0, file=Path("t.parquet"), vocabulary=WORDS)
    assert good.question == kept
    assert "says <image> 2 times, but the row has 1 pictures" in refusal(
        row(question="<image> or <image>?")
    )


def test_a_picture_is_upright_and_opaque_wherever_it_is_opened() -> None:
    turned, buffer = Image.new("RGB", (4, 2), "red"), io.BytesIO()
    turned.putpixel((0, 0), (0, 0, 255))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(buffer, "PNG", exif=exif)
    upright = open_picture(buffer.getvalue())
    assert upright.size == (2, 4) and upright.getpixel((1, 0)) == (0, 0, 255)
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(buffer, "PNG")
    clear = open_picture(buffer.getvalue())
    assert clear.mode == "RGB" and clear.getpixel((0, 0)) == (255, 255, 255)
