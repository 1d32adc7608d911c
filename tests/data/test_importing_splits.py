"""Which split a row goes to: by picture, by what is given, and the same one when rows are added."""

import hashlib
from collections import Counter
from typing import Any

import pytest

from adapt.data.importing.rows import Verdict
from adapt.data.importing.splitting import Decided, decide, require_rows
from adapt.params import InputError

SHARES = {"validation": 0.1, "test": 0.2}


def digest(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def verdict(number: int, file: str = "rows.jsonl", **changes: Any) -> Verdict:
    one = Verdict(file, number, id=f"r{number}", image_id=f"i{number}", kind="evaluation", images=1)
    return one._replace(pictures=(digest(number),), said=digest(f"said {number}"))._replace(
        **changes
    )


def pictures(count: int, rows_each: int = 1, first: int = 0) -> list[Verdict]:
    """Rows in turns of the pictures, so that rows of one picture lie apart."""
    return [
        verdict(first + number, id=f"r{first + number}-{turn}")
        for turn in range(rows_each)
        for number in range(count)
    ]


def decided(rows: list[Verdict], **options: Any) -> Decided:
    return decide(rows, **{"alike": [], "sizes": SHARES, "seed": 7} | options)


def of_pictures(rows: list[Verdict], found: Decided) -> dict[bytes, set[str]]:
    places: dict[bytes, set[str]] = {}
    for row, split in zip(rows, found.splits, strict=True):
        for one in row.pictures:
            places.setdefault(one, set()).add(split)
    return places


def test_all_rows_of_a_picture_are_in_one_split_and_the_shares_are_kept() -> None:
    rows = pictures(2000, rows_each=3)
    found = decided(rows)
    places = of_pictures(rows, found)
    assert all(len(splits) == 1 for splits in places.values())
    counts = Counter(split for splits in places.values() for split in splits)
    # Binomial: 3 standard deviations of 2000 draws are 40 (validation) and 54 (test).
    assert abs(counts["validation"] - 200) < 40 and abs(counts["test"] - 400) < 54
    assert found.cut == ("validation", "test") and found.pictures == 2000


def test_added_rows_move_no_other_ones_and_another_seed_does() -> None:
    before, more = pictures(300), pictures(200, first=300)
    first = decided(before)
    assert decided([*before, *more]).splits[:300] == first.splits
    assert decided([*more, *before]).splits[200:] == first.splits, "wherever they stand"
    assert decided(before, seed=8).splits != first.splits


def test_another_share_of_one_split_moves_rows_to_and_from_training_only() -> None:
    rows = pictures(500)
    small, large = (
        decided(rows, sizes={"validation": 0.1, "test": share}).splits for share in (0.1, 0.2)
    )
    assert {i for i, s in enumerate(small) if s == "test"} < {
        i for i, s in enumerate(large) if s == "test"
    }


def test_whole_numbers_are_pictures() -> None:
    rows = pictures(50, rows_each=2)
    found = decided(rows, sizes={"validation": 3, "test": 7})
    counts = Counter(split for splits in of_pictures(rows, found).values() for split in splits)
    assert counts == {"train": 40, "validation": 3, "test": 7}


def test_a_small_source_has_a_row_in_each_split() -> None:
    for seed in range(20):
        found = decided(pictures(3), seed=seed)
        assert sorted(found.splits) == ["test", "train", "validation"]


def test_pictures_that_look_alike_or_share_an_image_id_stay_together() -> None:
    rows = pictures(100)
    rows[60] = rows[60]._replace(image_id="i3")
    rows[70] = rows[70]._replace(pictures=(digest(4), digest("other")))
    chain = [(digest(number), digest(number + 1)) for number in range(10, 30)]
    found = decided(rows, alike=chain)
    assert found.splits[60] == found.splits[3] and found.splits[70] == found.splits[4]
    assert len({found.splits[number] for number in range(10, 31)}) == 1
    assert found.alike == 20 and not found.leaks


def test_a_group_much_larger_than_a_split_stays_in_training() -> None:
    rows = pictures(100)
    chain = [(digest(number), digest(number + 1)) for number in range(60)]
    for seed in range(30):
        found = decided(rows, alike=chain, seed=seed)
        assert set(found.splits[:61]) == {"train"}
        assert {"validation", "test"} <= set(found.splits)


def given(split: str, numbers: range, **changes: Any) -> list[Verdict]:
    return [verdict(number, f"{split}.jsonl", **changes) for number in numbers]


def test_given_splits_are_kept_and_rows_without_one_follow_their_picture() -> None:
    rows = [*given("train", range(10)), *given("val", range(10, 15)), *given("test", range(15, 20))]
    loose = [
        verdict(30),
        verdict(31, pictures=(digest(16),)),
        verdict(32, image_id="i12"),
        verdict(33, split="Dev"),
    ]
    found = decided([*rows, *loose])
    assert found.splits[:20] == ["train"] * 10 + ["validation"] * 5 + ["test"] * 5
    assert found.splits[20:] == ["train", "test", "validation", "validation"]
    assert not found.cut and not found.reasons


def test_a_split_that_is_not_given_is_cut_from_training_rows() -> None:
    found = decided([*given("train", range(200)), *given("test", range(200, 210))])
    assert found.cut == ("validation",) and found.splits[200:] == ["test"] * 10
    counts = Counter(found.splits[:200])
    assert set(counts) == {"train", "validation"} and 5 < counts["validation"] < 40


def test_a_picture_in_two_given_splits_stays_where_it_measures() -> None:
    rows = [
        *given("train", range(3)),
        *given("validation", range(10, 13)),
        *given("test", range(20, 23)),
    ]
    rows[0] = rows[0]._replace(pictures=(digest("a"), digest(20)))
    rows[1] = rows[1]._replace(image_id="i11")
    rows[4] = rows[4]._replace(pictures=rows[7].pictures)  # in validation and test
    found = decided(rows)
    assert found.reasons == {
        0: "image: is also in test (test.jsonl: row 20)",
        1: "image_id i11: is also in validation (validation.jsonl: row 11)",
        4: "image: is also in test (test.jsonl: row 21)",
    }
    assert [found.splits[row] for row in (0, 1, 4)] == ["", "", ""]


def test_pictures_that_look_alike_in_two_given_splits_are_told() -> None:
    rows = [
        *given("train", range(3)),
        *given("validation", range(3, 5)),
        *given("test", range(5, 8)),
    ]
    found = decided(rows, alike=[(digest(1), digest(6))])
    assert found.leaks == ["train.jsonl: row 1 (train) and test.jsonl: row 6 (test)"]
    assert not found.reasons and found.splits[1] == "train"


def test_ids_that_come_twice_and_splits_nobody_knows() -> None:
    rows = [
        verdict(0),
        verdict(1, id="r0"),
        verdict(2, id="r0", said=digest("said 0")),
        verdict(3, split="golden"),
        verdict(4, reason="answer: is empty", id="r5"),
        verdict(5),
    ]
    found = decided(rows)
    assert found.reasons == {
        1: "id: is also that of rows.jsonl: row 0",
        2: "is the same as rows.jsonl: row 0",
        3: "split: 'golden' is none of train, validation, test",
    }


def test_a_split_without_rows_or_of_two_kinds_is_named() -> None:
    rows = [*given("train", range(3)), *given("test", range(3, 5))]
    sizes = {"validation": 0, "test": 0}
    with pytest.raises(InputError, match=r"mine: split validation: no valid rows to cut it from"):
        require_rows(rows, decided(rows, sizes=sizes), "mine")
    refused = given("validation", range(5, 7), reason="answer: is empty")
    with pytest.raises(InputError, match=r"mine: split validation: no valid rows in it"):
        require_rows([*rows, *refused], decided([*rows, *refused]), "mine")
    rows += given("validation", range(5, 7))
    require_rows(rows, decided(rows), "mine")
    rows[0] = rows[0]._replace(kind="preference")
    with pytest.raises(InputError, match=r"mine: split train has preferences and evaluation rows"):
        require_rows(rows, decided(rows), "mine")
