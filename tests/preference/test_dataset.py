"""The data set that TRL's trainer takes reads what a batch asks for, and holds little of it."""

import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from adapt.data.schema import Turn
from adapt.pairs import groups
from adapt.pairs.table import read_ids, read_pairs, write_pairs
from adapt.params import InputError
from adapt.preference.collate import IDS
from adapt.preference.dataset import NAMES, dataset, ids_of, with_columns
from adapt.preference.trainer import Weights
from tests.support.preference_rows import (
    NONE,
    adapt_trainer,
    changed,
    origin,
    pairs,
    rows,
)


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """The row groups that are read, in order."""
    numbers: list[int] = []
    true = groups.read_group

    def spied(file, group, columns, path):
        if "images" in columns:
            numbers.append(group)
        return true(file, group, columns, path)

    monkeypatch.setattr(groups, "read_group", spied)
    return numbers


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """Twelve pairs in row groups of about two."""
    made = pairs(12)
    monkeypatch.setattr("adapt.pairs.table.GROUP_BYTES", 2 * made[0].size() + 100)
    write_pairs(tmp_path / "pairs.parquet", made, origin())
    assert pq.ParquetFile(tmp_path / "pairs.parquet").metadata.num_row_groups == 6
    return tmp_path / "pairs.parquet"


def test_rows_come_out_as_they_went_in(path):
    data, made = dataset(read_pairs(path), read_ids(path)), pairs(12)
    assert ids_of(data) == [pair.id for pair in made]
    for row, pair in zip(data, made, strict=True):
        for name in set(NAMES) - {"anchor"}:
            assert row[name] == getattr(pair, name), name
        assert row["anchor"] == pytest.approx(pair.anchor)
    more = with_columns(data, {"value": [float(i) for i in range(12)]})
    assert more[7]["value"] == 7.0 and more[7]["images"] == made[7].images


def test_only_the_groups_of_the_asked_rows_are_read(path, read):
    data = dataset(read_pairs(path), read_ids(path))
    assert ids_of(data) and not read
    assert [row["id"] for row in data.__getitems__([11, 0, 1])] == ["row-11", "row-0", "row-1"]
    assert read == [5, 0]
    assert data[10]["id"] == "row-10" and read == [5, 0], "it is still there"
    many = pickle.loads(pickle.dumps(read_pairs(path)))
    assert many[-1].id == "row-11" and many[3:5][1].id == "row-4" and read == [5, 0, 5, 1, 2]


def test_no_more_is_held_than_is_said(path, read, monkeypatch):
    rows = read_pairs(path)
    size = rows._table(0).nbytes
    monkeypatch.setattr(groups, "KEPT_BYTES", int(2.5 * size))
    for _ in range(2):
        assert [pair.id for pair in rows] == [f"row-{i}" for i in range(12)]
        assert len(rows._tables) == 2 and rows._held <= groups.KEPT_BYTES
    assert read == [*range(6), *range(6)]


def test_a_worker_reads_the_pictures_of_its_batches(path, base, tmp_path, read, monkeypatch):
    monkeypatch.setattr(groups, "KEPT_BYTES", 0)
    data = dataset(read_pairs(path), read_ids(path))
    weights = Weights(**{**NONE, "sft": 1.0})
    made = adapt_trainer(base, tmp_path, weights, data=data, size=2)
    before = len(read)
    batches = iter(made.get_train_dataloader())
    first = next(batches)
    assert len(first[IDS]) == 2
    # One batch is fetched ahead, to know whether it is the last.
    assert len(read) - before <= 4


def test_a_file_that_is_cut_off_says_so(path):
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 4] = bytes(len(content) // 4 - 4)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged; it cannot be read to its end"):
        [*read_pairs(path)]


def test_rejected_pictures_and_earlier_turns_are_kept(tmp_path):
    one, two = pairs(2)
    turns = (Turn(question="is it red?", answer="no"),)
    made = [changed(one, rejected_images=two.images), changed(two, history=turns, source="given")]
    made.append(changed(pairs(3)[2], chosen_score=None, rejected_score=None))
    write_pairs(tmp_path / "pairs.parquet", made, origin())
    back = [*read_pairs(tmp_path / "pairs.parquet")]
    assert [(p.history, p.rejected_images, p.source, p.chosen_score) for p in back] == [
        (p.history, p.rejected_images, p.source, p.chosen_score) for p in made
    ]
    write_pairs(
        tmp_path / "pairs.parquet", [changed(one, rejected_images=one.images * 2)], origin()
    )
    with pytest.raises(InputError, match="rejected_images: 2, but the chosen answer is about 1"):
        read_pairs(tmp_path / "pairs.parquet")[0]


def test_the_reference_follows_the_order_of_the_rows(path, base, tmp_path):
    weights = Weights(**{**NONE, "dpo": 1.0})
    lazy = adapt_trainer(
        base, tmp_path, weights, data=dataset(read_pairs(path), read_ids(path)).select(range(4))
    )
    eager = adapt_trainer(base, tmp_path / "other", weights, data=rows())
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        assert [row[name] for row in lazy.train_dataset] == [r[name] for r in eager.train_dataset]
