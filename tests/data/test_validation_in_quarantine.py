"""Every fault at once, through the import: each row in quarantine, all others in the splits."""

import json
from pathlib import Path

from adapt.data.importing.build import build
from adapt.data.settings import Config
from adapt.data.tables import read_preferences
from adapt.params import load, read
from tests.data.test_validation import BAD, REFUSED_PICTURES, TAKEN_PICTURES, flat, turned
from tests.support.published import picture
from tests.support.workspace import ROOT


def test_bad_rows_of_every_kind_go_to_quarantine_and_the_others_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "state"))
    images = tmp_path / "rows" / "images"
    images.mkdir(parents=True)
    (images / "a.png").write_bytes(picture(100))
    (tmp_path / "secret.png").write_bytes(picture(101))
    bad = [flat(n, **changes) for n, (changes, _) in enumerate(BAD.values())]
    for name, (make, _) in REFUSED_PICTURES.items():
        (images / f"{name}.png").write_bytes(make())
        bad.append(flat(len(bad), image=f"images/{name}.png"))
    pictures = [make() for make in TAKEN_PICTURES.values()] + [turned(n) for n in range(2, 9)]
    pictures += [picture(n, size=(64, 48)) for n in range(30)]
    good = []
    for number, content in enumerate(pictures):
        (images / f"good-{number}.png").write_bytes(content)
        good.append(flat(1000 + number, image=f"images/good-{number}.png"))
    lines = [json.dumps(row) for pair in zip(bad, good, strict=False) for row in pair]
    lines += [json.dumps(row) for row in (*bad[len(good) :], *good[len(bad) :])]
    lines += ['{"ds_name": "cut off', "[]"]
    (tmp_path / "rows" / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    params = read(ROOT / "params.yaml")
    params["data"] |= {"source": "rows", "max_rejected": 1.0}
    params["data"]["split"] = {"validation": 0.2, "test": 0.2}
    (tmp_path / "out").mkdir()
    build(load(params, "data", Config), tmp_path, tmp_path / "out")
    check(tmp_path, len(lines), {row["idx"] for row in good})


def check(workspace: Path, rows: int, good: set[str]) -> None:
    splits = [read_preferences(path) for path in (workspace / "out" / "splits").glob("*.parquet")]
    assert {row.id for split in splits for row in split} == good
    lines = (workspace / "quarantine" / "data.jsonl").read_text().splitlines()
    quarantined = [json.loads(line) for line in lines]
    assert len(quarantined) == rows - len(good)
    assert {one["file"] for one in quarantined} == {"pairs.jsonl"}
    assert len({one["row"] for one in quarantined}) == len(quarantined)
    said = "\n".join(one["reason"] for one in quarantined)
    for _, reason in (*BAD.values(), *REFUSED_PICTURES.values()):
        assert reason in said
