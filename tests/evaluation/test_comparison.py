"""The table of a comparison, by hand."""

import pandas as pd
import pytest

from adapt.evaluation.comparison import Change, change, chart, differences, markdown, summary
from adapt.metrics.bootstrap import Interval


def answers(*hallucinated, truth=()):
    rows = [
        {"id": f"{i}-describe", "image_id": str(i), "kind": "describe", "hallucinated": names}
        for i, names in enumerate(hallucinated)
    ]
    asked = {"id": "0-exists", "image_id": "0", "kind": "exists", "hallucinated": ["bus"]}
    return pd.DataFrame([*rows, asked]).assign(truth=[truth] * (len(rows) + 1))


def test_only_descriptions_count():
    better, worse = answers([], ["bus", "car"]), answers(["cup"], ["bus"])
    assert change("hal", [better], [worse], resamples=50, seed=0).points.point == -50.0


def test_what_nobody_knows_has_no_difference():
    unknown = answers([], [], truth=None)
    assert change("hal", [unknown], [unknown], resamples=50, seed=0) is None
    assert differences({"sft": {"hal": None}}).to_dict() == {"Hal %": {"sft": ""}}


def test_difference_is_paired_over_all_seeds():
    worse, better = answers(["bus"], ["car"]), answers([], ["car"])
    points, part = change("hal", [better, better], [worse, worse], resamples=200, seed=0)
    assert points.point == -50.0 and points.low >= -100 and points.high <= 0 and part == -0.5
    same = change("hal", [worse], [worse], resamples=50, seed=0)
    assert same == Change(Interval(0.0, 0.0, 0.0), 0.0)


def test_different_questions_cannot_be_paired():
    with pytest.raises(AssertionError, match="the same questions"):
        change("hal", [answers([])], [answers([], [])], resamples=10, seed=0)


def test_table_and_chart(tmp_path):
    long = pd.DataFrame(
        {
            "arm": ["base", "base", "sft", "sft"],
            "seed": [1, 2, 1, 2],
            "hal": [30.0, 32.0, 10.0, 14.0],
            "cover": [95.0, 95.0, 94.0, 94.0],
            "fire_rate": [None, None, None, None],
            "seconds": [None, None, 60.0, 62.0],
        }
    )
    text = markdown(summary(long.astype({"fire_rate": float})))
    assert "| arm | Hal % | Cover % | fires % | train s |" in text
    assert "| base | 31.0 +- 1.4 | 95.0 +- 0.0 |  |  |" in text
    assert "| sft | 12.0 +- 2.8 | 94.0 +- 0.0 |  | 61.0 +- 1.4 |" in text
    by_arm = {
        "sft": {
            "hal": Change(Interval(-19.0, -25.0, -12.0), -0.613),
            "cover": Change(Interval(-1.0, -1.5, 0.5), -0.011),
        }
    }
    text = markdown(differences(by_arm))
    assert "| sft | -19.0 [-25.0, -12.0], -61 % | -1.0 [-1.5, +0.5] |" in text
    lost = long[long.arm == "sft"].assign(arm="lost", cover=[40.0, 60.0])
    chart(long.drop(columns="hal"), tmp_path / "arms.png")
    assert not (tmp_path / "arms.png").exists(), "nothing to draw"
    chart(pd.concat([long, lost]), tmp_path / "arms.png")
    assert (tmp_path / "arms.png").stat().st_size > 10_000
