"""A data folder that lies: ids, questions, answers, picture names, links, pipes and sizes.

What is written lies below the results, every line that is printed prints, and nothing waits.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from adapt.attention.settings import AnchorConfig
from adapt.data.__main__ import main
from adapt.data.schema import Example
from adapt.data.tables import read_preferences
from adapt.evaluation import report
from adapt.evaluation.settings import Config
from adapt.names import file_name, one_line, tag
from tests.support import answered, published
from tests.support.closure import ROOT
from tests.support.faults import fault
from tests.support.hostile import ESCAPES, EVERY, FORMULAS, PLACES

DRAWN = [*PLACES[:2], *ESCAPES[:2], *FORMULAS[:2]]  # ids of panels, half a second each
CONFIG = Config(
    bootstrap=10, panels=len(DRAWN), anchor=AnchorConfig(anchor_tokens=2, noise_images=2), seed=7
)
PICTURE = published.picture(0)
LINKS = ["/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/environ", "loop", "absent", ".."]


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def printable(text: str) -> bool:
    return all(line.isprintable() for line in re.split(r"[\r\n]", text))  # a bar is drawn with \r


def question(name: str, text: str) -> Example:
    known: dict[str, Any] = {"history": (), "answer": "yes", "objects": None, "absent": None}
    asked = {"id": name, "image_id": name, "images": (PICTURE,), "kind": "describe"}
    return Example(**known, **asked, question=text)


@fault(
    "ids of the test split lead out of the results, steer a terminal, or are half a formula",
    keeps="everything outside results/evaluate, and a panel for each row",
    says="nothing: the texts are drawn and written as they stand, what does not print as its code",
    then="the same bytes again",
)
def test_ids_questions_and_answers_of_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [question(name, f"{name} {FORMULAS[0]}") for name in DRAWN]
    base = {name: f"a **{name}** {FORMULAS[1]} $ x" for name in DRAWN}
    tuned = {name: f"{text} and more" for name, text in base.items()}
    results = answered.write(tmp_path / "ws" / "r", rows, {"base": base, "tuned": tuned})
    before, out = tree(tmp_path), tmp_path / "ws" / "out"
    out.mkdir()
    report.write(CONFIG, results / "answer", results / "data" / "splits", out)
    new = tree(tmp_path) - before
    assert all(name.startswith("ws/out") for name in new)
    panels = {path.name for path in (out / "panels").iterdir()}
    assert panels == {f"{file_name(name)}.png" for name in DRAWN} and len(panels) == len(DRAWN)
    assert all(re.fullmatch(r"[A-Za-z0-9_][\w.-]*\.png", name, re.ASCII) for name in panels)
    said = capsys.readouterr()
    assert printable(said.out) and printable(said.err)
    assert set(pd.read_parquet(out / "judged.parquet").id) == set(DRAWN), "data stay as they are"


def test_every_planted_text_is_a_name_a_line_and_a_tag() -> None:
    assert len(EVERY) > 80 and len({file_name(text) for text in EVERY}) == len(set(EVERY))
    for text in EVERY:
        assert "/" not in file_name(text) and len(file_name(text)) <= 80
        assert one_line(text).isprintable() and printable(tag(text))


# ---- importing -----------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a data folder `mine`, beside a file that nobody may read or write."""
    folder = tmp_path / "above" / "ws"
    (folder / "mine" / "images").mkdir(parents=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"]["max_rejected"] = 1.0
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (tmp_path / "above" / "x").write_text("a secret")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ADAPT_STATE", raising=False)
    return folder


def row(number: int, **changes: Any) -> dict[str, Any]:
    """One row as `llama-factory` writes preferences: conversations, chosen, rejected, images."""
    said = {
        "conversations": [{"from": "human", "value": f"<image>what is it, {number}?"}],
        "chosen": {"from": "gpt", "value": f"a house number {number}"},
        "rejected": {"from": "gpt", "value": f"a bus number {number}"},
        "images": [f"images/{number}.png"],
        "id": f"row-{number}",
    }
    return said | changes


def converted(home: Path, rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> str:
    """What `convert` says; it ends by itself, and writes below its folder and its state alone."""
    for number in range(len(rows)):
        content = published.picture(number)
        (home / "mine" / "images" / f"{number}.png").write_bytes(content)
    (home / "mine" / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    before = tree(home.parents[1])
    code = main(["convert", "mine", "ours"])
    said = capsys.readouterr()
    assert code in (0, 2) and printable(said.out) and printable(said.err)
    assert "Traceback" not in said.err
    new = tree(home.parents[1]) - before
    inside = ("above/ws/ours", "above/ws/.state", "above/ws/ours-rejected.jsonl")
    assert all(name.startswith(inside) for name in new), new
    rejected = home / "ours-rejected.jsonl"
    return rejected.read_text(encoding="utf-8") if rejected.exists() else ""


@fault(
    "ids, questions and answers of a data folder steer a terminal, forge lines, or are endless",
    keeps="the rows, as they are",
    says="one printable line each, where a row is refused",
)
def test_texts_of_a_data_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(number, id=text or "none") for number, text in enumerate(EVERY)]
    for number, text in enumerate(EVERY):
        rows[number]["chosen"]["value"] = f"a house {text} {number}"
    refused = converted(home, rows, capsys)
    assert printable(refused)
    made = [read_preferences(path) for path in (home / "ours").glob("*.parquet")]
    assert sum(map(len, made)) + len(refused.splitlines()) == len(rows)


@fault(
    "rows of a data folder name pictures outside it, by name or by a link, or no file at all",
    keeps="the files that they name: nothing of them is read into the data",
    says="rows.json: row 1 (id row-1): ... in ours-rejected.jsonl",
)
def test_pictures_of_a_data_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [row(number) for number in range(8)]
    names = [*PLACES, *ESCAPES]
    rows = good + [row(8 + n, images=[name]) for n, name in enumerate(names)]
    planted = len(rows)
    for number, target in enumerate(LINKS):
        name = f"link-{number}.png"
        (home / "mine" / "images" / name).symlink_to(name if target == "loop" else target)
        rows.append(row(planted + number, images=[f"images/{name}"]))
    os.mkfifo(home / "mine" / "images" / "pipe.png")
    rows.append(row(len(rows), images=["images/pipe.png"]))
    refused = converted(home, rows, capsys)
    assert printable(refused) and "secret" not in refused
    assert len(refused.splitlines()) == len(rows) - len(good)
    assert not any("root:" in line for line in refused.splitlines())
