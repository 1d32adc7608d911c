"""The key of a model's content."""

import torch

from adapt.models.identity import content_key
from tests.support import tiny_world


def test_content_key_reads_weights_inputs_and_settings():
    model, inputs = tiny_world.model(), {"x": torch.arange(6).view(2, 3), "none": torch.zeros(0)}
    keys = {
        content_key(model, inputs, 1),
        content_key(model, inputs, 2),
        content_key(model.to(torch.bfloat16), inputs, 1),
    }
    keys.add(content_key(tiny_world.model(), {**inputs, "x": inputs["x"].flip(0)}, 1))
    assert len(keys) == 4 and content_key(tiny_world.model(), inputs, 1) in keys
