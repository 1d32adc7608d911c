"""The sizes of a model and of its prompt from which memory is worked out: no weights are read.

All of them are taken from the structure (`adapt/models/roles.py`) and from what the processor made
of the picture, none from names, so that a new family needs nothing here.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache

from adapt.models.roles import ROLES, Role, blocks, linear_layers, role_of_parameters

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """A stack of equal transformer blocks; widths are in numbers for each token.

    `inputs`, `outputs`: of all linear layers of all blocks, added up; `inner`: the widest of them,
    inside the feed-forward part; `norms`: the widths of all norms, those of heads counted for every
    head; `repeated`: keys and values of heads that share them, without the first of each.
    """

    blocks: int
    width: int
    inner: int
    inputs: int
    outputs: int
    norms: int
    repeated: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """What memory depends on, beside the settings.

    `parameters`: of each role, tied weights once; `factored`: rows and columns of each role's
    matrices, and its vectors; `largest`: of each role's largest tensor; `head`: of the output
    layer; `block`: of the largest block, `outside`: of what lies outside of all blocks, tied
    weights once; `linears`: of the linear layers to which LoRA may be added, (inputs, outputs).
    `windows`: of each decoder layer, None where it sees everything. `prompt`, `image_tokens`: in
    tokens, of one question about the picture. `patches`: that the tower takes of it; `pixels`:
    numbers in the processor's tensors. `keeps_states`: whether the tower hands on the states of
    all of its blocks.
    """

    parameters: Mapping[Role, int]
    factored: Mapping[Role, int]
    largest: Mapping[Role, int]
    decoder: Stack
    tower: Stack
    projector: int
    heads: int
    key_value_heads: int
    head_size: int
    windows: Sequence[int | None]
    vocabulary: int
    head: int
    block: int
    outside: int
    linears: Mapping[str, tuple[int, int]]
    prompt: int
    image_tokens: int
    patches: int
    pixels: int
    keeps_states: bool


def sizes_of(model: Any, inputs: Mapping[str, Tensor], image_tokens: int) -> Sizes:
    """Sizes of a model, whose modules may lie on the meta device, and of one prompt.

    Raises InputError where no vision tower can be found in the model.
    """
    text, roles = model.config.get_text_config(decoder=True), role_of_parameters(model)
    weights = dict(model.named_parameters())  # tied ones once
    by_role = {r: [w for n, w in weights.items() if roles[n] == r] for r in ROLES}
    counts = {role: sum(w.numel() for w in several) for role, several in by_role.items()}
    heads, head = text.num_attention_heads, model.get_output_embeddings().weight
    few = getattr(text, "num_key_value_heads", None) or heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    decoder = _stack(model, "decoder", roles)
    linears = {n: model.get_submodule(n) for role in ROLES for n in linear_layers(model, role)}
    inside = [_count(model.get_submodule(name)) for name in blocks(model)] or [0]
    cache = DynamicCache(config=model.config)
    return Sizes(
        parameters=counts,
        factored={role: sum(map(_factored, several)) for role, several in by_role.items()},
        largest={r: max([w.numel() for w in several] or [0]) for r, several in by_role.items()},
        decoder=dataclasses.replace(
            decoder, repeated=2 * (heads - few) * head_size * decoder.blocks
        ),
        tower=_stack(model, "tower", roles),
        projector=_linear(model.get_submodule(n) for n in linear_layers(model, "projector")),
        heads=heads,
        key_value_heads=few,
        head_size=head_size,
        windows=[getattr(layer, "sliding_window", None) for layer in cache.layers],
        vocabulary=head.shape[0],
        head=head.numel(),
        block=max(inside),
        outside=sum(counts.values()) - sum(inside),
        linears={n: (m.in_features, m.out_features) for n, m in linears.items()},
        prompt=inputs["input_ids"].shape[1],
        image_tokens=image_tokens,
        patches=_patches(model, inputs),
        pixels=sum(v.numel() for v in inputs.values() if v.is_floating_point()),
        keeps_states=hasattr(model.config, "vision_feature_layer"),
    )


def _stack(model: Any, role: Role, roles: Mapping[str, Role]) -> Stack:
    layers = {name: model.get_submodule(name) for name in linear_layers(model, role)}
    # Blocks are numbered; a linear layer outside of them (a pooling head) is no block.
    blocks = {found[0] for name in layers if (found := re.match(r".+?\.\d+\.", name))}
    vectors = [
        name.rpartition(".")[0]
        for name, weight in model.named_parameters()
        if name.endswith(".weight") and weight.dim() == 1 and roles[name] == role
    ]
    return Stack(
        blocks=max(len(blocks), 1),
        width=next(iter(layers.values())).in_features,
        inner=max(max(m.in_features, m.out_features) for m in layers.values()),
        inputs=sum(m.in_features for m in layers.values()),
        outputs=sum(m.out_features for m in layers.values()),
        norms=sum(_norm_width(name, model, layers) for name in vectors),
        repeated=0,
    )


def _norm_width(name: str, model: Any, layers: Mapping[str, Any]) -> int:
    """Numbers that a norm works on for each token.

    A norm of heads (`q_norm`) is as wide as the layer before it whose heads it works on.
    """
    width = model.get_submodule(name).weight.numel()
    above, _, own = name.rpartition(".")
    before = layers.get(f"{above}.{own.partition('_')[0]}_proj")
    return width if before is None else max(width, before.out_features)


def _factored(weight: Tensor) -> int:
    """One number for each row and each column; of a vector all."""
    if weight.dim() < 2:
        return weight.numel()
    return weight[..., 0].numel() + weight[..., 0, :].numel()


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _linear(layers: Iterable[Any]) -> int:
    return sum(layer.in_features + layer.out_features for layer in layers)


def _patches(model: Any, inputs: Mapping[str, Tensor]) -> int:
    """How many patches the tower's first convolution cuts the pictures into.

    Processors that cut pictures themselves (Qwen-VL) give a row of numbers for each patch.
    """
    pixels, roles = inputs["pixel_values"], role_of_parameters(model)
    if pixels.dim() == 2:
        return pixels.shape[0]
    kernels = (
        module.weight[0].numel()
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS) and roles[f"{name}.weight"] == "tower"
    )
    return pixels.numel() // next(kernels, pixels.shape[-1])
