"""The pair file gives back what was written, and says which row is wrong, and what of it."""

import dataclasses
from typing import Any

import pyarrow.parquet as pq
import pytest

from adapt.pairs.table import (
    Origin,
    PairPlace,
    PairView,
    read_ids,
    read_origin,
    read_pairs,
    write_pairs,
)
from adapt.params import InputError
from adapt.preference.dataset import dataset
from tests.support.preference_rows import changed, origin, pairs, support

VIEW = PairView(image=1, kind="tile", rows=1, columns=2)
PLACE = PairPlace(start=2, end=9, image=0, boxes=((0.1, 0.0, 1 / 3, 1.0), (0.5, 0.5, 0.75, 0.6)))


def test_it_gives_back_what_was_written(tmp_path):
    one, two, three = pairs(3)
    two = changed(two, anchor=(0.25, 0.0, 0.75), views=(VIEW,), chosen_spans=((0, 2), (4, 7)))
    two = changed(two, places=(PLACE, dataclasses.replace(PLACE, boxes=())), prefix="")
    three = changed(three, images=(*one.images, *two.images), support=(support(0), support(1)))
    write_pairs(tmp_path / "pairs.parquet", [one, two, three], origin())
    back = read_pairs(tmp_path / "pairs.parquet")
    assert back[1] == two
    assert [dataclasses.replace(p, anchor=()) for p in back] == [
        dataclasses.replace(p, anchor=()) for p in (one, two, three)
    ]
    assert back[0].anchor == pytest.approx(one.anchor)
    assert read_origin(tmp_path / "pairs.parquet") == origin()
    row = dataset(back, read_ids(tmp_path / "pairs.parquet"))[2]
    assert (row["images"], row["support"]) == (three.images, three.support)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(chosen=""), "no chosen"),
        (dict(images=()), "no images"),
        (dict(images=(b"",)), "images: one has no bytes"),
        (dict(rejected_score=float("nan")), "rejected_score: nan"),
        (dict(anchor=(0.5, float("inf"))), "anchor: a value is negative or not finite"),
        (dict(anchor=(-0.5,) * 16), "anchor: a value is negative or not finite"),
        (dict(anchor=(0.5,) * 15), "anchor: 15 values, but its views have 16 patches"),
        (dict(views=(dataclasses.replace(VIEW, rows=0),)), "views: {'image': 1, .*} is none"),
        (dict(support=()), r"support: expected 1 maps of 1024 bytes, .*, got \[\]"),
        (dict(support=(b"12",)), r"support: .*, got \[2\]"),
        (dict(id="row-0"), "id: that of row 1 as well"),
        (dict(prefix="a red"), "prefix: the rejected answer does not begin with it"),
        (dict(prefix="no"), "prefix: the chosen answer does not begin with it"),
        (dict(rejected_spans=((0, 2), (1, 4))), r"rejected_spans: \[1, 4\] is no part of 20 "),
        (dict(chosen_spans=((3, 3),)), r"chosen_spans: \[3, 3\] is no part of 41 "),
        (dict(chosen_spans=((40, 99),)), r"chosen_spans: \[40, 99\] is no part of 41 "),
        (dict(places=(dataclasses.replace(PLACE, end=99),)), "places: {'start': 2, .*} is none"),
        (dict(places=(dataclasses.replace(PLACE, image=1),)), "places: {'start': 2, .*} is none"),
        (
            dict(places=(dataclasses.replace(PLACE, boxes=((0.0, 0.1, 1.01, 0.5),)),)),
            "places: .* is none; a box is x0 < x1, y0 < y1 in 0..1",
        ),
    ],
)
def test_a_row_that_is_wrong(tmp_path, changes: dict[str, Any], message):
    path = tmp_path / "pairs.parquet"
    write_pairs(path, [*pairs(2), changed(pairs(1)[0], **({"id": "odd"} | changes))], origin())
    with pytest.raises(
        InputError, match=rf"pairs.parquet: row 3 \({changes.get('id', 'odd')}\): {message}"
    ):
        read_ids(path), [*read_pairs(path)]


def test_a_file_that_is_wrong(tmp_path):
    path = tmp_path / "pairs.parquet"
    with pytest.raises(InputError, match="not found; run the pairs stage first"):
        read_pairs(path)
    path.write_text("pairs")
    with pytest.raises(InputError, match="not a parquet file"):
        read_pairs(path)
    write_pairs(path, pairs(2), Origin(prompt="0", model_type="llava"))
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["views"]), path)
    with pytest.raises(InputError, match="missing views; run the pairs stage again"):
        read_pairs(path)
    pq.write_table(table.drop_columns(["prefix", "places"]), path)
    with pytest.raises(InputError, match="missing prefix, places; run the pairs stage again"):
        read_pairs(path)
    pq.write_table(table.replace_schema_metadata({}), path)
    with pytest.raises(InputError, match="its metadata has no prompt; run the pairs stage again"):
        read_origin(path)
