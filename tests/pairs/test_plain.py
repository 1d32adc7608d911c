"""Which rows with one answer are kept, and the file of them."""

import dataclasses
from pathlib import Path

import pytest

from adapt.data.schema import Example
from adapt.data.tables import read_split, write_split
from adapt.pairs.plain import described, plain_rows, write_plain
from adapt.params import InputError
from tests.support import preference_rows
from tests.support.preferences import config, preference

KINDS = ("describe", "exists", "colour")


def world(count: int) -> list[Example]:
    """A row of every kind about each of some pictures."""
    (row,) = preference_rows.plain_rows(1)
    return [
        dataclasses.replace(row, id=f"{i}-{kind}", image_id=f"picture-{i}", kind=kind)
        for i in range(count)
        for kind in KINDS
    ]


def chosen(rows: list[Example], folder: Path, paired: tuple[str, ...] = (), **keep) -> list[str]:
    """The ids of the rows that are taken of a training split."""
    write_split(folder / "train.parquet", rows)
    section = {"kinds": ["exists", "colour"], "images": 3, "path": ""} | keep
    taken = plain_rows(config(keep=section), folder / "train.parquet", paired)
    return [row.id for row in taken]


def pictures(ids: list[str]) -> set[str]:
    return {identity.partition("-")[0] for identity in ids}


def test_all_rows_of_the_kinds_about_some_pictures(tmp_path):
    taken = chosen(world(9), tmp_path)
    assert len(pictures(taken)) == 3
    assert taken == [f"{i}-{kind}" for i in sorted(pictures(taken)) for kind in KINDS[1:]]
    assert taken == chosen(world(9), tmp_path), "the same another time"
    # Which ones does not hang on how many there are.
    assert len(pictures(taken) & pictures(chosen(world(10), tmp_path))) >= 2


def test_pictures_without_pairs_come_first(tmp_path, capsys):
    paired = tuple(f"picture-{i}" for i in range(7))
    assert pictures(chosen(world(9), tmp_path, paired, images=2)) == {"7", "8"}
    assert "about 2 pictures are kept\n" in capsys.readouterr().err
    assert pictures(chosen(world(9), tmp_path, paired, images=4)) > {"7", "8"}
    assert "about 4 pictures are kept; 2 of them have pairs as well" in capsys.readouterr().err
    assert len(chosen(world(9), tmp_path, paired, images=50)) == 18
    assert "9 pictures are kept, all that there are (50 were asked for)" in capsys.readouterr().err


def test_none_are_asked_for(tmp_path):
    assert chosen(world(2), tmp_path, images=0) == []
    assert described(config(), ()) == {}
    write_plain(tmp_path / "plain.parquet", ())
    assert len(read_split(tmp_path / "plain.parquet")) == 0


def test_the_file_holds_the_rows(tmp_path):
    rows = preference_rows.plain_rows(4)
    for made in (rows, [*rows, dataclasses.replace(rows[0], id="two", images=rows[1].images * 2)]):
        write_plain(tmp_path / "plain.parquet", made)
        assert read_split(tmp_path / "plain.parquet") == made


def test_a_file_of_the_users_own(tmp_path):
    """Beside preferences, which have no rows of this kind."""
    own = tmp_path / "own" / "train.parquet"
    own.parent.mkdir()
    write_split(own, [dataclasses.replace(row, kind="other") for row in world(2)[:4]])
    prefs = [preference(0), preference(1)]
    for path in (own, own.parent):
        keep = {"path": str(path), "kinds": ["other"], "images": 9}
        assert chosen(prefs, tmp_path, ("picture-0",), **keep) == [r.id for r in world(2)[:4]]
    section = config(keep=keep)
    said = described(section, plain_rows(section, tmp_path / "train.parquet", ()))["keep"]
    assert (said["rows"], said["pictures"], said["kinds"]) == (4, 2, {"other": 4})
    assert said["path"] == str(own.parent) and len(said["sha256"]) == 64


def test_pictures_that_models_are_judged_by_are_not_kept(tmp_path):
    own, rows = tmp_path / "own.parquet", preference_rows.plain_rows(4)
    write_split(own, rows)
    keep = {"path": str(own), "kinds": ["exists"], "images": 9}
    write_split(tmp_path / "test.parquet", [preference(0)])
    assert len(chosen([preference(1)], tmp_path, **keep)) == 4
    write_split(tmp_path / "test.parquet", [preference(0, images=rows[2].images)])
    message = r"^pairs\.keep\.path: .*own.parquet: plain-2 is about a picture of the test split"
    with pytest.raises(InputError, match=message):
        chosen([preference(1)], tmp_path, **keep)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"path": "none.parquet"}, r"pairs\.keep\.path: .*none.parquet: not found"),
        ({"path": "train.parquet"}, r"pairs\.keep\.path: .*train.parquet holds preferences, not"),
        ({"path": "broken.parquet"}, r"pairs\.keep\.path: .*: not a parquet file, or damaged"),
        (
            {"path": "own.parquet", "kinds": ["other", "colour"]},
            r"pairs\.keep\.kinds: .*own.parquet has no other or colour questions with an answer; it"
            " has exists$",
        ),
    ],
)
def test_rows_that_are_not_there_are_refused_by_their_key(tmp_path, keep, message):
    write_split(tmp_path / "own.parquet", preference_rows.plain_rows(2))
    (tmp_path / "broken.parquet").write_bytes(b"none")
    if "path" in keep:
        keep = {**keep, "path": str(tmp_path / keep["path"])}
    with pytest.raises(InputError, match=f"^{message}"):
        chosen([preference(0)], tmp_path, **keep)


def test_a_training_split_without_such_questions_keeps_none_and_says_so(tmp_path, capsys):
    rows = [row for row in world(2) if row.kind == "describe"]
    rows += [dataclasses.replace(rows[0], id="silent", kind="exists", answer="  ")]
    assert chosen(rows, tmp_path) == []
    wanted = "has no exists or colour questions with an answer"
    assert f"{wanted}; it has describe\n" in capsys.readouterr().err
    assert chosen([preference(0)], tmp_path) == []
    assert f"{wanted}; it has preferences alone\n" in capsys.readouterr().err
