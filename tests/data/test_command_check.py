"""`python -m adapt.data check`: what it says of a source, and that it leaves nothing behind."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from adapt.data.__main__ import main
from adapt.data.check.rejections import kind_of_reason
from adapt.data.schema import Example, SceneObject
from adapt.data.tables import write_split
from tests.support import published
from tests.support.closure import ROOT
from tests.support.limits import STEP_S, until

HOSTILE = "<script>alert(1)</script> \x1b[31m\u202e <img src=http://a.example/x.png>"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's params.yaml, in which the command runs."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAPT_STATE", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path.parent))
    return tmp_path


def photo(number: int) -> Image.Image:
    """160 x 120: smooth patches, as in a photograph."""
    small = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC)


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A preference in RLAIF-V's columns, whose picture is a file."""
    said = {"question": f"What is {number}?", "chosen": f"A thing, {number}.", "rejected": "A dog."}
    own = {"image": f"{number}.png", "idx": f"r{number}", "ds_name": "drawn"}
    return {**said, **own, "origin_dataset": "ours", **changes}


def source(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    """A folder of rows, with a picture for each that has none yet."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(rows):
        path = folder / "images" / str(one["image"])
        if str(one["image"]).endswith(f"{number}.png") and not path.exists():
            path.write_bytes(saved(photo(number)))
    published.as_lines(folder / name, rows)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with a hash of its content, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the object of `check --json`."""
    code = main(["check", *arguments, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


# ---- what it says --------------------------------------------------------------------------------


def test_a_page_has_figures_of_everything_and_nothing_is_written(home, capsys):
    source(home / "mine", [row(n) for n in range(12)])
    before, beside = tree(home), {path.name for path in home.parent.iterdir()}
    code, found = checked(capsys, "mine")
    assert main(["check", "mine"]) == 0
    told = capsys.readouterr().out
    assert tree(home) == before
    assert {path.name for path in home.parent.iterdir()} == beside, "temporary files are gone"
    assert code == 0
    assert set(found) == {
        *("source", "revision", "limit", "format", "why", "left_out", "files", "rows", "kinds"),
        *("turns", "notes", "lengths", "length_bias", "truth", "pictures", "rejected"),
        *("duplicates", "alike", "leaks", "benchmarks", "splits", "stops"),
    }
    assert (found["source"], found["format"]) == ("mine", "rlaif-v")
    assert found["files"] == [{"name": "rows.jsonl", "rows": 12, "kind": "preference"}]
    expected = {"read": 12, "accepted": 12, "rejected": 0, "preference": 12, "evaluation": 0}
    assert found["rows"] == expected
    assert found["truth"] == {"unknown": 12, "none": 0, "known": 0, "boxes": 0}
    assert found["pictures"]["formats"] == {"PNG": 12} and found["pictures"]["modes"] == {"RGB": 12}
    assert found["pictures"]["width"] == {"min": 160, "median": 160, "p95": 160, "max": 160}
    bias = {"chosen_longer": 12, "equal": 0, "rejected_longer": 0, "mean_difference": 1.0}
    assert found["length_bias"] == bias and found["lengths"]["unit"] == "words"
    assert sum(split["rows"] for split in found["splits"].values()) == 12
    for words in ("rlaif-v: ", "12 of 12 (12 preference)", "below 3e-7", "cut by picture"):
        assert words in told


def test_what_would_be_rejected_is_counted_with_one_place_for_each_reason(home, capsys):
    rows = [row(n) for n in range(14)]
    rows[3] = row(3, chosen=" ")
    rows[5] |= {"image": "gone.png"}
    rows[6] |= {"image": "lost.png"}
    rows[7] = row(7, idx="r1")
    rows[8] = dict(rows[2])
    rows[9] = row(2, idx="again")
    source(home / "mine", rows)
    code, found = checked(capsys, "mine")
    assert code == 1 and found["rows"]["rejected"] == 5
    groups = {group["reason"]: group for group in found["rejected"]}
    assert groups["chosen: is empty"]["count"] == 1
    missing = next(group for reason, group in groups.items() if reason.startswith("image:"))
    assert missing["count"] == 2 and missing["example"].startswith("rows.jsonl: row 6 (id r5): ")
    assert found["duplicates"] == {"same_row": 1, "same_id": 1, "said_again": 1}


def test_a_reason_loses_what_differs_between_rows_of_one_fault():
    pairs = [
        ("image: 'a\\'b.jpg' not found", "image: … not found"),
        ("id: is also that of b.json: row 3", "id: is also that of another row"),
        (
            "image_id i7: is also in test (t.jsonl: row 20)",
            "image_id: is also in test (another row)",
        ),
        ("image: has 20,000 x 3 pixels", "image: has N x N pixels"),
    ]
    assert [kind_of_reason(reason) for reason, _ in pairs] == [kind for _, kind in pairs]


def test_pictures_that_look_alike_are_named_as_what_they_are(home, capsys):
    folder = source(home / "mine", [row(n) for n in range(12)])
    copies = {
        "re-encoded": saved(photo(0), "JPEG", quality=60),
        "resized": saved(photo(1).resize((80, 60))),
        "flipped": saved(photo(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "turned": saved(photo(3).transpose(Image.Transpose.ROTATE_90)),
        "identical": saved(photo(4)),
    }
    rows = [row(n) for n in range(12)]
    for number, (kind, content) in enumerate(copies.items(), 20):
        (folder / "images" / f"copy-{kind}.png").write_bytes(content)
        rows.append(row(number, image=f"copy-{kind}.png", image_id=f"i{number}"))
    published.as_lines(folder / "rows.jsonl", rows)
    _, found = checked(capsys, "mine")
    kinds = dict.fromkeys(("re-encoded", "resized", "flipped", "turned"), 1)
    assert {k: n for k, n in found["alike"]["kinds"].items() if k != "identical"} == kinds
    assert found["alike"]["in_several_rows"] == 1
    assert "below" in found["alike"]["false_alarms"]
    assert any(one.endswith(", flipped") for one in found["alike"]["examples"])


def test_planted_leaks_between_splits_and_into_benchmarks_are_found(home, capsys):
    folder = source(home / "mine", [row(n) for n in range(8)], "train.jsonl")
    images = folder / "images"
    images.joinpath("t.png").write_bytes(saved(photo(1), "JPEG", quality=70))
    tests = [row(20, image="t.png"), row(21, image="2.png"), row(22, image="u.png")]
    images.joinpath("u.png").write_bytes(saved(photo(99)))
    published.as_lines(folder / "test.jsonl", tests)
    bench = home / "bench"
    (bench / "deep").mkdir(parents=True)
    (bench / "deep" / "a.jpg").write_bytes(saved(photo(5).resize((100, 75)), "JPEG"))
    (bench / "deep" / "b.jpg").write_bytes(saved(photo(50), "JPEG"))
    (bench / "damaged.png").write_bytes(b"no picture")
    rows = [{"question": "?", "image": published.in_row(saved(photo(6)))}]
    published.as_parquet(home / "rows" / "test.parquet", rows)
    code, found = checked(capsys, "mine", "--benchmark", "pope=bench", "--benchmark", "own=rows")
    assert code == 1
    assert found["leaks"]["shared_rows"] == 1 and found["leaks"]["kinds"] == {"re-encoded": 1}
    named = "train.jsonl: row 2 (id r1) (train) is test.jsonl: row 1 (id r20) (test), re-encoded"
    assert named in found["leaks"]["examples"]
    pope, own = found["benchmarks"]
    assert (pope["pictures"], pope["unreadable"], pope["leaked"], pope["rows"]) == (2, 1, 1, 1)
    assert pope["kinds"] == {"resized": 1} and own["kinds"] == {"identical": 1}
    assert pope["examples"] == ["train.jsonl: row 6 (id r5) is deep/a.jpg, resized"]
    assert own["examples"] == ["train.jsonl: row 7 (id r6) is test.parquet: row 1, identical"]
    assert found["splits"]["test"]["how"] == "given"


def test_notes_turns_and_changes_of_pictures_are_told(home, capsys):
    published.trl_messages(home / "mine")
    assert main(["check", "mine"]) == 0
    assert "a system turn was left out (4 rows)" in capsys.readouterr().out
    folder = source(home / "turned", [row(n) for n in range(4)])
    exif = Image.Exif()
    exif[274] = 6
    (folder / "images" / "0.png").write_bytes(saved(photo(0), "JPEG", exif=exif))
    _, found = checked(capsys, "turned")
    assert found["pictures"]["notes"] == {"turned upright (EXIF orientation 6)": 1}
    assert found["pictures"]["height"]["max"] == 160, "as it is seen"


def test_lengths_are_tokens_where_the_model_has_a_tokenizer(home, capsys):
    words = {"[UNK]": 0, "A": 1, "thing,": 2}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    (home / "model").mkdir()
    tokenizer.save(str(home / "model" / "tokenizer.json"))
    params = yaml.safe_load((home / "params.yaml").read_text(encoding="utf-8"))
    params["base"]["source"] = "model"
    (home / "mine.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    source(home / "mine", [row(n) for n in range(3)])
    _, found = checked(capsys, "mine", "--params", "mine.yaml")
    assert found["lengths"]["unit"] == "tokens" and found["lengths"]["chosen"]["max"] == 3
    (home / "model" / "tokenizer.json").write_text("{}")
    assert checked(capsys, "mine", "--params", "mine.yaml")[0] == 2


def test_evaluation_rows_have_answers_and_truth_but_no_length_bias(home, capsys):
    things = (SceneObject(name="cup", colour="", box=(0.1, 0.1, 0.5, 0.5)),)
    rows = [
        Example(
            id=f"e{number}",
            image_id=f"i{number}",
            images=(saved(photo(number)),),
            kind="exists",
            history=(),
            question="Is there a cup?",
            answer="Yes, there is.",
            objects=(None, (), things)[number % 3],
            absent=None,
        )
        for number in range(6)
    ]
    (home / "mine").mkdir()
    write_split(home / "mine" / "rows.parquet", rows)
    assert main(["check", "mine", "--html", "page.html"]) == 0
    assert "question" in capsys.readouterr().out
    assert (home / "page.html").read_text(encoding="utf-8").count("<h3>answer</h3>") == 5
    _, found = checked(capsys, "mine")
    assert found["truth"] == {"unknown": 2, "none": 2, "known": 2, "boxes": 2}
    assert found["length_bias"] is None and found["kinds"] == {"exists": 6}
    assert found["lengths"]["answer"]["max"] == 3 and "chosen" not in found["lengths"]
    assert found["rows"]["evaluation"] == 6


def test_a_limit_looks_at_the_first_records_only(home, capsys):
    source(home / "mine", [row(n, chosen=" " if n == 9 else "A cat.") for n in range(12)])
    code, found = checked(capsys, "mine", "--limit", "5")
    assert (code, found["limit"], found["rows"]["read"]) == (0, 5, 5)
    assert checked(capsys, "mine", "--limit", "10")[1]["rows"]["rejected"] == 1


def test_a_source_too_small_for_its_splits_says_so(home, capsys):
    source(home / "mine", [row(0)])
    code, found = checked(capsys, "mine")
    assert code == 1 and found["stops"].endswith("split validation: no valid rows to cut it from")


# ---- the page in HTML ----------------------------------------------------------------------------


class Parsed(HTMLParser):
    """Tags and attributes of a page as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += attrs


def test_the_page_is_one_file_with_five_rows_and_their_pictures(home, capsys):
    source(home / "mine", [row(n) for n in range(9)])
    before = tree(home)
    assert main(["check", "mine", "--html", "page.html"]) == 0
    text = (home / "page.html").read_text(encoding="utf-8")
    assert set(tree(home)) - set(before) == {"page.html"}
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # well formed
    page = Parsed(text)
    assert page.tags.count("article") == 5 and page.tags.count("img") == 5
    links = [value for name, value in page.values if name in ("src", "href", "srcset", "action")]
    assert links and all(link and link.startswith("data:image/jpeg;base64,") for link in links)
    assert "http:" not in text and "https:" not in text and "url(" not in text
    assert len(text) < 1 << 20
    assert "cut by picture" in text and "A thing, " in text
    assert main(["check", "mine", "--html", "again.html"]) == 0
    assert (home / "again.html").read_text(encoding="utf-8") == text, "the same rows again"


def test_a_page_of_large_noise_stays_small(home, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (5, 4, 400, 400, 3), dtype=np.uint8)
    rows = [
        {
            "images": [published.in_row(saved(Image.fromarray(one))) for one in four],
            "prompt": "?" * 9000,
            "chosen": f"a {number}",
            "rejected": "b",
        }
        for number, four in enumerate(noise)
    ]
    published.as_parquet(home / "mine" / "rows.parquet", rows)
    assert main(["check", "mine", "--html", "page.html"]) == 0
    assert (home / "page.html").stat().st_size < 1_050_000


@pytest.mark.parametrize("column", ["question", "chosen", "idx", "ds_name", "image", "split"])
def test_hostile_texts_are_inert_on_terminal_and_page(home, capsys, column):
    inert = HOSTILE.replace("\x1b", "")  # a control character would be refused before
    rows = [row(n) for n in range(6)]
    rows[1][column] = HOSTILE
    rows[2][column] = inert
    source(home / "mine", rows)
    main(["check", "mine", "--html", "page.html"])
    told = capsys.readouterr()
    for text in (told.out, (home / "page.html").read_text(encoding="utf-8")):
        assert "\x1b" not in text and "\u202e" not in text
    text = (home / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    page = Parsed(text)
    assert all(not str(value).startswith("http") for name, value in page.values if name == "src")
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


# ---- mistakes and ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "nowhere"], "nowhere: not found"),
        (["check", "scenes"], "drawn here and has nothing to check"),
        (["check", "mine", "--format", "rlhf"], "did you mean rlhf-v"),
        (["check", "mine", "--pictures", "none"], "none: not found"),
        (["check", "mine", "--benchmark", "amber"], "is not NAME=FOLDER"),
        (["check", "mine", "--benchmark", "amber=empty"], "amber: no picture below empty"),
        (["check", "mine", "--benchmark", "a=mine", "--benchmark", "a=mine"], "the same name"),
        (["check", "mine", "--limit", "0"], "no number of records"),
        (["check", "mine", "--params", "none.yaml"], "none.yaml: not found"),
        (["check", "mine", "--html", "empty"], "is a folder"),
        (["check", "mine\x1b[31m"], "not found"),
        (["chek"], "invalid choice"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(home, capsys, arguments, says):
    source(home / "mine", [row(n) for n in range(3)])
    (home / "empty").mkdir()
    before = tree(home)
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("adapt.data: ") and says in told and "\x1b" not in told
    assert main([*arguments, "--json"]) == 2
    assert says in json.loads(capsys.readouterr().out)["error"]
    assert tree(home) == before


def command(home: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ADAPT_CPUS": "2"}
    line = [sys.executable, "-m", "adapt.data", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, cwd=home, env=environment, **pipes, **options)


def test_ctrl_c_is_quiet_and_leaves_neither_workers_nor_files(home):
    (home / "temporary").mkdir()
    published.as_parquet(
        home / "mine" / "rows.parquet",
        [{**row(n), "image": published.in_row(saved(photo(n)))} for n in range(300)],
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ADAPT_CPUS": "2"}
    environment["TMPDIR"] = str(home / "temporary")
    line = [sys.executable, "-m", "adapt.data", "check", "mine"]
    options: dict[str, Any] = {"cwd": home, "env": environment, "text": True}
    # A shell starts its background jobs with Ctrl-C ignored, and a child inherits that.
    options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        line, stderr=subprocess.PIPE, start_new_session=True, **options
    ) as process:
        until(lambda: any((home / "temporary").iterdir()), "start of the check")
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
        _, told = process.communicate(timeout=STEP_S)
    assert process.returncode == 130 and "Traceback" not in told
    until(lambda: not _is_group_alive(process.pid), "end of the workers")
    assert not [*(home / "temporary").glob("adapt-check-*")]


def _is_group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_reader_that_leaves_early_is_no_error(home):
    source(home / "mine", [row(n) for n in range(3)])
    with command(home, "check", "mine") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode == 0 and "Traceback" not in told and "Broken" not in told


def test_help_teaches_with_examples(home, capsys):
    for arguments in (["--help"], ["check", "--help"], ["export", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0 and "python -m adapt.data " in capsys.readouterr().out
