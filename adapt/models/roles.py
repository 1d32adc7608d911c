"""Vision tower, projector and decoder of a model, found from its structure and not by names.

1. The decoder is what transformers says it is, with the embeddings of its words on either side.
2. The tower is, of the modules outside the decoder, the one that holds the longest list of blocks.
3. What is left is the projector. Where nothing that computes is left, it lies inside the tower
   (Qwen-VL, GLM-V): the parts beside the blocks that map to the decoder's width.
"""

from collections.abc import Iterator
from typing import Any, Literal

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from adapt.attention.capture import decoder_of
from adapt.params import InputError

Role = Literal["tower", "projector", "decoder"]
ROLES: tuple[Role, ...] = ("tower", "projector", "decoder")
CHANNELS = 3  # of a picture


def role_of_parameters(model: Any) -> dict[str, Role]:
    """The role of every parameter by its name, tied weights under each of their names.

    A parameter belongs to the role of the module that holds it. Raises InputError for a model in
    which no vision tower can be found.
    """
    roles = _module_roles(model)
    return {
        f"{name}.{key}" if name else key: roles[module]
        for name, module in model.named_modules(remove_duplicate=False)
        for key, _ in module.named_parameters(recurse=False, remove_duplicate=False)
    }


def linear_layers(model: Any, role: Role) -> list[str]:
    """Names of the linear layers of a role, to which LoRA can be added; the output layer excepted.

    The output layer of torch's own multi-head attention is left out: its weight is read, its
    forward method is not called, so that an adapter around it would do nothing.
    """
    roles, head = _module_roles(model), model.get_output_embeddings()
    mute = {m.out_proj for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and roles[module] == role
        and module is not head
        and module not in mute
    ]


def blocks(model: nn.Module) -> list[str]:
    """Names of the blocks of tower and decoder, by transformers' own mark of one; those within
    another block left out.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        is_inside = bool(found) and name.startswith(f"{found[-1]}.")
        if isinstance(module, GradientCheckpointingLayer) and not is_inside:
            found.append(name)
    return found


def _module_roles(model: Any) -> dict[nn.Module, Role]:
    """The role of every module; a module that holds several roles counts as projector."""
    # 1. The decoder; the layer that makes logits of its states need not lie within it.
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    whole = [decoder_of(model), embeddings, head]
    decoder = {module for part in whole if part is not None for module in part.modules()}
    # 2. The tower: up from its blocks as far as no module of the decoder is met.
    path = _path_to_blocks(model, decoder)
    tower = set(path[0].modules())
    # 3. What is left; where that is no layer, the projector is a part of the tower.
    left = {module for module in model.modules() if module not in tower | decoder}
    if not any(p.dim() > 1 for module in left for p in module.parameters(recurse=False)):
        width = embeddings.weight.shape[-1]
        tower -= {inner for part in _mergers(path, width) for inner in part.modules()}
    return {
        module: "decoder" if module in decoder else "tower" if module in tower else "projector"
        for module in model.modules()
    }


def _path_to_blocks(model: nn.Module, decoder: set[nn.Module]) -> list[nn.Module]:
    """From the tower down to its list of blocks; each module is a child of the one before."""
    paths = [path for path in _paths(model, decoder) if _is_blocks(path[-1])]
    if not paths:
        raise InputError(
            f"{type(model).__name__}: no vision tower (a list of blocks) outside the decoder"
        )
    path = max(paths, key=lambda path: (len(path[-1]), _size(path[-1])))
    first = next(i for i, module in enumerate(path) if decoder.isdisjoint(module.modules()))
    return path[first:]


def _paths(
    module: nn.Module, without: set[nn.Module], above: tuple[nn.Module, ...] = ()
) -> Iterator[list[nn.Module]]:
    """Every module below this one, as the chain of modules that leads to it."""
    path = (*above, module)
    yield list(path)
    if _is_blocks(module):  # lists within a block (of experts, of stages) are no tower's
        return
    for child in module.children():
        if child not in without:
            yield from _paths(child, without, path)


def _is_blocks(module: nn.Module) -> bool:
    kinds = {type(block) for block in module.children()}
    return isinstance(module, nn.ModuleList) and len(kinds) == 1


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _mergers(path: list[nn.Module], width: int) -> list[nn.Module]:
    """Parts beside the path with a layer that maps to the decoder's width.

    A part with attention of its own pools the tower's patches, and one that reads the three
    channels of a picture makes them: neither is a projector.
    """
    beside = [child for above in path[:-1] for child in above.children() if child not in path]
    return [part for part in beside if _maps_to(part, width) and not _is_towers(part)]


def _maps_to(part: nn.Module, width: int) -> bool:
    layers = [m for m in part.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    sizes = [m.out_features if isinstance(m, nn.Linear) else m.out_channels for m in layers]
    return width in sizes


def _is_towers(part: nn.Module) -> bool:
    convolutions = [m for m in part.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    pools = any(isinstance(m, nn.MultiheadAttention) for m in part.modules())
    return pools or any(m.in_channels == CHANNELS for m in convolutions)
