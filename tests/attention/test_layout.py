"""Layouts by hand, dealing of images to samples, and errors that say why."""

import numpy as np
import pytest
import torch
import transformers
from torch import tensor

from adapt.attention.grids import FAMILIES, Part, images_of
from adapt.attention.layout import View, image_columns, layout_by, layout_of, unsupported
from adapt.attention.places import places_of
from adapt.params import InputError
from tests.support import builders, tiny_world
from tests.support.families import CASES, built, inputs, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_a_batch_by_hand():
    ids = tensor([[1, 2, 9, 9, 9, 9, 3], [0, 1, 2, 9, 9, 9, 9]])
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "patch_size": 8}, image_token_index=9
    )
    model = type(
        "Model", (), {"config": config, "get_decoder": lambda self: transformers.LlamaModel}
    )()
    layout = layout_of(model, {"input_ids": ids, "pixel_values": torch.zeros(2, 3, 16, 16)})
    assert layout.columns_BN.tolist() == [[2, 3, 4, 5], [3, 4, 5, 6]]
    assert layout.views == (
        View(0, 0, "whole", (2, 2), (2, 3, 4, 5), (0, 1, 2, 3)),
        View(1, 0, "whole", (2, 2), (3, 4, 5, 6), (0, 1, 2, 3)),
    )
    assert layout.of(1) == layout.views[1:] and layout.counts_B.tolist() == [4, 4]
    assert {view.grid for view in layout.views} == {(2, 2)}


def test_separators_belong_to_no_view():
    batch = inputs("llava_next", [[picture((32, 16))]])
    layout = layout_of(built("llava_next")[0], batch)
    coarse, fine = layout.views
    columns = layout.columns_BN[0].tolist()
    assert coarse.columns == tuple(columns[:16])
    assert coarse.slots == tuple(range(16))
    assert [columns[slot] for slot in fine.slots] == list(fine.columns)
    separators = sorted(set(columns) - set(coarse.columns) - set(fine.columns))
    assert separators == [columns[16 + 9 * row + 8] for row in range(4)], (
        "4 rows of 8 patches and a separator"
    )


@pytest.mark.parametrize("name", list(CASES))
def test_very_thin_pictures_have_views_with_patches_and_places(name):
    model, processor = built(name)
    for size in ((1, 50), (64, 4), (1, 1)):
        layout = layout_of(model, inputs(name, [[picture(size)]]))
        assert all(v.columns for v in layout.views), "LLaVA-NeXT cuts the fine grid of 64 x 4 away"
        (places,) = places_of(model.config, processor, [size])
        assert [p.grid for p in places] == [v.grid for v in layout.views]


def test_images_of_a_sample_are_counted():
    batch = inputs("qwen2_vl", [[picture((48, 32)), picture((24, 16))], [picture((16, 16))]])
    views = layout_of(built("qwen2_vl")[0], batch).views
    assert [(v.sample, v.image, v.grid) for v in views] == [
        (0, 0, (4, 6)),
        (0, 1, (2, 3)),
        (1, 0, (2, 2)),
    ]
    assert [len(v.columns) for v in views] == [24, 6, 4]
    layout = layout_of(built("qwen2_vl")[0], batch)
    assert layout.counts_B.tolist() == [30, 4] and layout.of(0) == views[:2]
    assert views[1].slots == tuple(range(24, 30)), "counted over the pictures of the sample"


@pytest.mark.parametrize("name", ["idefics3", "smolvlm", "internvl"])
def test_an_untiled_picture_beside_a_tiled_one(name):
    processor = built(name)[1]
    option = {"crop_to_patches": False} if name == "internvl" else {"do_image_splitting": False}
    for options, kinds in (({}, ["tile", "tile", "whole"] * 2), (option, ["whole"] * 2)):
        text = processor.image_token * 2 + "is there a red car?"
        batch = processor(
            images=[[picture((64, 32))] * 2], text=[text], return_tensors="pt", **options
        )
        views = layout_of(built(name)[0], batch).views
        assert [v.kind for v in views] == kinds
        assert [v.image for v in views] == [i for i in (0, 1) for _ in range(len(kinds) // 2)]


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if len(set(case.views.values())) > 1]
)
def test_the_rule_and_the_processor_agree_on_pictures_of_any_size(name):
    sizes = np.random.default_rng(0).integers(9, 90, (12, 2))
    for width, height in sizes.tolist():
        batch = inputs(name, [[picture((width, height))]])
        columns = layout_of(built(name)[0], batch).columns_BN  # an InputError where they do not
        assert columns.shape[1] == int(
            (batch["input_ids"] == built(name)[0].config.image_token_id).sum()
        )


def test_crops_of_pan_and_scan_are_pictures_of_their_own():
    model, processor = built("gemma3")
    crops = {
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 16,
        "pan_and_scan_max_num_crops": 2,
    }
    batch = processor(
        images=[[picture((64, 32))]],
        text=["<start_of_image>"],
        return_tensors="pt",
        pan_and_scan_min_ratio_to_activate=1.2,
        **crops,
    )
    assert [(v.image, v.kind, v.grid) for v in layout_of(model, batch).views] == [
        (i, "whole", (4, 4)) for i in range(3)
    ]


def test_tokens_that_the_rule_does_not_expect_are_an_error():
    model = tiny_world.model()
    ids = torch.tensor([[model.config.image_token_id] * 15])
    with pytest.raises(
        InputError, match="sample 0 of the batch: 15 image tokens do not form the 4 x 4 grid"
    ):
        layout_of(model, {"input_ids": ids, "pixel_values": torch.zeros(1, 3, 32, 32)})
    with pytest.raises(
        InputError, match="sample 1 of the batch: 16 image tokens do not form the grids"
    ):
        pair = torch.tensor([[model.config.image_token_id] * 16] * 2)
        layout_of(model, {"input_ids": pair, "pixel_values": torch.zeros(1, 3, 32, 32)})
    with pytest.raises(InputError, match="the batch has 2 images, but image tokens for 1 only"):
        alone = torch.tensor([[model.config.image_token_id] * 16])
        layout_by(model.config, {"input_ids": alone, "pixel_values": torch.zeros(2, 3, 32, 32)})


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match="sample 1 of the batch has no image tokens"):
        image_columns(torch.tensor([[9, 1], [1, 1]]), 9)
    with pytest.raises(
        InputError, match=r"LLaVA-1\.5, Pixtral: the batch has no 'pixel_values' from the processor"
    ):
        images_of(tiny_world.model().config, {})


def test_reasons_of_refusal():
    reasons = dict(
        zip(
            ("mllama", "blip-2", "instructblip", "idefics2", "aya_vision"),
            builders.refused(),
            strict=True,
        )
    )
    for kind, words in {
        "mllama": "cross-attention layers",
        "blip-2": "Q-Former",
        "instructblip": "Q-Former",
        "idefics2": "resampler",
        "aya_vision": "its patch grid is not known; known: llava, ",
    }.items():
        assert f"model type {kind}" in unsupported(reasons[kind])
        assert words in unsupported(reasons[kind])
        with pytest.raises(InputError, match=f"model type {kind}"):
            layout_of(reasons[kind], {"input_ids": torch.zeros(1, 1)})
    assert all(unsupported(built(name)[0]) is None for name in FAMILIES)


def test_a_decoder_without_the_attention_interface_is_refused(monkeypatch):
    model = tiny_world.model()
    monkeypatch.setattr(model.get_decoder(), "_supports_attention_backend", False)
    assert "does not call transformers' attention interface" in unsupported(model)


def test_parts():
    part = Part("whole", (2, 2), row_end=1, after=3)
    assert (part.length(), part.patches()) == (9, [0, 1, 3, 4])
