"""Anchor, signals and steering: formulas by hand, and steering off exactly when it should be."""

import math

import pytest
import torch
from pydantic import ValidationError

from adapt.attention import anchor, signals
from adapt.attention.layout import Layout, View
from adapt.attention.settings import SIGNALS, AnchorConfig
from adapt.attention.trace import Attention
from adapt.generation import steer
from adapt.generation.answer import Decoding, answer
from adapt.generation.settings import SteerConfig
from adapt.params import InputError, load
from tests.support import tiny_world

IMAGES = [[tiny_world.picture(0)], [tiny_world.picture(1)]]

ON = SteerConfig(alpha=0.5, tau=0.8, trigger="mass", anchor_share=0.5, layers="all")


def answers(**options):
    decoding = Decoding(anchor_tokens=3, max_new_tokens=12, **options)
    model, processor = tiny_world.model(), tiny_world.processor()
    return answer(model, processor, IMAGES, tiny_world.QUESTIONS, decoding)


def of_maps(maps_BTLN, anchor_BN, anchor_tokens, mask_BT=None):
    """The signals of whole maps, through what is kept of them."""
    B, T, _, N = maps_BTLN.shape
    mask_BT = torch.ones(B, T, dtype=torch.bool) if mask_BT is None else mask_BT
    kept = Attention(
        first_BKLN=maps_BTLN[:, :anchor_tokens],
        heat_BTN=maps_BTLN.mean(2),
        mass_BTL=maps_BTLN.sum(-1),
        entropy_BTL=signals.entropy(signals.normalised(maps_BTLN)),
        amc_BTL=signals.amc(maps_BTLN, anchor_BN[:, None, None]),
        prelim_BTL=torch.zeros(maps_BTLN.shape[:3]),
        fired_BTL=torch.zeros(maps_BTLN.shape[:3], dtype=torch.bool),
        anchor_BN=anchor_BN,
    )
    return kept.signals(torch.full((B,), N), mask_BT, anchor_tokens)


def test_signals_by_hand():
    # one answer, two tokens, one layer, two image tokens
    maps = torch.tensor([[[[0.3, 0.1]], [[0.1, 0.1]]]])
    w = torch.tensor([[1.0, 0.0]])
    found = {name: values[0].tolist() for name, values in of_maps(maps, w, 1).items()}
    assert list(found) == list(SIGNALS)
    assert found["mass"] == [pytest.approx(0.4), pytest.approx(0.2)]
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["focus"] == [pytest.approx(1 - h / math.log(2)), pytest.approx(0, abs=1e-6)]
    # S_AMC: 0.09 / 0.16 = 0.5625, then 0.01 / 0.04 = 0.25
    assert signals.amc(maps[:, :, 0], w).tolist()[0] == [pytest.approx(0.5625), pytest.approx(0.25)]
    assert found["amc"] == [pytest.approx(1), pytest.approx(0.25 / 0.5625)]
    assert found["responsiveness"] == [pytest.approx(0.25), pytest.approx(0.25)]
    # JS((.5, .5), (1, 0)): m = (.75, .25)
    assert found["drift"][1] == pytest.approx(h - math.log(2) / 2, abs=1e-5)


def test_what_stands_behind_an_answer_is_not_in_its_signals():
    """One token, then two of padding; K 2: only the first is compared with, and nothing changed."""
    maps, w = torch.rand(1, 3, 2, 4), torch.full((1, 4), 0.25)
    mask = torch.tensor([[True, False, False]])
    found = of_maps(maps, w, 2, mask)
    alone = of_maps(maps[:, :1], w, 2, mask[:, :1])
    for name, values in found.items():
        torch.testing.assert_close(values[:, :1], alone[name])
    assert found["amc"][0, 0] == 1 and found["responsiveness"][0, 0] == 0


def test_each_answer_is_focused_by_its_own_number_of_image_tokens():
    """Uniform attention over two of four columns; the others are padding."""
    entropy_BTL = torch.tensor([[[math.log(2)]], [[math.log(2)]]])
    assert signals.focus(entropy_BTL, torch.tensor([2, 4])).tolist() == [[0.0], [0.5]]


def test_signals_survive_one_image_token_and_no_attention():
    for maps in (torch.full((1, 3, 2, 1), 0.2), torch.zeros(1, 3, 2, 4)):
        w = torch.ones(1, maps.shape[-1])
        assert all(torch.isfinite(v).all() for v in of_maps(maps, w, 2).values())
    assert of_maps(torch.full((1, 3, 2, 1), 0.2), torch.ones(1, 1), 2)["focus"].eq(1).all()


def test_spectral_score_prefers_detail_in_the_first_layer_and_smoothness_in_the_last():
    board = (torch.arange(16).view(4, 4) + torch.arange(4)[:, None]) % 2 * 1.0
    smooth = torch.ones(4, 4)
    maps = torch.stack([m.flatten() for m in (board, smooth)])[None]
    swapped = maps.flip(1)
    right, wrong = anchor.spectral_score(maps, (4, 4))[0], anchor.spectral_score(swapped, (4, 4))[0]
    # a checkerboard has half of its power at the highest frequency: 1 - |0.5 - 0.8|; a constant
    # none: 1 - |0 - 0.2|
    assert right.tolist() == [pytest.approx(0.7, abs=1e-5), pytest.approx(0.8, abs=1e-5)]
    assert (right > wrong).all()


def test_layer_weights_sum_to_one_and_follow_the_focused_layer():
    maps = torch.full((1, 2, 16), 1.0)
    maps[0, 1, 5] = 100.0
    weights = anchor.layer_weights(maps, (4, 4))
    assert weights.sum().item() == pytest.approx(1)
    # the scores of two layers are 0 and 1 after min-max: softmax(0, 10)
    assert weights.max().item() == pytest.approx(1 / (1 + math.exp(-10)), abs=1e-6)


def test_debias_damps_sinks_only():
    noise = torch.tensor([[[6.0, 1.0, 1.0]]])  # shares 0.75, 0.125, 0.125; uniform is 1/3
    assert anchor.debias_mask(noise).tolist() == [pytest.approx(1 / 2.25), 1.0, 1.0]
    w = anchor.visual_anchor(torch.tensor([[[0.6, 0.1, 0.1]]]), (1, 3), anchor.debias_mask(noise))
    assert w.sum().item() == pytest.approx(1)
    assert w[0, 0].item() == pytest.approx((0.6 / 2.25) / (0.6 / 2.25 + 0.2))


def test_steering_is_exactly_off_with_alpha_or_tau_zero():
    plain = answers()
    for off in (
        SteerConfig(alpha=0.0, tau=0.9, trigger="amc", anchor_share=1.0, layers="all"),
        SteerConfig(alpha=0.5, tau=0.0, trigger="amc", anchor_share=1.0, layers="all"),
    ):
        steered = answers(steer=off)
        assert torch.equal(steered.tokens_BT, plain.tokens_BT)
        assert torch.equal(steered.heat_BTN, plain.heat_BTN)
        assert not steered.fired_BTL.any()


def test_steering_fires_after_the_anchor_and_moves_attention_towards_it():
    always = SteerConfig(alpha=1.0, tau=100.0, trigger="amc", anchor_share=1.0, layers="all")
    plain, steered = answers(), answers(steer=always)
    assert not steered.fired_BTL[:, :3].any()
    assert steered.fired_BTL[:, 3:].all(), "a threshold far above the early level always fires"
    assert torch.equal(steered.tokens_BT[:, :3], plain.tokens_BT[:, :3])
    w = anchor.visual_anchor(plain.first_BKLN.mean(1), (4, 4), torch.ones(16))
    torch.testing.assert_close(plain.anchor_BN, w)
    assert (steered.amc_BTL[:, 3, 0] > plain.amc_BTL[:, 3, 0]).all(), (
        "the first layer sees the same input in both runs"
    )


def tiled() -> Layout:
    """Sample 0: two tiles and a separator between them; sample 1: one other grid, and padding."""
    columns = torch.tensor([[2, 3, 4, 5, 6, 7, 8, 9, 10], [1, 2, 3, 4, 5, 6, -1, -1, -1]])
    views = (
        View(0, 0, "tile", (2, 2), (2, 3, 4, 5)),
        View(0, 0, "tile", (2, 2), (7, 8, 9, 10)),
        View(1, 0, "whole", (2, 3), (1, 2, 3, 4, 5, 6)),
    )
    return Layout(columns, views)


def test_anchors_of_different_grids_and_tiles_equal_those_of_each_view():
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 9)
    maps[1, :, 6:] = 0  # padding
    masks = {(2, 2): torch.tensor([1.0, 0.5, 1.0, 1.0]), (2, 3): torch.ones(6)}
    found = anchor.anchors(maps, anchor.by_grid(tiled()), masks)
    tiles = [
        anchor.visual_anchor(maps[:1, :, part], (2, 2), masks[2, 2])[0]
        for part in (slice(0, 4), slice(5, 9))
    ]
    mass = [maps[0, :, part].mean(0).sum() for part in (slice(0, 4), slice(5, 9))]
    share = mass[0] / (mass[0] + mass[1])
    want = torch.cat([tiles[0] * share, torch.zeros(1), tiles[1] * (1 - share)])
    torch.testing.assert_close(found[0], want)
    torch.testing.assert_close(
        found[1, :6], anchor.visual_anchor(maps[1:, :, :6], (2, 3), torch.ones(6))[0]
    )
    assert found[1, 6:].eq(0).all() and found[0, 4] == 0
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    repeated = anchor.anchors(
        maps.repeat_interleave(2, 0), anchor.by_grid(tiled(), samples=2), masks
    )
    torch.testing.assert_close(repeated, found.repeat_interleave(2, 0))


def test_bias_is_zero_outside_the_views_and_by_hand_inside():
    patches, w = anchor.by_grid(tiled()), torch.zeros(2, 9)
    w[0, 0], w[1, 1] = 1.0, 1.0
    inside = anchor.inside(patches, w.shape)
    assert inside.tolist() == [[True] * 4 + [False] + [True] * 4, [True] * 6 + [False] * 3]
    b = steer.bias(w, inside, alpha=0.5, anchor_share=1.0)
    # eight tokens inside: w of mean 1 is 8 at the first one
    assert b[0, 0].item() == pytest.approx(0.5 * math.log(8.001)) and b[0, 4] == 0
    assert b[1, 1].item() == pytest.approx(0.5 * math.log(6.001)) and b[
        1, 0
    ].item() == pytest.approx(0.5 * math.log(0.001))


def test_one_image_token_and_no_attention_have_an_anchor():
    one = anchor.visual_anchor(torch.full((2, 3, 1), 0.2), (1, 1), torch.ones(1))
    assert one.tolist() == [[1.0], [1.0]]
    assert anchor.visual_anchor(torch.zeros(1, 2, 4), (2, 2), torch.ones(4)).isfinite().all()
    nothing, w = torch.zeros(1, 4), torch.full((1, 4), 0.25)
    assert not steer.fires(nothing, w, torch.ones(1), "amc").any(), "no image in the window"


def test_anchors_have_no_host_synchronisation_in_the_loop():
    with torch.device("meta"):  # a value that is read on the host does not exist here
        maps = torch.empty(2, 3, 16)
        found = anchor.visual_anchor(maps, (4, 4), torch.empty(16))
        floor = steer.floor(torch.empty(2, 5, 3, 16), found, ON)
        fired = steer.fires(maps[:, 0], found, floor[:, 0], "mass")
        bias = steer.bias(found, torch.empty(2, 16, dtype=torch.bool), 0.5, 0.5)
    assert all(value.is_meta for value in (found, floor, fired, bias))
    assert fired.shape == (2,) and bias.shape == (2, 16)


def test_anchor_config_names_the_key():
    section = {"anchor_tokens": 0, "noise_images": 4}
    with pytest.raises(InputError, match=r"anchor\.anchor_tokens: must be at least 1, got 0"):
        load({"anchor": section}, "anchor", AnchorConfig)
    with pytest.raises(ValidationError):
        AnchorConfig(**section)


def test_mass_rule_by_hand():
    """Two anchor tokens of mass 0.5 and 0.3; tau 0.5: below 0.2 it fires, and in layer 0 only."""
    maps = torch.tensor([[[[0.25, 0.25], [0.25, 0.25]], [[0.15, 0.15], [0.15, 0.15]]]])
    w = torch.tensor([[0.5, 0.5]])
    rule = SteerConfig(alpha=1.0, tau=0.5, trigger="mass", anchor_share=0.0, layers=(0,))
    floor = steer.floor(maps, w, rule)
    assert floor.tolist() == [[pytest.approx(0.2), -1.0]]
    low, high = torch.tensor([[0.1, 0.09]]), torch.tensor([[0.11, 0.1]])
    assert [bool(steer.fires(a, w, floor[:, 0], "mass")) for a in (low, high)] == [True, False]
    assert not steer.fires(low, w, floor[:, 1], "mass")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"trigger": "focus"}, "steer.trigger: must be 'mass' or 'amc', got 'focus'"),
        ({"anchor_share": 2.0}, "steer.anchor_share: must be at most 1, got 2.0"),
        ({"layers": [-1]}, "steer.layers: expected all, or layers counted from 0 such as"),
        ({"alpha": -1.0}, "steer.alpha: must be at least 0, got -1.0"),
    ],
)
def test_steer_config_names_the_key(wrong, message):
    right = {"alpha": 0.5, "tau": 0.9, "trigger": "mass", "anchor_share": 0.1, "layers": "all"}
    assert load({"steer": right}, "steer", SteerConfig).layers == "all"
    with pytest.raises(InputError, match=message):
        load({"steer": right | wrong}, "steer", SteerConfig)
    with pytest.raises(ValidationError):
        SteerConfig(**right | wrong)


def test_a_layer_that_the_model_lacks_is_refused():
    steered = SteerConfig(alpha=0.5, tau=0.9, trigger="mass", anchor_share=0.1, layers=(0, 7))
    with pytest.raises(ValueError, match=r"steer.layers: the model has layers 0 to 2, got \[7\]"):
        answers(steer=steered)
