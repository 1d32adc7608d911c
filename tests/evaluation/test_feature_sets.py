"""Sets of features beside the default detector: what they gain, and that they change nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapt.evaluation import __main__ as command
from adapt.evaluation import early_warning, feature_sets
from adapt.evaluation.settings import Config
from adapt.params import InputError
from tests.evaluation.test_early_warning import tokens
from tests.metrics.test_detection import auroc

DRAWS = {"resamples": 100, "seed": 7}


def further(seed: int = 0) -> pd.DataFrame:
    """Hallucinated words resemble no patch; all else that is new grows with the position alone."""
    table = tokens(seed=seed)
    noise = np.random.default_rng(seed + 100).normal(size=len(table))
    grown = dict.fromkeys(feature_sets.SINGLE, table.position / 10)
    grown["nearest_last"] = 0.5 - 0.2 * (table.label == "hallucinated") + 0.1 * noise
    return table.assign(**grown)


def test_what_adds_is_told_from_what_does_not() -> None:
    detectors, sets = early_warning.fitted(further()), feature_sets.fitted(further())
    assert {name: d.features for name, d in sets.items()} == feature_sets.SETS
    test = further(seed=1)
    default = early_warning.report(test, detectors, **DRAWS)
    found = feature_sets.report(test, sets, **DRAWS)
    assert set(found) == {*feature_sets.SINGLE, *feature_sets.SETS}
    words, labels = early_warning.object_words(test)
    assert found["nearest_last"]["auroc"].point == auroc(-words.nearest_last, labels) > 0.85
    calibrated = early_warning.calibrations(test, sets)
    metrics = feature_sets.metrics(default, found, calibrated)
    basis = "mass_probability"
    assert metrics[f"{basis}_similarity_above_{basis}_low"] > 0.01
    assert metrics[f"{basis}_prelim_above_{basis}_low"] < 0, "nothing was added"
    lead = found[f"{basis}_both"]["auroc"].minus(found[basis]["auroc"])
    assert metrics[f"{basis}_both_above_{basis}"] == lead.point
    assert {f"calibration_error_{name}" for name in feature_sets.SETS} <= set(metrics)
    assert metrics[f"calibration_error_{basis}_both"] < 0.1
    assert feature_sets.metrics(default, {}, {}) == {}


def test_the_default_detector_and_its_report_are_as_without_further_columns() -> None:
    plain = tokens().drop(columns=list(feature_sets.SINGLE), errors="ignore")
    assert not {*feature_sets.SINGLE} & {*plain}
    detectors = early_warning.fitted(plain)
    assert early_warning.fitted(further()) == detectors
    one, other = (early_warning.report(t, detectors, **DRAWS) for t in (plain, further()))
    assert list(one) == list(other)
    for score, measures in one.items():
        for name, value in measures.items():
            assert value.point == other[score][name].point
            np.testing.assert_array_equal(value.drawn_R, other[score][name].drawn_R)
    both = {**other, **feature_sets.report(further(), feature_sets.fitted(further()), **DRAWS)}
    table = early_warning.table({"base": both})
    pd.testing.assert_frame_equal(table.head(len(one)), early_warning.table({"base": one}))


def test_features_are_columns_and_every_set_is_compared_with_a_part_of_itself() -> None:
    table = further()
    sets = {**early_warning.VARIANTS, **feature_sets.SETS}
    assert {feature for features in sets.values() for feature in features} <= set(table)
    assert set(feature_sets.AGAINST) == set(feature_sets.SETS) - {feature_sets.BASIS}
    for name, other in feature_sets.AGAINST.items():
        assert set(sets[other]) < set(sets[name])


def test_a_table_of_an_earlier_version_is_refused() -> None:
    feature_sets.check(further(), "tokens.parquet")
    says = "a/tokens.parquet: has no column prelim: it is of an earlier version; run the answer"
    with pytest.raises(InputError, match=says):
        feature_sets.check(further().drop(columns="prelim"), "a/tokens.parquet")


def test_too_few_words_have_no_sets() -> None:
    nothing = further().assign(label="grounded")
    assert feature_sets.fitted(nothing) == {} == feature_sets.report(nothing, {}, **DRAWS)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two results folders whose answers are judged already."""

    def run(results: Path, arm: str, config: Config) -> command.Run:
        table = further(seed=2 + (results.name == "b"))
        sets = {**early_warning.fitted(further()), **feature_sets.fitted(further())}
        directions = {**early_warning.DIRECTIONS, **feature_sets.DIRECTIONS}
        report = early_warning.judged(table, sets, directions, config.bootstrap, config.seed)
        return command.Run(9, 3, report, early_warning.calibrations(table, sets))

    monkeypatch.setattr(command, "read", run)
    return tmp_path


def test_the_command_prints_a_table_a_folder_and_their_mean(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(judged / "a"), str(judged / "b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("|")] == [
        f"{judged}/a, base: 3 of 9 object words of the test split are hallucinated",
        f"{judged}/b, base: 3 of 9 object words of the test split are hallucinated",
        "mean of 2 folders (lead: folders whose interval is above 0)",
    ]
    every = [*early_warning.DIRECTIONS, *feature_sets.SINGLE, *command.SETS]
    for name in every:
        assert sum(line.startswith((f"| {name} ", f"| {name} (")) for line in lines) == 3, name
    whole = [line for line in lines if line.startswith("| mass_probability_similarity")]
    for line in whole[:2]:
        _, _, score, lead, caught, gap, _ = (cell.strip() for cell in line.split("|"))
        assert score[:2] in (".9", "1.") and lead.startswith("+0.0") and caught.endswith(" %")
        assert 0 <= float(gap) < 0.1
    assert whole[2].count("(2 of 2)") == 1


def test_the_command_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(tmp_path)]) == 2
    says = f"{tmp_path}/answer/responses.parquet: not found; run the pipeline up to stage answer"
    assert says in capsys.readouterr().err
