"""Every benchmark's figures in the pipeline's units, against the counts that a bootstrap draws."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from adapt.evaluation.benchmarks import scored
from adapt.metrics.measures import BENCHMARKS
from tests.benchmarks.test_scoring import ANSWERS
from tests.support import oracle
from tests.support.benchmark_folders import MAKERS, benchmark

SAID: dict[str, dict[str, str]] = ANSWERS | {
    "mmhal": {"0": "A dog.", "1": "A cat."},
    "hallusion": {"VD_s_0_0_0": "Yes.", "VD_s_0_1_0": "Yes, they are.", "VS_s_0_0_0": "No."},
}
VERDICTS = {"0": "Rating: 5", "1": "Rating: 2"}
# AMBER's program rounds to one decimal and adds 0.001 to what it counts.
LEAST = {"amber": 0.3, "mmhal": 0.01}


def options(name: str, root: Path) -> dict[str, Any]:
    return {
        "objhal": {"truth": str(root / "objects.json")},
        "mmhal": {"verdicts": "verdicts.json"},
    }.get(name, {})


@pytest.mark.parametrize("name", MAKERS)
def test_figures_and_counts_are_in_one_unit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle.use_nltk_data(monkeypatch)
    settings = benchmark(name, MAKERS[name](tmp_path), **options(name, tmp_path))
    said = SAID[name]
    rows = pd.DataFrame({"id": list(said), "response": list(said.values())})
    verdicts = VERDICTS if name == "mmhal" else {}
    one = scored(settings, rows.assign(verdict=rows.id.map(verdicts)))
    assert set(one.values) <= set(BENCHMARKS[name])
    for metric, counted in one.counted.items():
        value = BENCHMARKS[name][metric].whole * counted.ratio
        assert one.values[metric] == pytest.approx(value, abs=LEAST.get(name, 1e-9)), metric
        assert len(set(counted.images)) == len(counted.images)
    rates = [v for k, v in one.values.items() if BENCHMARKS[name][k].unit]
    assert max(rates) > 1, "percent, not fractions"
