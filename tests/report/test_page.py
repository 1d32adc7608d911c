"""The page: what it says, that it asks nobody for anything, that no text can become markup."""

from dataclasses import replace

import pytest

from adapt.launch import STAGES
from adapt.report import page, pictures, telling
from adapt.report.reading import Split, Stage, Version
from tests.report.pages import Page, offline, png, record

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>@import 'http://tracker.example'</style>",
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[2Jforged\r\nline\u202egnp.exe",
    "javascript:alert(1)",
    "**" * 50 + "a | b",
    "$\\foo$ &lt;b&gt; \x00",
    "../../../etc/passwd",
    "https://me:hunter2@host/x?token=abc",
]


def hostile(text: str):
    """A record in which every text from outside is this one."""
    curves = {"curves/mass/base": ((0, 1.0), (1, float("nan")), (2, 2.0))}
    stage = Stage(name=text, id=text, status=text, seconds=1, how="", hash=text)
    row = {"id": text, "question": text, "base": text, "tuned": f"{text} x"}
    keys = ("adapt.ending", "adapt.reasons", "adapt.against", "adapt.error", "adapt.flow_run")
    tags = dict.fromkeys((*keys, "adapt.flow_url", "adapt.figures", "dvc.model"), text)
    return record(
        id=text,
        name=text,
        tags={"adapt.kind": text, "mlflow.source.git.commit": text, **tags},
        params={text: text, "answer.benchmarks": text},
        metrics={f"test/base/{text}": 1.0, f"test/tuned/{text}": float("nan")},
        curves=curves,
        answers=[row],
        pictures={f"panel_{text}.png": png(4, 4), "panel_b.png": text.encode()},
        splits=[Split(name=text, digest=text, rows=None)],
        stages=[stage],
        parent=text,
        version=Version(model=text, number=text, aliases=(text,), tags={"dvc.model": text}),
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup_or_a_request(text: str) -> None:
    plain = Page(page.render([record()], "made"))
    for records in ([hostile(text)], [record(), hostile(text)]):
        shown = Page(page.render(records, text.replace("hunter2", "")))
        offline(shown)
        assert {tag for tag, _ in shown.elements} <= {
            *{tag for tag, _ in plain.elements},
            *{"small", "mark", "details", "summary"},
        }
        assert "hunter2" not in shown.text and "\x1b" not in shown.text
        assert "\u202e" not in shown.text and "\x00" not in shown.text


def test_one_run_is_told_from_its_decision_to_its_origin() -> None:
    shown = Page(page.render([record()], "made by a test"))
    offline(shown)
    for told in (
        *("Promoted to champion", "adapt version 7", "7 min 0 s", "Hal 34.2 % \u2192 14.4 %"),
        *("Hal %", "34.2", "14.4", "-19.8", "-23.6 to -16.2", "POPE F1 %", "+1.5"),
        *("what is there?", "d38aa354c720", "16,000 rows, bb90428aa940", "champion"),
        *("1 min 5 s", "unchanged", "made by a test", "train.steps"),
    ):
        assert told in shown.text, told
    classes = [one.get("class") for one in shown.all("li")]
    assert classes.count("passed") == 1 and classes.count("failed") == 1
    links = [one["href"] for one in shown.all("a")]
    assert "http://127.0.0.1:5000/#/experiments/1/runs/" + "b" * 32 in links
    assert "http://127.0.0.1:5000/#/models/adapt/versions/7" in links
    assert shown.text.index("data") < shown.text.index("train")  # as they run, not as recorded


def test_a_run_tells_how_its_models_are_steered() -> None:
    numbers = {"test/base_steered/alpha": 1.8, "test/base_steered/tau": 0.9}
    facts = telling.tell(record(metrics=numbers), "").facts
    told = {name: text for name, text, _ in facts}
    assert told["steering before"] == "alpha 1.8, tau 0.9" and "steering after" not in told


def test_who_sees_no_picture_reads_what_it_shows() -> None:
    shown = Page(page.render([record()], ""))
    assert [one["alt"] for one in shown.all("img")] == [
        "Test picture test-1 with heat maps of attention before and after, and the answers. "
        "Before: a cat on a bed After: a bed"
    ]
    drawn = [one for one in shown.all("svg") if "aria-hidden" not in one]
    assert [one["aria-label"] for one in drawn] == [
        "Visual mass, Visual mass by generated token: before from 0.8 to 0.5; "
        "after from 0.8 to 0.7.",
        "Loss, Loss by step: 2026-11-26 nightly, data 3f2a1c from 1.5 to 0.5.",
    ]
    assert all(one["role"] == "img" for one in drawn)


def test_two_runs_lie_over_each_other_and_their_parameters_side_by_side() -> None:
    second = record(
        name="weekly",
        params={"train.steps": "60", "seed": "7", "train.beta": "0.5"},
        metrics={"test/base/hal": 34.2, "test/tuned/hal": 15.6},
        tags={"adapt.ending": "refused", "adapt.kind": "retraining"},
    )
    text = page.render([record(), second], "")
    shown = Page(text)
    offline(shown)
    assert "Not promoted" in shown.text and "A: 2026-11-26 nightly" in shown.text
    table = text.split("What differs in the parameters")[1].split("</table>")[0]
    assert "train.steps" in table and "train.beta" in table and "seed" not in table
    assert "<code>200</code>" in table and "<code>60</code>" in table
    assert "+1.2" in shown.text  # 15.6 after in B, 14.4 in A
    dashed = [one for one in shown.all("path") if "dashed" in one.get("class", "")]
    assert len([one for one in dashed if one["d"] != "M0 4H32"]) == 3  # one for each curve of B


@pytest.mark.parametrize(
    ("status", "tags", "words", "tone"),
    [
        ("FINISHED", {"adapt.ending": "waiting"}, "Passed the gate, awaits approval", "wait"),
        ("FINISHED", {"adapt.promoted": "false"}, "Not promoted", "bad"),
        ("FINISHED", {"adapt.kind": "retraining"}, "The champion already", "good"),
        ("FINISHED", {}, "Finished", ""),
        ("FAILED", {"adapt.error": "train: loss is nan"}, "Failed", "bad"),
        ("KILLED", {"adapt.ending": "promoted"}, "Killed", "bad"),
        ("RUNNING", {}, "Still running, or its end is not recorded yet", ""),
    ],
)
def test_every_ending_has_words(status: str, tags: dict, words: str, tone: str) -> None:
    told = telling.tell(record(status=status, tags=tags), "A")
    assert (told.decision, told.tone) == (words, tone)
    assert ("failed", "train: loss is nan") in told.reasons or "adapt.error" not in tags


def test_a_run_with_nothing_in_it_has_a_page() -> None:
    empty = {"curves": {}, "answers": [], "pictures": {}, "splits": [], "stages": []}
    nothing = record(**empty, params={}, metrics={}, tags={}, version=None, address="", ended=None)
    shown = Page(page.render([replace(nothing, started=None, name="")], ""))
    offline(shown)
    assert nothing.id in shown.text and not shown.all("table") and not shown.all("a")


def test_the_size_of_a_page_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "TOTAL", 2_000_000)
    noise = png(900, 800, noise=True)  # 2.2 MB, and as JPEG still 0.7
    many = {f"panel_{number}.png": noise for number in range(6)}
    curve = tuple((step, float(step % 7)) for step in range(50_000))
    large = record(pictures=many, curves={"train/loss": curve}, params={"x": "y" * 100_000})
    text = page.render([large], "")
    assert len(text) < pictures.TOTAL + 100_000
    assert "more in MLflow" in text


def test_a_picture_is_drawn_anew_and_a_bomb_is_left_out() -> None:
    trailing = png(8, 8) + b"<script>alert(1)</script>"
    kept, dropped = pictures.embedded({"a.png": trailing, "b.png": b"GIF89a"}, ["a.png", "b.png"])
    assert [one.name for one in kept] == ["a.png"] and dropped == 1
    assert len(kept[0].source) < len(png(8, 8)) * 2
    bomb = png(8, 8)[:16] + (60_000).to_bytes(4, "big") * 2 + png(8, 8)[24:]
    assert pictures.embedded({"a.png": bomb}, ["a.png"]) == ([], 1)


def test_the_chain_is_that_of_the_pipeline() -> None:
    assert telling.CHAIN == STAGES
