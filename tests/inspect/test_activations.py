"""What a block keeps for its backward pass, against the tensors that autograd keeps."""

import copy
import dataclasses

import peft
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from adapt.inspect import training
from adapt.models.roles import role_of_parameters
from adapt.preference import adapters
from adapt.preference.settings import LoraConfig
from tests.inspect.test_memory import PLAN, subject
from tests.support.families import CASES, built, inputs, picture
from tests.support.preference_rows import lora

RANK = 2
MODES = [(kind, each) for kind in ("full", "LoRA") for each in (4, 2)]


def trained(name, kind, each):
    """The model as training has it, and its plan: autocast of fp32 weights, or of a 16-bit base."""
    model = copy.deepcopy(built(name)[0])
    if kind == "full":
        roles = role_of_parameters(model)
        for part, weight in model.named_parameters():
            weight.requires_grad_(roles[part] != "tower")
        return model, model, dataclasses.replace(PLAN, each=each)
    model = model.to(torch.float32 if each == 4 else torch.bfloat16)
    tuned = peft.get_peft_model(model, adapters.lora(model, LoraConfig(**lora(RANK)), "frozen"))
    adapters.hold_in_float32(tuned)
    names = [n for n, _ in tuned.named_modules() if n.endswith("lora_A.default")]
    changes = {"adapters": 1, "adapted": 1.0, "ranks": RANK * len(names)}
    plan = dataclasses.replace(PLAN, stored=each, each=each, **changes)
    return tuned, tuned.get_base_model(), plan


def kept_by(model, core, batch, each):
    """Bytes of all distinct tensors that autograd keeps from the first block to the last norm.

    Without weights and casts of weights, which are counted apart.
    """
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    shapes = {tuple(weight.shape) for weight in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    kept, decoder, inside = {}, core.get_decoder(), []

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if inside and place not in own and tuple(tensor.shape) not in shapes:
            kept[place] = tensor  # stays alive, so that no other one gets its place
        return tensor

    decoder.layers[0].register_forward_pre_hook(lambda *_: inside.append(True))
    decoder.norm.register_forward_hook(lambda *_: inside.clear())
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=each == 2)
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        core.model(**batch, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("kind", "each"), MODES)
def test_blocks_keep_what_their_backward_pass_needs(name, kind, each):
    model, core, plan = trained(name, kind, each)
    batch = inputs(name, [[picture(next(iter(CASES[name].views)))]] * 4)
    batch["attention_mask"][0, -1] = 0  # a mask, as batches of unequal rows and shared prompts have
    stack, tokens = subject(name).sizes.decoder, batch["input_ids"].numel()
    one = training.kept_by_block(stack, plan, batch["input_ids"].shape[1])
    ratio = tokens * (stack.blocks * one + plan.ranks * each) / kept_by(model, core, batch, each)
    # Normalisers of norms and of attention are left out of the count. Families with norms of heads,
    # or with two layers in one, are a rougher fit.
    rough = name in ("qwen3_vl", "glm4v", "internvl")
    assert (0.93 if rough else 0.96) < ratio < (1.2 if rough else 1.03)
