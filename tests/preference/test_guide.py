"""Guided pictures: bytes by hand, white and power kept, and the same tokens for every family."""

import numpy as np
import pytest
from PIL import Image

from adapt.attention.layout import layout_of
from adapt.preference.guide import NOISE_SIDE, enhanced, noise_injected
from tests.support.families import CASES, built, inputs, mixed, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
THIN = [(1, 50), (64, 4)]


def grey(size, value=127):
    return Image.new("RGB", size, (value,) * 3)


def test_a_picture_fades_to_white_by_hand():
    support = np.zeros((32, 32), np.uint8)
    support[:16] = 255
    support[:, 16:] = support[:, 16:] // 5  # 51: a fifth is kept
    v = np.asarray(enhanced(Image.new("RGB", (32, 32), (100, 0, 255)), support))
    assert v[0, 0].tolist() == [100, 0, 255], "kept"
    assert v[0, 31].tolist() == [224, 204, 255], "255 - 155 / 5, 255 - 255 / 5"
    assert v[31, 0].tolist() == v[31, 31].tolist() == [255] * 3, "white"


def test_the_support_is_resized_bilinearly_and_the_picture_is_not():
    support = np.zeros((32, 32), np.uint8)
    support[:, 16:] = 255
    for size in ((64, 48), (7, 5), (32, 1)):
        v = enhanced(grey(size, 0), support)
        assert v.size == size and v.mode == "RGB"
        row = np.asarray(v)[0, :, 0].astype(int)
        assert (np.diff(row) <= 0).all() and row[0] >= 250 and row[-1] <= 5
    # Of 64 pixels, the two at the edge lie a quarter of a line into its slope.
    edge = np.asarray(enhanced(grey((64, 48), 0), support))[0, 30:34, 0]
    assert edge.tolist() == [255, 191, 64, 0]


def test_white_stays_white_and_full_support_changes_nothing():
    support = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    assert (np.asarray(enhanced(grey((31, 17), 255), support)) == 255).all()
    one = picture((31, 17))
    assert np.array_equal(enhanced(one, np.full((32, 32), 255, np.uint8)), one)


def test_noise_has_its_share_of_the_power():
    for share in (0.0, 0.02, 0.05):
        noisy = np.asarray(noise_injected(grey((200, 150)), share, "a")) / 127.5 - 1
        assert noisy.var() == pytest.approx(share, rel=0.02, abs=1e-9)
        assert noisy.mean() == pytest.approx(-((1 - share) ** 0.5) / 255, abs=0.002)
    white = np.asarray(noise_injected(grey((200, 150), 255), 0.36, "a")) / 127.5 - 1
    # 0.8 + 0.6 n is clipped at 1: P(n > 1/3) = 0.369.
    assert (white == 1).mean() == pytest.approx(0.369, abs=0.01)


def test_noise_depends_on_the_identity_and_the_size():
    one = picture((40, 30))
    first, again, other = (noise_injected(one, 0.3, name) for name in ("a", "a", "b"))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_large_pictures_have_noise_that_shrinking_leaves():
    big = grey((4 * NOISE_SIDE, 2 * NOISE_SIDE))
    noisy = noise_injected(big, 0.05, "a")
    assert noisy.size == big.size
    blocks = np.asarray(noisy).reshape(NOISE_SIDE // 2, 4, NOISE_SIDE, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all(), "4 x 4 pixels share their noise"
    small = np.asarray(noisy.resize((NOISE_SIDE, NOISE_SIDE // 2), Image.Resampling.BOX))
    assert (small / 127.5 - 1).var() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("name", list(CASES))
def test_tokens_and_grids_are_those_of_the_plain_picture(name):
    model = built(name)[0]
    plain = mixed(name) + [[picture(size)] for size in THIN]
    support = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    guided = [
        [[enhanced(one, support) for one in row] for row in plain],
        [[noise_injected(one, 0.3, "a") for one in row] for row in plain],
    ]
    want = inputs(name, plain)
    for batch in (inputs(name, rows) for rows in guided):
        assert batch["input_ids"].equal(want["input_ids"])
        assert layout_of(model, batch).views == layout_of(model, want).views
        assert not batch["pixel_values"].equal(want["pixel_values"])
        assert all(
            batch[key].equal(value) for key, value in want.items() if key != "pixel_values"
        ), "nothing but pixels has changed"
