"""Training and prompts of several pictures, tried on the model itself.

Shapes: N image tokens.
"""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from adapt.attention.capture import decoder_of, layer_count
from adapt.attention.layout import layout_of
from adapt.attention.places import places_of
from adapt.attention.support import support_maps
from adapt.generation.answer import Decoding, answer
from adapt.models.checkpoint.folder import foreign
from adapt.models.prompts import end_tokens, prompt_inputs
from adapt.models.roles import Role, role_of_parameters
from adapt.pairs.table import Pair, PairView
from adapt.params import InputError
from adapt.preference.collate import GuidedCollator
from adapt.preference.dataset import dataset
from adapt.preference.reference import ReferenceCache
from adapt.preference.trainer import AdaptTrainer, Weights

# Two questions about one picture, an answer to prefer and one to avoid for each.
ROWS = (
    ("Describe the picture.", "It shows a house beside a tree.", "It shows a dog in a garden."),
    ("What is in it?", "There is a house, and there is a tree.", "There is a dog."),
)
ANCHOR_TOKENS = 2  # K; the answers have tokens after them, whose attention is supervised
NOISE = 0.3


def training_flaw(model: Any, processor: Any, image: Image.Image) -> str | None:
    """Why a guided batch with all terms of the loss trains nothing; None where it does.

    The batch goes through the collator, the loss and the backward pass of training. A gradient is
    asked of the projector and of the first and last layer of the decoder: what lies between them is
    on its way, and needs no memory. `model` has TRL's head afterwards.
    """
    try:
        pairs = _pairs(model, processor, image)
        trained = _freed(model)
        with foreign("a guided batch"), tempfile.TemporaryDirectory() as folder, _quiet():
            trainer = _trainer(model, processor, pairs, Path(folder))
            batch = trainer.data_collator([*trainer.train_dataset])
            loss = trainer.training_step(model, trainer._prepare_inputs(batch))
    except InputError as error:
        return str(error)
    if not loss.isfinite():
        return f"the loss of a guided batch is {loss.item()}"
    for role, weights in trained.items():
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if not any(gradient.any() for gradient in gradients):
            return f"no gradient of a guided batch reaches the {role}"
        if not all(gradient.isfinite().all() for gradient in gradients):
            return f"a gradient of the {role} is not finite"
    return None


def several_flaw(model: Any, processor: Any, image: Image.Image) -> str | None:
    """Why two pictures in one prompt cannot be answered and told apart; None where they can."""
    images, questions = [[image, image]], [ROWS[0][0]]
    decoding = Decoding(anchor_tokens=ANCHOR_TOKENS, max_new_tokens=3)
    try:
        with foreign("two pictures in a prompt"):
            inputs = prompt_inputs(model, processor, images, questions)
            seen = {view.image for view in layout_of(model, inputs).of(0)}
            answer(model, processor, images, questions, decoding)
    except InputError as error:
        return str(error)
    return None if len(seen) == 2 else f"two pictures become {len(seen)} in the prompt"


def _pairs(model: Any, processor: Any, image: Image.Image) -> list[Pair]:
    """Pairs about the picture, with the anchors that the model's own first words give."""
    questions, images = [row[0] for row in ROWS], [[image]] * len(ROWS)
    decoding = Decoding(anchor_tokens=ANCHOR_TOKENS, max_new_tokens=ANCHOR_TOKENS)
    with foreign("anchors"):
        answers = answer(model, processor, images, questions, decoding)
        anchors_BN = answers.anchor_BN.float().cpu()
        places = places_of(model.config, processor, [image.size])
    file = io.BytesIO()
    image.save(file, "PNG")
    pairs = []
    for i, (question, chosen, rejected) in enumerate(ROWS):
        views = answers.layout.of(i)
        pairs.append(
            Pair(
                id=f"row {i}",
                kind="describe",
                images=(file.getvalue(),),
                question=question,
                chosen=chosen,
                rejected=rejected,
                chosen_score=1.0,
                rejected_score=0.0,
                anchor=tuple(anchors_BN[i].tolist()),
                views=tuple(map(PairView.of, views)),
                support=tuple(one.tobytes() for one in support_maps(anchors_BN[i], views, places)),
            )
        )
    return pairs


def _freed(model: Any) -> dict[Role, list[nn.Parameter]]:
    """Ask for gradients of some weights and of no others; which, by role."""
    roles, ends = role_of_parameters(model), (0, layer_count(model) - 1)
    layers = [m for m in decoder_of(model).modules() if getattr(m, "layer_idx", None) in ends]
    asked = {id(weight) for layer in layers for weight in layer.parameters()}
    trained: dict[Role, list[nn.Parameter]] = {"projector": [], "decoder": []}
    for name, weight in model.named_parameters():
        weight.requires_grad_(roles[name] == "projector" or id(weight) in asked)
        if weight.requires_grad:
            trained[roles[name]].append(weight)
    return trained


def _trainer(model: Any, processor: Any, pairs: Sequence[Pair], folder: Path) -> AdaptTrainer:
    from trl import DPOConfig  # heavy, as peft and TRL's trainer are

    device = next(model.parameters()).device
    arguments = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(pairs),
        max_length=None,
        activation_checkpointing=False,
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
        bf16=False,
    )
    ends = end_tokens(model, processor)
    trainer = AdaptTrainer(
        model=model,
        args=arguments,
        data_collator=GuidedCollator(processor=processor, ends=ends, noise=NOISE),
        train_dataset=dataset(pairs, [pair.id for pair in pairs]),
        processing_class=processor,
        weights=Weights(vag=1.0, dpo=1.0, sft=1.0, anchor=1.0, attn=1.0),
        anchor_tokens=ANCHOR_TOKENS,
        attn_layers="all",
        cache=ReferenceCache(uri=str(folder / "reference"), base="tried"),
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Progress and advice of a real training are not the report's."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
