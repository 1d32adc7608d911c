"""The numbers of an answer and of a picture."""

import math

import numpy as np
import pytest
from PIL import Image

from adapt.attention import settings
from adapt.evaluation import early_warning
from adapt.evaluation.degradation import late_early
from adapt.score import risk
from adapt.watching import log, signals


def columns(length: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(length)
    return {name: rng.uniform(0.1, 1, length).tolist() for name in signals.TOKENS}


def test_the_lists_are_those_of_other_rooms() -> None:
    assert signals.SIGNALS == settings.SIGNALS
    assert risk.VARIANTS == early_warning.VARIANTS
    assert set(signals.TOKENS) <= set(log.TOKEN_COLUMNS)


@pytest.mark.parametrize("length", [3, 7, 20])
def test_thirds_are_those_of_the_degradation_curves(length: int) -> None:
    import pandas as pd

    of = columns(length)
    table = pd.DataFrame({**of, "position": range(length), "length": length})
    found = signals.of_answer(of, None, 0.5)
    for name, ratio in late_early(table).items():
        assert found[f"{name}_late_early"] == pytest.approx(ratio)


def test_what_is_missing_is_nan() -> None:
    short = signals.of_answer(columns(2), None, 0.5)
    assert math.isnan(short["mass_early"]) and math.isnan(short["risk"])
    assert short["length"] == 2 and short["logprob"] > 0
    empty = signals.of_answer({name: [] for name in signals.TOKENS}, [], 0.5)
    assert math.isnan(empty["logprob"]) and empty["risk"] == empty["warned"] == 0
    zero = signals.of_answer(dict.fromkeys(signals.TOKENS, [0.0] * 6), [0.5], 0.5)
    assert math.isnan(zero["mass_late_early"]) and zero["warned"] == 1


def test_light_and_noise_of_a_picture() -> None:
    grey = Image.new("RGB", (200, 100), (51, 51, 51))
    flat = signals.of_pictures([grey])
    assert flat["brightness"] == pytest.approx(0.2) and flat["noise"] == 0
    assert flat["contrast"] == pytest.approx(0, abs=1e-12)
    assert (flat["width"], flat["height"]) == (200, 100)
    assert math.isnan(flat["upright"])
    halves = Image.new("RGB", (64, 64), (255, 0, 0))
    halves.paste((0, 0, 51), (0, 0, 32, 64))
    assert signals.of_pictures([halves])["upright"] == 1
    assert signals.of_pictures([halves.rotate(90)])["upright"] == 0
    slope = np.tile(np.arange(100, dtype=np.uint8), (100, 1))
    assert signals.of_pictures([Image.fromarray(slope)])["noise"] == 0
    rng = np.random.default_rng(0)
    noisy = Image.fromarray((128 + rng.normal(0, 12.75, (300, 300))).clip(0, 255).astype(np.uint8))
    assert signals.of_pictures([noisy])["noise"] == pytest.approx(0.05, rel=0.1)
    assert math.isnan(signals.of_pictures([Image.new("L", (2, 9))])["noise"])
    assert all(map(math.isnan, signals.of_pictures([]).values()))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_has_numbers(mode: str) -> None:
    picture = Image.new(mode, (40, 30))
    assert set(signals.of_pictures([picture])) == set(signals.OF_PICTURE)
    assert signals.name_of([picture], b"key")


def test_a_name_tells_equal_pictures_only_to_who_has_the_key() -> None:
    one, same, other = (Image.new("RGB", (9, 9), colour) for colour in ("red", "red", "blue"))
    assert signals.name_of([one], b"a") == signals.name_of([same], b"a")
    assert signals.name_of([one], b"a") != signals.name_of([other], b"a")
    assert signals.name_of([one], b"a") != signals.name_of([one], b"b")
    assert signals.name_of([], b"a") == ""
