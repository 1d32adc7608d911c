"""What MLflow's pages say: notes in Markdown as a browser reads them, and the view of a table."""

import json

import pytest
from markdown_it import MarkdownIt

from adapt.metrics.headline import HEADLINES
from adapt.tracking import experiment, presentation
from adapt.tracking.presentation import Origin, Verdict

HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "[click](javascript:alert(1))",
    "a | b | c",
    "**bold** _it_ `code` # head",
    "line\nbreak\x1b[2J and \u202e turned",
    "from https://me:hunter2@host/model",
    "![x](http://tracker.example/x.png)",
)
FIGURES = {"Hal %": (34.2, 14.44), "Cover %": (94.58, 93.71), "late/early": (None, 0.734)}
VERDICT = Verdict(
    ending="promoted",
    against="version 1",
    reasons=HOSTILE,
    figures=FIGURES,
    digits={"Hal %": 1, "Cover %": 1},
    when="2026-11-26 03:10 UTC",
    who="nightly",
)
ORIGIN = Origin(
    experiment="1",
    run="a31e3f",
    run_name="2026-11-26 nightly, data 3f2a1c",
    data="28cc3963a3b7d4d7",
    revision="d38aa354c720",
    is_dirty=True,
    flow="http://127.0.0.1:4200/runs/flow-run/x)(<b>",
)


def html(note: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(note)


def notes() -> dict[str, str]:
    return {
        "retraining": presentation.retraining_note("adapt", "2", VERDICT, ORIGIN),
        "version": presentation.version_note("adapt", "2", VERDICT, ORIGIN),
        "undecided": presentation.version_note("adapt", "2", None, ORIGIN),
        "model": presentation.model_note("adapt"),
        "experiment": experiment.tags("1", "adapt")[presentation.NOTE],
    }


def test_the_table_has_figures_before_and_after():
    lines = presentation.table(FIGURES, {"Hal %": 1, "Cover %": 1}).splitlines()
    assert lines[2:] == [
        "| Hal % | 34.2 | 14.4 | -19.8 |",
        "| Cover % | 94.6 | 93.7 | -0.9 |",
        "| late/early |  | 0.734 |  |",
    ]
    assert presentation.table({"Hal %": (None, None)}, {}) == ""


@pytest.mark.parametrize("kind", list(notes()))
def test_the_first_line_says_it_without_markdown(kind):
    first = notes()[kind].splitlines()[0]
    assert not any(mark in first for mark in ("**", "`", "|", "#")) or kind == "experiment"


@pytest.mark.parametrize("kind", ["retraining", "version"])
def test_texts_of_others_stand_there_as_texts(kind):
    page = html(notes()[kind])
    assert "<img" not in page and "<b>" not in page and "javascript:alert(1)</a>" not in page
    assert page.count("<li>") == len(HOSTILE) and page.count("<tr>") == 1 + len(FIGURES)
    assert "hunter2" not in page and "\x1b" not in page and "\u202e" not in page
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert all(link.startswith(("#/", "http://127.0.0.1:4200/")) for link in links)


def test_a_version_tells_where_it_is_from_and_how_to_get_it():
    page = html(notes()["version"])
    assert 'href="#/experiments/1/runs/a31e3f"' in page and "with uncommitted changes" in page
    assert "28cc3963a3b7" in page and "models:/adapt/2" in page
    assert notes()["version"].startswith("Promoted to champion (against version 1, by nightly, on")
    assert notes()["undecided"].startswith("Nothing is decided yet.")


def test_names_in_addresses_are_quoted():
    assert presentation.version_page("a b.c-d", "7") == "#/models/a%20b.c-d/versions/7"
    assert presentation.run_page("1", "../x") == "#/experiments/1/runs/..%2Fx"


def test_the_table_of_retrainings_has_the_main_figures_first():
    tags = experiment.tags("1", "adapt")
    assert tags[experiment.KIND] == "custom_model_development"
    view = json.loads(tags["mlflow.sharedViewState.retrainings"])
    metrics = [one for one in view["selectedColumns"] if one.startswith("metrics.")]
    assert metrics[:2] == [
        "metrics.`before_after/hal_before`",
        "metrics.`before_after/hal_after`",
    ]
    assert len(metrics) == 2 * len(HEADLINES)
    assert set(view["columnWidths"]) == set(view["columnOrder"]) - {"attributes.`Created`"}
    assert all(len(text) <= 5000 for text in tags.values())  # MLflow's limit of a tag
