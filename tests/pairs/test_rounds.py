"""Which pictures a round takes: `pairs.skip` leaves those before it to other rounds."""

import dataclasses

import numpy as np
import pytest

from adapt.data.schema import Example, SceneObject
from adapt.data.tables import read_split
from adapt.pairs.make import make_pairs
from adapt.pairs.plain import NAME
from adapt.pairs.sample import chosen_rows, pictures_of
from adapt.pairs.table import read_pairs
from adapt.params import InputError
from adapt.progress import unlogged
from tests.support import preference_rows, tiny_world
from tests.support.preferences import config, workspace

KINDS = ("describe", "exists")


def world(count: int) -> list[Example]:
    (row,) = preference_rows.plain_rows(1)
    return [
        dataclasses.replace(row, id=f"{i}-{kind}", image_id=f"picture-{i:02}", kind=kind)
        for i in range(count)
        for kind in KINDS
    ]


def pictures(rows: list[Example]) -> set[str]:
    return {row.image_id for row in rows}


def test_without_skip_the_pictures_are_those_of_before():
    rows = world(20)
    ids = sorted(pictures(rows))
    order = np.random.default_rng(3).permutation(20)
    chosen, skipped = chosen_rows(rows, 8, 3)
    assert pictures(chosen) == {ids[i] for i in order[:8]} and skipped == []
    assert [row.kind for row in chosen] == ["describe"] * 8 + ["exists"] * 8


@pytest.mark.parametrize("seed", [1, 2])
def test_rounds_share_no_picture_and_together_have_what_one_would_take(seed):
    rows = world(20)
    rounds = [chosen_rows(rows, 6, seed, skip) for skip in (0, 6, 12)]
    taken = [pictures(chosen) for chosen, _ in rounds]
    assert [len(of) for of in taken] == [6, 6, 6]
    assert set.union(*taken) == pictures(chosen_rows(rows, 18, seed)[0]), "none is there twice"
    assert [set(skipped) for _, skipped in rounds] == [set(), taken[0], taken[0] | taken[1]]
    # The last takes what is left.
    assert len(pictures(chosen_rows(rows, 6, seed, 18)[0])) == 2


def test_rows_to_keep_are_about_pictures_that_no_round_had(tmp_path):
    results = workspace(tmp_path, [asked(number) for number in range(9)])
    kept = {"kinds": ["describe"], "images": 3, "path": ""}
    out = tmp_path / "out"
    out.mkdir()
    settings = config(images=3, skip=3, keep=kept)
    make_pairs(settings, results / "data" / "splits", results / "base" / "model", out, unlogged)
    order = pictures_of([asked(number) for number in range(9)], settings.seed)
    paired = {pair.id for pair in read_pairs(out / "pairs.parquet")}
    assert paired and paired <= {f"row-{number}" for number in order[3:6]}
    assert {row.image_id for row in read_split(out / NAME)} == {*order[6:]}


def asked(number: int) -> Example:
    """A question about a picture of its own, to which anything may be said."""
    return Example(
        id=f"row-{number}",
        image_id=str(number),
        images=(preference_rows.png(tiny_world.picture(number)),),
        kind="describe",
        history=(),
        question=tiny_world.QUESTIONS[0],
        answer=tiny_world.ANSWERS[0],
        objects=(SceneObject(name="house", colour="", box=None),),
        absent=(),
    )


def test_more_than_there_are_cannot_be_left_to_others():
    with pytest.raises(InputError, match=r"^pairs.skip: 20 pictures are left .* there are 20;"):
        chosen_rows(world(20), 6, 1, 20)
