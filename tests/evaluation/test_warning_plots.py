"""Figures of the early warning: what should be readable on them, gaps, and the same bytes twice."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from adapt.evaluation import early_warning, plots, warning_plots
from adapt.evaluation.warning_plots import Trace
from tests.evaluation.test_early_warning import tokens

IMAGE = Image.new("RGB", (48, 36), "white")


def warning(with_detectors: bool = True) -> Figure:
    table = tokens()
    detectors = early_warning.fitted(tokens(seed=1)) if with_detectors else {}
    found = early_warning.report(table, detectors, resamples=50, seed=0)
    return warning_plots.warning_figure(
        table, detectors, found, early_warning.calibrations(table, detectors)
    )


def trace(count: int = 11) -> Trace:
    labels = ["hallucinated" if t == 5 else "grounded" if t == 2 else "other" for t in range(count)]
    heat = np.random.default_rng(0).random((count, 3, 4)) / 12
    return Trace([f"w{t}" for t in range(count)], labels, [heat])


def texts(figure: Figure) -> list[str]:
    inside = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    return [text for text in (*inside, *(text.get_text() for text in figure.texts)) if text]


def test_every_score_has_a_name_and_a_colour() -> None:
    assert set(warning_plots.SCORES) == {*early_warning.DIRECTIONS, *early_warning.VARIANTS}
    assert set(warning_plots.LINES) <= set(warning_plots.SCORES)


def test_bars_curves_and_calibration() -> None:
    figure = warning()
    bars, caught, risks = figure.axes
    names = [label.get_text() for label in bars.get_yticklabels()][::-1]
    assert names == [name for name, _ in warning_plots.SCORES.values()]
    entries = [text.get_text() for text in caught.get_legend().get_texts()]
    assert len(entries) == 5 and all(entry.endswith(" %") for entry in entries)
    for line in caught.lines[:5]:
        assert line.get_ydata()[0] == 0 and (np.diff(line.get_ydata()) >= -1e-9).all()
    assert all("mean gap" in text.get_text() for text in risks.get_legend().get_texts())
    words, labels = early_warning.object_words(tokens())
    assert f"{labels.sum()} of {len(words)} object words" in figure.get_suptitle()


def test_without_a_detector_the_single_scores_are_drawn(tmp_path: Path) -> None:
    figure = warning(with_detectors=False)
    assert len(figure.axes[0].get_yticklabels()) == len(early_warning.DIRECTIONS)
    plots.save(figure, tmp_path / "a.png")


def test_the_strip_colours_object_words_and_tells_the_risk() -> None:
    figure = warning_plots.strip_figure([IMAGE], trace(), np.linspace(0, 1, 11), "what is there?")
    titles = {axes.get_title(): axes.title for axes in figure.axes if axes.get_title()}
    assert list(titles) == ["(picture)", *(f"w{t}" for t in range(11))]
    assert (
        to_hex(titles["w5"].get_color()).upper() == plots.WRONG
        and titles["w5"].get_weight() == "bold"
    )
    assert (
        to_hex(titles["w2"].get_color()).upper() == plots.AFTER
        and titles["w1"].get_weight() == "normal"
    )
    assert {"0 %", "50 %", "100 %"} <= set(texts(figure))
    assert any("what is there?" in text for text in texts(figure))


@pytest.mark.parametrize("count", [1, 7, 8, 40])
def test_strips_of_any_length(count: int, tmp_path: Path) -> None:
    figure = warning_plots.strip_figure([IMAGE], trace(count), None, "q")
    assert not any(text.endswith(" %") for text in texts(figure)), "no risk, no bars"
    assert any(f"the first {warning_plots.MOST} of {count}" in text for text in texts(figure)) == (
        count == 40
    )
    plots.save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 1000


def test_a_trace_is_cut_out_of_the_tables() -> None:
    answer = pd.Series({"response": "a dog.", "grids": [[1, 2]]})
    labelled = pd.DataFrame({"end": [1, 5, 6], "label": ["other", "hallucinated", "other"]})
    heat = pd.DataFrame({"position": [2, 0, 1], "heats": [[[5, 6]], [[1, 2]], [[3, 4]]]})
    cut = Trace.of(answer, labelled, heat)
    assert cut.pieces == ["a", " dog", "."] and cut.labels == labelled.label.tolist()
    assert [heat.tolist() for heat in cut.heats] == [[[[1, 2]], [[3, 4]], [[5, 6]]]]


def test_a_trace_of_two_pictures() -> None:
    answer = pd.Series({"response": "a dog", "grids": [[1, 2], [2, 2]]})
    labelled = pd.DataFrame({"end": [1, 5], "label": ["other", "hallucinated"]})
    heats = [[[1, 2], [3, 4, 5, 6]], [[7, 8], [9, 10, 11, 12]]]
    cut = Trace.of(answer, labelled, pd.DataFrame({"position": [0, 1], "heats": heats}))
    assert [heat.tolist() for heat in cut.heats] == [
        [[[1, 2]], [[7, 8]]],
        [[[3, 4], [5, 6]], [[9, 10], [11, 12]]],
    ]
    figure = warning_plots.strip_figure([IMAGE, IMAGE], cut, np.array([0.1, 0.2]), "q")
    pictures, first, *_ = figure.axes
    assert pictures.get_title() == "(pictures)" and len(pictures.images) == 2
    assert len(first.images) == 4, "a map over each picture"
    assert first.get_subplotspec().get_gridspec().ncols == warning_plots.COLUMNS // 2


def test_attention_to_nothing_is_drawn(tmp_path: Path) -> None:
    blind = Trace(["w", ""], ["other"] * 2, [np.zeros((2, 2, 2))])
    figure = warning_plots.strip_figure([IMAGE], blind, None, "q")
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["(picture)", "w", "·"]
    plots.save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 1000


def test_same_input_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plots.save(warning(), tmp_path / name / "warning.png")
        strip = warning_plots.strip_figure([IMAGE], trace(), np.full(11, 0.5), "q")
        plots.save(strip, tmp_path / name / "strip.png")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
