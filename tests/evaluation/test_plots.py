"""Figures: the same bytes twice, all that should be readable on them, and inputs with gaps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from adapt.evaluation import plots
from adapt.evaluation.degradation import DRAWN


def curves(arms: tuple[str, ...] = ("base", "tuned"), n: int = 20) -> pd.DataFrame:
    rows = [
        (arm, "mass", split, position, 0.8 - 0.01 * position, 0.7, 0.9, n)
        for arm in arms
        for split in ("all", "grounded", "hallucinated")
        for position in range(5)
    ]
    return pd.DataFrame(
        rows, columns=["arm", "signal", "split", "position", "mean", "low", "high", "n"]
    )


def drawn(frame: pd.DataFrame, signal: str = "mass") -> Figure:
    relative = frame.assign(position=frame["position"] / 10 + 0.05)
    return plots.curves_figure(frame, relative, signal)


def labels(figure: Figure) -> list[list[str]]:
    return [
        [text.get_text() for text in axes.get_legend().get_texts()]
        for axes in figure.axes
        if axes.get_legend()
    ]


def test_every_curve_has_a_title_and_an_axis() -> None:
    assert set(plots.CURVES) == set(DRAWN)


def test_curves_show_arms_and_kinds_of_words() -> None:
    figure = drawn(curves())
    assert labels(figure) == [
        ["before", "after"],
        ["before, grounded", "before, hallucinated", "after, grounded", "after, hallucinated"],
    ]
    assert figure.axes[0].get_ylabel() == "attention on the image (share, 0 to 1)"
    assert [axes.get_xlabel() for axes in figure.axes] == [
        *["position in the answer (tokens)"] * 2,
        *["position in the answer (0 first, 1 last token)"] * 2,
    ]
    for axes, x in (
        (figure.axes[0], [0, 1, 2, 3, 4]),
        (figure.axes[2], [0.05, 0.15, 0.25, 0.35, 0.45]),
    ):
        assert np.allclose(axes.lines[0].get_xdata(), x)
        assert np.allclose(axes.lines[0].get_ydata(), [0.8, 0.79, 0.78, 0.77, 0.76])
        assert len(axes.collections) == 2, "a band for each arm"


@pytest.mark.parametrize("frame", [curves(arms=("base",)), curves(n=0)])
def test_curves_with_gaps_are_drawn(frame: pd.DataFrame, tmp_path: Path) -> None:
    plots.save(drawn(frame), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_bars_carry_their_values() -> None:
    figure = plots.before_after_figure(
        {"base/hal": 25.0, "tuned/hal": 11.4, "tuned/mass_late_early": 0.777}
    )
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert {"25.0", "11.4", "0.777"} <= set(texts)
    titles = [axes.get_title().splitlines()[0] for axes in figure.axes]
    assert titles == ["Hal", "attention late/early"], "what was not measured has no place"
    assert plots.before_after_figure({"base/fire_rate": 3.0}) is None
    assert "nan" not in texts  # a metric that an arm lacks has no bar


def rows() -> list[plots.PanelRow]:
    heat = np.random.default_rng(0).dirichlet(np.ones(12)).reshape(3, 4)
    return [
        plots.PanelRow("before", "a house and a **brown dog**, here.", [heat]),
        plots.PanelRow("after", "a house.", [heat / 2]),
    ]


def test_panel_marks_hallucinated_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = plots.save
    monkeypatch.setattr(
        plots, "save", lambda figure, path: (drawn.append(figure), save(figure, path))
    )
    plots.panel(
        [Image.new("RGB", (48, 36), "white")],
        rows(),
        tmp_path / "panel.png",
        title="what is there?",
    )
    texts = [text for axes in drawn[0].axes for text in axes.texts]
    wrong = [text.get_text() for text in texts if to_hex(text.get_color()).upper() == plots.WRONG]
    assert wrong == ["brown", "dog"]
    assert all((text.get_weight() == "bold") == (text.get_text() in wrong) for text in texts)
    titles = [axes.get_title() for axes in drawn[0].axes if axes.get_title()]
    assert titles == ["picture", "before", "after"]
    assert all(text.get_window_extent().x1 <= drawn[0].bbox.x1 for text in texts)


def test_words_break_into_lines_inside_their_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    long = plots.PanelRow("before", "a house and a **dog**, " * 12, [np.ones((2, 2))])
    plots.panel([Image.new("RGB", (8, 8))], [long], tmp_path / "panel.png")
    box = drawn[0].axes[2].get_window_extent()
    extents = [text.get_window_extent() for text in drawn[0].axes[2].texts]
    assert len({round(extent.y1) for extent in extents}) > 5
    assert all(
        extent.x1 <= box.x1 + 6 and extent.y0 >= 0 for extent in extents
    )  # a comma may hang over


def test_pictures_of_a_row_stand_side_by_side_each_under_its_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    images = [Image.new("RGB", (64, 48)), Image.new("RGB", (10, 12))]
    heats = [np.full((2, 3), 1 / 12), np.full((1, 2), 1 / 4)]
    plots.panel(images, [plots.PanelRow("before", "", heats)], tmp_path / "panel.png")
    pictures, before, _, bar = drawn[0].axes
    assert pictures.get_title() == "pictures"
    boxes = [(-0.5, 63.5, 47.5, -0.5), (63.5 + 0.04 * 48, 103.5 + 0.04 * 48, 47.5, -0.5)]
    assert [tuple(image.get_extent()) for image in pictures.images] == [*boxes]
    assert [tuple(image.get_extent()) for image in before.images] == [
        box for box in boxes for _ in range(2)
    ]
    assert before.get_xlim() == (-0.5, boxes[1][1]) and before.get_ylim() == (47.5, -0.5)
    # Half of the attention lies on each picture, evenly: of the same colour, whatever the cells.
    maps = [image.get_array() for image in before.images[1::2]]
    assert all(np.allclose(one, 0.5) for one in maps)
    assert bar.get_ylabel() == "attention per area (1: all of it, evenly)"


def test_maps_of_one_shape_keep_the_attention_of_a_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    heats = [np.full((2, 2), 0.1), np.full((2, 2), 0.2)]
    row = plots.PanelRow("before", "", heats)
    plots.panel([Image.new("RGB", (8, 8))] * 2, [row], tmp_path / "panel.png")
    assert [float(image.get_array().max()) for image in drawn[0].axes[1].images[1::2]] == [0.1, 0.2]
    assert drawn[0].axes[-1].get_ylabel() == "attention on the patch"


@pytest.mark.parametrize("heat", [np.zeros((2, 2)), np.full((1, 5), 0.2)])
def test_flat_heat_maps_are_drawn(heat: np.ndarray, tmp_path: Path) -> None:
    plots.panel(
        [Image.new("L", (10, 4))], [plots.PanelRow("before", "", [heat])], tmp_path / "panel.png"
    )
    with Image.open(tmp_path / "panel.png") as image:
        assert image.size[0] > 500


def test_same_input_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plots.panel([Image.new("RGB", (48, 36), "white")], rows(), tmp_path / name / "panel.png")
        plots.save(drawn(curves()), tmp_path / name / "curves.png")
        plots.save(plots.before_after_figure({"base/hal": 25.0}), tmp_path / name / "bars.png")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        with Image.open(path) as image:
            assert "Software" not in image.info
