"""What is kept of an import: verdicts by content, pictures that are not stored as they came, and
rows in quarantine.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapt.command import FULL
from adapt.data.importing import build, gallery, quarantine, survey, verdicts
from adapt.data.importing.gallery import Gallery
from adapt.data.importing.quarantine import Refused
from adapt.data.importing.verdicts import Verdicts
from adapt.data.pictures import PictureProblem, normalised, open_picture
from adapt.data.readers.record import OutOfReach
from adapt.data.settings import Config
from adapt.data.sources import Source
from adapt.data.tables import read_preferences
from adapt.params import InputError, load

SCENES = {
    **{"train_images": 1, "validation_images": 1, "test_images": 1},
    **{"difficulty": "default", "image_size": 48, "caption_noise": 0.5},
}


def picture(number: int, kind: str = "JPEG", **options: Any) -> bytes:
    blocks = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((40, 30), Image.Resampling.NEAREST).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(number: int) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return picture(number, exif=exif)


def source(folder: Path, count: int = 12) -> list[dict[str, Any]]:
    """A folder of preferences in RLAIF-V's columns; picture 1 is turned by EXIF."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        content = turned(number) if number == 1 else picture(number)
        (folder / "images" / f"{number}.jpg").write_bytes(content)
        said = {"question": f"What is {number}?", "chosen": f"A {number}.", "rejected": "A dog."}
        rows.append({**said, "image": f"{number}.jpg", "idx": str(number), "ds_name": "drawn"})
    write(folder, rows)
    return rows


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")


def config(**changes: Any) -> Config:
    data = {"source": "mine", "format": "auto", "pictures": "", "max_rejected": 0.5}
    data |= {"split": {"validation": 2, "test": 2}}
    return load({"data": data | changes, "scenes": SCENES, "seed": 7}, "data", Config)


def run(workspace: Path, name: str, **changes: Any) -> Path:
    (out := workspace / name).mkdir()
    build.build(config(**changes), workspace, out)
    return out


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = [line.rpartition(": ") for line in capsys.readouterr().out.splitlines()]
    return [counts for _, _, counts in lines if "known" in counts]


# ---- verdicts -----------------------------------------------------------------------------------


def test_only_what_is_new_is_checked_and_the_files_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = source(tmp_path / "mine")
    first = run(tmp_path, "first")
    decoded: list[bytes] = []

    def counted(content: bytes) -> Any:
        decoded.append(content)
        return normalised(content)

    monkeypatch.setattr(gallery, "normalised", counted)
    second = run(tmp_path, "second")
    assert not decoded and told(capsys) == ["0 known, 12 checked", "12 known, 0 checked"]
    for file in (first / "splits").iterdir():
        assert file.read_bytes() == (second / "splits" / file.name).read_bytes()
    # A changed text is checked, its picture is known; a changed picture is decoded.
    rows[3]["chosen"] = "A changed 3."
    write(tmp_path / "mine", rows)
    (tmp_path / "mine" / "images" / "4.jpg").write_bytes(changed := picture(99))
    run(tmp_path, "third")
    assert decoded == [changed] and told(capsys) == ["10 known, 2 checked"]


def test_what_another_version_of_the_code_has_found_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source(tmp_path / "mine")
    run(tmp_path, "first")
    monkeypatch.setattr(survey, "code_version", lambda: b"another")
    run(tmp_path, "second")
    assert told(capsys) == ["0 known, 12 checked"] * 2


def test_refused_rows_are_known_too_but_missing_pictures_are_looked_for_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = source(tmp_path / "mine")
    rows[5]["rejected"] = rows[5]["chosen"]
    rows[6]["image"] = "none.jpg"
    write(tmp_path / "mine", rows)
    for name in ("first", "second"):
        run(tmp_path, name)
    assert told(capsys) == ["0 known, 12 checked", "11 known, 1 checked"]
    reasons = [one.reason for one in quarantine.read(tmp_path / quarantine.FILE)]
    assert reasons[0] == "rejected: is the same as chosen"
    assert reasons[1].startswith("image: 'none.jpg' is not there")
    (tmp_path / "mine" / "images" / "none.jpg").write_bytes(picture(6))
    lines = build.retry(config(), tmp_path)
    assert lines[1] == "rows.jsonl: row 7 (id 6): passes now"


def test_what_was_not_used_for_longest_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MOST_ROWS", 3)
    monkeypatch.setattr(verdicts.time, "time", iter(range(100)).__next__)
    with Verdicts(tmp_path / "kept.sqlite", writable=True) as kept:
        for key in (b"a", b"b", b"c", b"d"):
            kept.add([(key, key * 2)], [])
        kept.used([b"a"], [])
        found = [kept.row(key) for key in (b"a", b"b", b"c", b"d")]
    assert found == [b"aa", None, b"cc", b"dd"]


def test_a_damaged_store_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kept.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match=r"kept\.sqlite: .*; it may be deleted$"):
        Verdicts(tmp_path / "kept.sqlite", writable=True)


def test_another_run_knows_at_once_what_one_has_found(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    with Verdicts(path, writable=True) as one, Verdicts(path, writable=True) as other:
        one.add([(b"a", b"1")], [(b"p", b"3")])
        other.add([(b"b", b"2")], [])
        with Verdicts(path, writable=False) as reader:
            assert [reader.row(key) for key in (b"a", b"b", b"c")] == [b"1", b"2", None]
            assert (reader.picture(b"p"), reader.picture(b"a")) == (b"3", None)
            with pytest.raises(InputError, match=r"kept\.sqlite: the disk may only be read"):
                reader.add([(b"c", b"1")], [])


# ---- pictures -----------------------------------------------------------------------------------


def test_a_turned_picture_is_stored_upright_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(tmp_path / "mine")
    out = run(tmp_path, "first", split={"validation": 1, "test": 1})
    kept = [*(tmp_path / ".state" / "data" / "pictures").glob("*/*.png")]
    assert [path.read_bytes() for path in kept] == [normalised(turned(1)).content]
    stored = {
        row.id: row.images[0]
        for split in ("train", "validation", "test")
        for row in read_preferences(out / "splits" / f"{split}.parquet")
    }
    assert stored["1"] == kept[0].read_bytes() and open_picture(stored["1"]).size == (30, 40)
    assert all(stored[str(n)] == picture(n) for n in range(12) if n != 1)
    monkeypatch.setattr(gallery, "normalised", None)  # not called again
    run(tmp_path, "second", split={"validation": 1, "test": 1})


def test_without_room_pictures_are_made_anew_in_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "ROOM", 0)
    source(tmp_path / "mine")
    outs = [run(tmp_path, name) for name in ("first", "second")]
    assert not [*(tmp_path / ".state" / "data" / "pictures").glob("*/*")]
    for file in (outs[0] / "splits").iterdir():
        assert file.read_bytes() == (outs[1] / "splits" / file.name).read_bytes()


def test_what_is_known_of_a_picture_is_what_decoding_it_gives(tmp_path: Path) -> None:
    with Verdicts(tmp_path / "kept.sqlite", writable=True) as kept:
        ours = Gallery(kept, tmp_path / "pictures", b"version", room=1 << 20)
        seen = [ours.seen(content) for content in (picture(0), turned(1), picture(0))]
        assert seen[0] is seen[2] and [one.is_kept for one in seen] == [True, False, True]
        new = ours.taken()
        kept.add([], [(one.came, one.packed()) for one in new])
        assert new == seen[:2] and not ours.taken()
        others = Gallery(kept, tmp_path / "pictures", b"version", room=0)
        assert [others.seen(picture(0)), others.seen(turned(1))] == new and not others.taken()
        measured = others.measured(turned(1))
        found = normalised(turned(1))
        assert (
            (measured.digest, measured.size)
            == (found.digest, found.size)
            == (
                found.digest,
                (30, 40),
            )
        )
        assert others.stored(turned(1)) == found.content
        with pytest.raises(PictureProblem):
            others.seen(b"no picture")


def test_kept_pictures_make_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Verdicts(tmp_path / "kept.sqlite", writable=True) as kept:
        ours = Gallery(kept, tmp_path, b"version", room=1 << 20)
        first, second = (ours.seen(turned(number)).came for number in (1, 2))
    monkeypatch.setattr(gallery, "ROOM", 1 << 20)
    gallery.tidy(tmp_path, {second})
    assert len([*tmp_path.glob("*/*.png")]) == 2, "there is room"
    monkeypatch.setattr(gallery, "ROOM", 1)
    gallery.tidy(tmp_path, {second})
    assert [path.stem for path in tmp_path.glob("*/*.png")] == [second.hex()]
    assert first != second


def test_a_disk_without_space_for_kept_pictures_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Verdicts(tmp_path / "kept.sqlite", writable=True) as kept:
        ours = Gallery(kept, tmp_path / "file" / "in the way", b"version", room=1 << 20)
        (tmp_path / "file").write_text("")
        assert ours.stored(turned(1)) == normalised(turned(1)).content


def test_a_storage_that_fails_is_no_fault_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise OutOfReach("s3://mine: cannot be read (timeout)")

    source(tmp_path / "mine")
    monkeypatch.setattr(Source, "picture", fails)
    with pytest.raises(InputError, match=r"^s3://mine: cannot be read \(timeout\)$"):
        run(tmp_path, "out")


# ---- quarantine ---------------------------------------------------------------------------------


def refused(**values: Any) -> Refused:
    return Refused("rows.jsonl", 3, "a-0", "answer: is empty", values)


def test_a_line_names_pictures_and_stays_short_whatever_the_row_holds(tmp_path: Path) -> None:
    path = tmp_path / "quarantine" / "data.jsonl"
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    rows = [
        refused(image={"bytes": b"\0" * 5_000_000, "path": "a.png"}, question="\u2028x\x85"),
        refused(answer="y" * 1_000_000, objects=[{"name": "z" * 1000}] * 3, deep=deep),
        refused(**{f"column {number}": "w" * 1000 for number in range(1000)}),
        Refused("rows.jsonl", 4, "", "is no JSON"),
        refused(half="\ud800", number=float("nan"), when=Path("x")),
    ]
    quarantine.write(path, rows)
    lines = path.read_text().splitlines()
    assert len(lines) == len(rows) and max(map(len, lines)) <= quarantine.MAX_LINE + 2000
    values = [json.loads(line)["values"] for line in lines]
    assert values[0] == {
        "image": {"bytes": "<5000000 bytes>", "path": "a.png"},
        "question": "\u2028x\x85",
    }
    assert values[1]["answer"] == "y" * quarantine.MAX_TEXT + "... and 998000 characters more"
    assert values[2]["columns"][0] == "column 0" and values[3] is None
    assert [one.row for one in quarantine.read(path)] == [3, 3, 3, 4, 3]
    assert str(rows[3]) == "rows.jsonl: row 4 (id missing): is no JSON"


def test_a_quarantine_that_is_something_else_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    assert quarantine.read(path) == []
    path.write_text("{}\n")
    with pytest.raises(InputError, match=r"data\.jsonl: not a file that stage data has written"):
        quarantine.read(path)


# ---- disks --------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path / "mine")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(InputError) as caught:
        run(tmp_path, "out")
    assert str(caught.value) == f"{tmp_path / 'out'}: {FULL}"


def test_a_source_that_changes_while_it_is_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = source(tmp_path / "mine")
    rows[4]["chosen"] = "A new."
    surveyed = build.survey

    def changed(*arguments: Any) -> Any:
        source(tmp_path / "mine")
        found = surveyed(*arguments)
        write(tmp_path / "mine", rows)
        return found

    monkeypatch.setattr(build, "survey", changed)
    with pytest.raises(InputError, match=r"rows\.jsonl: row 5: was changed while it was read"):
        run(tmp_path, "out")
    rows[4]["chosen"] = "A 4."
    del rows[5:]
    with pytest.raises(InputError, match=r"rows\.jsonl: row 6: was changed while it was read"):
        run(tmp_path, "shorter")


# ---- processes ----------------------------------------------------------------------------------


def test_workers_find_what_one_process_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPT_CPUS", "2")
    monkeypatch.setattr(survey, "BLOCK", 5)
    rows = source(tmp_path / "mine", count=23)
    rows[9]["chosen"] = ""
    write(tmp_path / "mine", rows)
    alone = run(tmp_path, "alone")
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "other-state"))
    monkeypatch.setattr(survey, "FEW_ROWS", 0)
    together = run(tmp_path, "together")
    assert told(capsys) == ["0 known, 23 checked"] * 2
    for file in (alone / "splits").iterdir():
        assert file.read_bytes() == (together / "splits" / file.name).read_bytes()
    assert [one.row for one in quarantine.read(tmp_path / quarantine.FILE)] == [10]
