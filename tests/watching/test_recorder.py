"""What a recorder leaves in a log, and how it is read: by hour, whole, once, and no texts."""

import io
import threading
import uuid
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adapt.params import InputError
from adapt.watching import recorder
from adapt.watching.log import DAY_S, HOUR_S, Log
from adapt.watching.recorder import Recorder
from tests.support import limits, logged, tiny_world


def files(root: Path, kind: str = "signals") -> list[Path]:
    return sorted((root / "log" / kind).rglob("*.parquet"))


def read(root: Path) -> pd.DataFrame:
    return Log(str(root / "log")).read("signals").rows


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "FLUSH_S", 0.05)


def test_an_answer_comes_back_as_numbers(tmp_path: Path) -> None:
    said = list(logged.answers(5))
    logged.write(logged.CONFIG, tmp_path, iter(said))
    rows = Log(str(tmp_path / "log")).read("signals", tokens=True).rows
    assert rows.id.tolist() == [one.id for one in said]
    for row, one in zip(rows.itertuples(), said, strict=True):
        assert row.mass_late == one.values["mass_late"] and row.length == one.length
        assert row.question == len(one.question) and row.said == len(one.answer)
        assert row.token_end.tolist() == one.tokens["end"]
        assert row.token_risk == pytest.approx(one.tokens["risk"])
        assert row.width == 32 and list(row.modes) == ["RGB"] and len(row.picture) == 16
    # Neither texts nor pictures, unless asked for.
    assert not (tmp_path / "log" / "texts").exists()
    content = b"".join(path.read_bytes() for path in files(tmp_path))
    assert b"describe the picture" not in content and b"red car" not in content
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700


def test_texts_and_pictures_are_kept_where_asked_for(tmp_path: Path) -> None:
    config = logged.config(texts=True, pictures=True)
    logged.write(config, tmp_path, logged.answers(3))
    rows = Log(str(tmp_path / "log")).read("texts").rows
    assert set(rows.question) == {"describe the picture."}
    assert set(rows.answer) == {"a red car and a blue house"}
    (content,) = rows.pictures[1]
    assert Image.open(io.BytesIO(content)).tobytes() == tiny_world.picture(1).tobytes()
    only = logged.config(pictures=True, log="only")
    logged.write(only, tmp_path, logged.answers(1))
    assert Log(str(tmp_path / "only")).read("texts").rows.question.isna().all()


def test_files_are_by_hour_and_joined_in_the_end(tmp_path: Path) -> None:
    now = [logged.START]
    one = Recorder(logged.CONFIG, tmp_path, clock=lambda: now[0])
    for number, said in enumerate(logged.answers(6)):
        one.record(said)
        limits.until(
            lambda n=number: len(Log(str(tmp_path / "log")).read("signals").rows) > n, "row"
        )
    assert len(files(tmp_path)) > 1
    one.close(limits.STEP_S)
    assert len(files(tmp_path)) == 1
    assert len(Log(str(tmp_path / "log")).read("signals").rows) == 6
    later = [
        logged.served(9, __import__("numpy").random.default_rng(0), time=logged.START + HOUR_S)
    ]
    logged.write(logged.CONFIG, tmp_path, iter(later))
    names = [
        path.relative_to(tmp_path / "log" / "signals").as_posix()[:13] for path in files(tmp_path)
    ]
    assert len(set(names)) == 2


def test_reading_begins_where_it_is_told_to(tmp_path: Path) -> None:
    logged.write(logged.CONFIG, tmp_path, logged.answers(10))
    log = Log(str(tmp_path / "log"))
    assert log.read("signals", logged.START + 6).rows.id.tolist() == [
        f"answer-{n}" for n in (7, 8, 9)
    ]
    assert log.read("signals", logged.START + 9).rows.empty
    # One that is in two files, as while they are joined, is read once.
    path = files(tmp_path)[0]
    path.with_name(path.name.replace(path.name[-13:-8], "99999")).write_bytes(path.read_bytes())
    assert len(log.read("signals").rows) == 10


def test_what_is_no_file_of_a_log_is_left_out_and_told(tmp_path: Path) -> None:
    logged.write(logged.CONFIG, tmp_path, logged.answers(2))
    (path,) = files(tmp_path)
    path.with_name("05-0123abcd-00001.parquet").write_bytes(b"PAR1 not really PAR1")
    other = path.with_name("05-0123abcd-00002.parquet")
    pd.DataFrame({"question": ["x"]}).to_parquet(other)
    (path.parent / "strange.parquet").write_bytes(b"?")  # not by our names: not looked at
    found = Log(str(tmp_path / "log")).read("signals")
    assert len(found.rows) == 2 and len(found.left_out) == 2
    assert "has no columns id and time" in found.left_out[1]
    assert all("\n" not in line for line in found.left_out)


def test_a_file_of_another_version_lacks_columns_or_has_more(tmp_path: Path) -> None:
    logged.write(logged.CONFIG, tmp_path, logged.answers(2))
    (path,) = files(tmp_path)
    table = pq.read_table(path).drop_columns(["noise"]).append_column("new", [["a", "b"]])
    pq.write_table(table, path)
    rows = Log(str(tmp_path / "log")).read("signals").rows
    assert rows.noise.isna().all() and "new" not in rows and rows.brightness.notna().all()


def test_storage_is_a_log_too(tmp_path: Path) -> None:
    place = f"memory://{uuid.uuid4().hex}"
    config = logged.config(log=place, texts=True)
    logged.write(config, tmp_path, logged.answers(4))
    log = Log(place)
    assert len(log.read("signals").rows) == len(log.read("texts").rows) == 4
    assert log.expire("texts", 14, logged.START + 20 * DAY_S) == 1
    assert log.read("texts").rows.empty and len(log.read("signals").rows) == 4


def test_what_was_kept_long_enough_is_deleted(tmp_path: Path) -> None:
    config = logged.config(texts=True, keep_days=2)
    logged.write(config, tmp_path, logged.answers(3))
    (tmp_path / "log" / "texts" / "mine.txt").write_text("not ours")
    assert files(tmp_path, "texts")
    later = Recorder(config, tmp_path, clock=lambda: logged.START + 2 * DAY_S + 2 * HOUR_S)
    limits.until(lambda: not files(tmp_path, "texts"), "end of the texts")
    later.close(limits.STEP_S)
    assert files(tmp_path) and (tmp_path / "log" / "texts" / "mine.txt").exists()
    assert not [path for path in (tmp_path / "log" / "texts").iterdir() if path.is_dir()]


def test_nothing_is_logged_where_nothing_is_to_be(tmp_path: Path) -> None:
    before = threading.active_count()
    one = Recorder(logged.config(log=""), tmp_path)
    one.record(next(logged.answers(1)))
    one.close()
    assert threading.active_count() == before and not list(tmp_path.iterdir())


def test_many_at_once(tmp_path: Path) -> None:
    one = Recorder(logged.CONFIG, tmp_path, clock=lambda: logged.START)
    said = list(logged.answers(400))

    def write(part: int) -> None:
        for answer in said[part::4]:
            one.record(answer)

    threads = [threading.Thread(target=write, args=[part]) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close(limits.STEP_S)
    rows = Log(str(tmp_path / "log")).read("signals").rows
    assert sorted(rows.id) == sorted(answer.id for answer in said)


def test_a_place_that_cannot_be_opened_is_one_line() -> None:
    with pytest.raises(InputError, match=r"watch\.log: nonsense://x: "):
        Log("nonsense://x")
