"""The families that `adapt` can align, tiny, and what the layout of their image tokens must be.

    python -m tests.support.families     # writes docs/families.md

The vision towers have their attention switched off (its weights are zero), so that an image token
depends on the pixels of its own patch alone: `test_families.py` finds every patch by painting it.
"""

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from adapt.attention.grids import FAMILIES
from adapt.attention.layout import layout_of, unsupported
from adapt.inspect.trial import several_flaw, training_flaw
from adapt.models.prompts import prompt_inputs
from adapt.models.roles import linear_layers
from adapt.preference.prefix import cannot_share
from tests.support import builders

DOCUMENT = Path(__file__).parents[2] / "docs" / "families.md"
QUESTIONS = ("describe the picture.", "is there a red car?")
ANSWER = "a red car, a blue house and a green tree. no, there is no car in it."

Views = tuple[tuple[str, tuple[int, int]], ...]
Arrange = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Case:
    """A tiny model of a family, its processor, and what pictures of two sizes become.

    `views`: by (width, height) of a picture, kind and grid of every view in order, worked out by
    hand from the sizes. `tiles`: how the tiles of such a picture lie, (rows, columns). `alone`: the
    views of a picture that shares its prompt with another one, where that differs: such pictures
    are padded to squares first.
    """

    build: Callable[[], tuple[Any, Any]]
    views: dict[tuple[int, int], Views]
    tiles: dict[tuple[int, int], Arrange] = dataclasses.field(default_factory=dict)
    shared: Views = ()

    def sizes(self) -> list[tuple[int, int]]:
        """Three sizes of pictures that a batch may mix."""
        return [*self.views, (37, 23)]


WHOLE = ("whole", (4, 4))
TILE = ("tile", (4, 4))
SQUARES: dict[tuple[int, int], Views] = {(32, 32): (WHOLE,), (64, 48): (WHOLE,)}
TWO_TILES: dict[tuple[int, int], Views] = {
    (64, 32): (TILE, TILE, WHOLE),
    (48, 64): (TILE,) * 4 + (WHOLE,),
}
# Patches of 4 pixels, 2 x 2 of them to a token: 8 pixels of a picture, whose sides are rounded so.
QWEN_VIEWS: dict[tuple[int, int], Views] = {
    (48, 32): (("whole", (4, 6)),),
    (22, 40): (("whole", (5, 3)),),
}
# Sides are rounded up to whole tokens.
PIXTRAL_VIEWS: dict[tuple[int, int], Views] = {
    (48, 32): (("whole", (4, 6)),),
    (22, 36): (("whole", (5, 3)),),
}

CASES: dict[str, Case] = {
    "llava": Case(builders.llava, SQUARES),
    "pixtral": Case(builders.pixtral, PIXTRAL_VIEWS),  # a LLaVA by its type
    # 32 x 16 is two tiles of 4 x 4. 32 x 24 goes into 32 x 32 with a border of one patch (4 pixels)
    # above and below.
    "llava_next": Case(
        builders.llava_next,
        {(32, 16): (WHOLE, ("whole", (4, 8))), (32, 24): (WHOLE, ("whole", (6, 8)))},
    ),
    # At most two tiles: 6 x 8 patches shrink by sqrt(48 / 32), to 4 x 6.
    "llava_onevision": Case(
        builders.llava_onevision,
        {(32, 16): (WHOLE, ("whole", (4, 8))), (32, 24): (WHOLE, ("whole", (4, 6)))},
        shared=(WHOLE,),
    ),
    "qwen2_vl": Case(builders.qwen2_vl, QWEN_VIEWS),
    "qwen2_5_vl": Case(builders.qwen2_5_vl, QWEN_VIEWS),
    "qwen3_vl": Case(builders.qwen3_vl, QWEN_VIEWS),
    "glm4v": Case(builders.glm4v, QWEN_VIEWS),
    "mistral3": Case(builders.mistral3, PIXTRAL_VIEWS),
    "idefics3": Case(builders.idefics3, TWO_TILES, tiles={(64, 32): (1, 2), (48, 64): (2, 2)}),
    "smolvlm": Case(builders.smolvlm, TWO_TILES, tiles={(64, 32): (1, 2), (48, 64): (2, 2)}),
    "internvl": Case(
        builders.internvl,
        {(64, 32): (TILE, TILE, WHOLE), (16, 16): (WHOLE,)},
        tiles={(64, 32): (1, 2)},
    ),
    "gemma3": Case(builders.gemma3, SQUARES),
    "paligemma": Case(builders.paligemma, SQUARES),
}


@cache
def built(name: str) -> tuple[Any, Any]:
    """Model and processor: random but repeatable, attention far from uniform, none in the tower."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = CASES[name].build()
        for part, parameter in model.named_parameters():
            if parameter.dim() > 1:
                spread = 0.3 if "q_proj" in part or "k_proj" in part else 0.1
                torch.nn.init.normal_(parameter, std=spread)
    decoder = set(model.get_decoder().modules())
    for module in model.modules():
        if type(module).__name__.endswith("Attention") and module not in decoder:
            for parameter in module.parameters():
                parameter.data.zero_()
    # Random models would answer with special tokens.
    model.generation_config.suppress_tokens = processor.tokenizer.all_special_ids
    return model.eval(), processor


def model_type(name: str) -> str:
    """The family of a case, as a model's configuration names it; it may have several cases."""
    return str(built(name)[0].config.model_type)


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A picture of noise, (width, height)."""
    shape, rng = (size[1], size[0], 3), np.random.default_rng(seed)
    return Image.fromarray(rng.integers(64, 192, shape, dtype=np.uint8))


def mixed(name: str) -> list[list[Image.Image]]:
    """Rows of a batch: pictures of three sizes, and one row with two of them."""
    small, large, odd = (picture(size, seed) for seed, size in enumerate(CASES[name].sizes()))
    return [[small, large], [odd], [large], [small]]


def boards(name: str, size: tuple[int, int], views: Sequence[Any]) -> list[list[list[Any]]]:
    """The views of a picture, or what belongs to each of them, as they lie over the picture.

    A view of the whole picture is a board by itself; tiles lie beside each other on one.
    """
    case = CASES[name]
    kinds = [kind for kind, _ in (case.views[size] if len(views) > 1 else (WHOLE,))]
    pairs = list(zip(kinds, views, strict=True))
    tiles = [view for kind, view in pairs if kind == "tile"]
    found = [[[view]] for kind, view in pairs if kind == "whole"]
    across = case.tiles[size][1] if tiles else 1
    if tiles:
        found.append([tiles[i : i + across] for i in range(0, len(tiles), across)])
    return found


def prompt(processor: Any, question: str, images: int = 1, answer: str = "") -> str:
    """`images` pictures, the question, and the answer so far."""
    content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    turn = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    return text + answer


def inputs(
    name: str, pictures: list[list[Image.Image]], answers: Sequence[str] = (), side: str = "left"
) -> Any:
    """A batch: one prompt per list of pictures, questions of different lengths."""
    processor = built(name)[1]
    texts = [
        prompt(processor, QUESTIONS[b % 2], len(images), answers[b] if answers else "")
        for b, images in enumerate(pictures)
    ]
    return processor(
        images=pictures,
        text=texts,
        padding=True,
        padding_side=side,
        return_tensors="pt",
        add_special_tokens=False,
    )


HEAD = """# Which models can be aligned

Written by `python -m tests.support.families`; `tests/attention/test_families.py` proves every row
and checks that this file is current. For each family, with a tiny model of transformers' own
classes and its own processor:

* **positions and grid**: every patch of a picture is painted in turn, and the image token that
  changes is the one that the rule names; two sizes of pictures, two pictures in one prompt, batches
  of different grids, padding on either side;
* **capture**: statistics and gradients equal those of eager attention to 1e-5, the output equals
  SDPA's bit for bit;
* **decoding**: one observed step a token with the KV cache, equal to eager attention on the
  finished text to 1e-5;
* **steering**: with alpha 0 the tokens are those of plain `generate`; with alpha 1 attention moves.

"""
TRAINING = """
What training makes of them. **Trains**: one guided batch with all terms of the loss, forward and
backward, tried while this file was written; `tests/preference/test_families.py` adds that both
answers behind one prompt are what they are behind one each, to 1e-5, and
`tests/test_every_family.py` that pictures of three sizes, two in some rows, go through every stage,
with full training and with LoRA. **LoRA**: the linear layers that get adapters with `targets: all`.
**Several pictures**: two in one prompt, answered and told apart.

"""


def document() -> str:
    """The text of `docs/families.md`."""
    heads = ("family", "model type", "grid of the image tokens")
    lines = [f"| {' | '.join(heads)} | tiny model: picture, image tokens, views |"]
    lines += ["|---|---|---|---|"]
    for name, family in FAMILIES.items():
        cases = [case for case in CASES if model_type(case) == name]
        examples = [example(case, size) for case in cases for size in CASES[case].views]
        rule = " ".join(family.rule.__doc__.split())
        lines.append(f"| {family.name} | `{name}` | {rule} | {'; '.join(examples)} |")
    heads = "| family | trains | LoRA | several pictures |"
    training = [heads, "|---|---|---|---|", *(_trained(name) for name in FAMILIES)]
    refused = [f"* {unsupported(model)}" for model in builders.refused()]
    last = "\n".join(["", "What is refused, and with which words:", "", *refused])
    return HEAD + "\n".join(lines) + "\n" + TRAINING + "\n".join(training) + "\n" + last + "\n"


def _trained(name: str) -> str:
    """A family's row of the table of training, from a trial."""
    model, processor = built(name)
    batch = prompt_inputs(model, processor, [[picture((32, 32))]], QUESTIONS[:1])
    apart = cannot_share(model, batch)
    how = "both answers behind one prompt" if apart is None else f"a prompt each: {apart}"
    layers = Counter(layer.rpartition(".")[2] for layer in linear_layers(model, "decoder"))
    several = several_flaw(model, processor, picture((32, 24)))
    flaw = training_flaw(copy.deepcopy(model), processor, picture((32, 24)))
    trains, can_take = ("yes" if one is None else f"no: {one}" for one in (flaw, several))
    return f"| {FAMILIES[name].name} | {trains}, {how} | {', '.join(layers)} | {can_take} |"


def example(name: str, size: tuple[int, int]) -> str:
    """A picture of this size, its image tokens and the views among them, in words."""
    layout = layout_of(built(name)[0], inputs(name, [[picture(size)]]))
    views = Counter((v.kind, f"{v.grid[0]} x {v.grid[1]}") for v in layout.views)
    parts = [
        f"{n} tiles of {grid}" if kind == "tile" else grid for (kind, grid), n in views.items()
    ]
    return f"{size[0]} x {size[1]} pixels, {layout.columns_BN.shape[1]}: {' + '.join(parts)}"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
