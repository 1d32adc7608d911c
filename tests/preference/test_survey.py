"""All pairs are looked at before training, a sample of them first, and what was found is kept."""

from pathlib import Path

import pytest

from adapt.cluster import storage
from adapt.pairs.table import write_pairs
from adapt.params import InputError
from adapt.preference import survey
from adapt.preference.checks import check
from adapt.preference.survey import Facts, FactsCache
from tests.support.preference_rows import changed, origin, pairs, settings, spanned


def file_of(tmp_path: Path, rows) -> Path:
    write_pairs(tmp_path / "pairs.parquet", rows, origin())
    return tmp_path / "pairs.parquet"


def cache_in(tmp_path: Path) -> FactsCache:
    def digest(path: Path) -> str:
        return storage.digest(storage.files_of(path))

    return FactsCache(uri=str(tmp_path / "checked"), digest=digest)


@pytest.fixture
def seen(monkeypatch) -> list[range]:
    """The rows that this process looks at, in order."""
    places: list[range] = []
    true = survey.check_rows

    def spied(*arguments):
        places.append(arguments[-1])
        return true(*arguments)

    monkeypatch.setattr(survey, "check_rows", spied)
    return places


def test_facts_of_both_together():
    one, two = Facts(longest=3, spanned=True), Facts(longest=5, placed=True)
    assert one | two == Facts(longest=5, spanned=True, placed=True)


def test_what_was_found_of_a_file_is_kept_until_it_changes(base, tmp_path, seen):
    path, cache = file_of(tmp_path, spanned(pairs(4))), cache_in(tmp_path)
    for _ in range(2):
        check(settings(span_weight=4.0), Path(base), path, cache=cache)
    assert seen == [range(4)], "the second time it is known"
    # What a setting asks for is asked of what is known, too.
    with pytest.raises(InputError, match="attn_target: boxes, but no chosen answer"):
        check(settings(attn_target="boxes"), Path(base), path, cache=cache)
    assert len(seen) == 1
    file_of(tmp_path, [*pairs(4), changed(pairs(1)[0], id="odd", images=(b"none",))])
    for _ in range(2):
        with pytest.raises(InputError, match=r"row 5 \(odd\): a picture is not an image file"):
            check(settings(), Path(base), path, cache=cache)
    assert len(seen) == 3, "a file that is refused is not known"


@pytest.mark.parametrize("content", ["", "{}", '{"longest": "3", "spanned": true, "placed": true}'])
def test_a_kept_file_that_is_damaged_is_made_again(base, tmp_path, seen, content):
    path, cache = file_of(tmp_path, pairs(4)), cache_in(tmp_path)
    check(settings(), Path(base), path, cache=cache)
    (kept,) = (tmp_path / "checked").iterdir()
    before = kept.read_text()
    kept.write_text(content)
    check(settings(), Path(base), path, cache=cache)
    assert kept.read_text() == before and len(seen) == 2


def test_many_rows_are_looked_at_here_and_there_and_then_by_all_cores(
    base, tmp_path, seen, monkeypatch
):
    monkeypatch.setattr(survey, "ALONE", 8)
    monkeypatch.setattr(survey, "SAMPLED", 4)
    monkeypatch.setattr(survey, "PIECE", 3)
    monkeypatch.setenv("ADAPT_CPUS", "2")
    rows, cache = spanned(pairs(12)), cache_in(tmp_path)
    path = file_of(tmp_path, rows)
    check(settings(span_weight=4.0), Path(base), path, cache=cache)
    assert seen == [range(0, 1), range(3, 4), range(6, 7), range(9, 10)], "and no more here"
    (kept,) = (tmp_path / "checked").iterdir()
    several = kept.read_bytes()
    kept.unlink()
    monkeypatch.setattr(survey, "ALONE", 12)
    check(settings(), Path(base), path, cache=cache)
    assert kept.read_bytes() == several, "processes find what one finds"
    # A row that no sample has is named by the process that comes to it.
    monkeypatch.setattr(survey, "ALONE", 8)
    odd = changed(rows[10], id="odd", question="a red </s> car.")
    path = file_of(tmp_path, [*rows[:10], odd, rows[11]])
    with pytest.raises(InputError, match=r"pairs.parquet: row 11 \(odd\): .*</s>, a special"):
        check(settings(), Path(base), path, cache=cache)
