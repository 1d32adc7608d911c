"""What is tried on a model to see whether it can be aligned, and what is found: a report as a dict.

Three probes, in the order in which they need each other: `capture` (attention of an answer to the
picture can be read), `steering` (and changed while the model answers), `training` (and a guided
batch trains decoder and projector). Beside them `several`: whether a prompt may have several
pictures. With weights they are tried; without, the configuration answers alone.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.utils import logging

from adapt.attention.capture import RowCapture, decoder_of, layer_count, observed
from adapt.attention.grids import FAMILIES
from adapt.attention.layout import Layout, layout_of, unknown, unsupported
from adapt.data.pictures import PictureProblem, open_picture
from adapt.generation.answer import Decoding, answer
from adapt.generation.settings import SteerConfig
from adapt.inspect import trial
from adapt.inspect.estimate import Subject, structure, subject_of
from adapt.models.checkpoint import weights
from adapt.models.checkpoint.folder import foreign
from adapt.models.device import generation_dtype
from adapt.models.load import (
    check_source,
    load_config,
    load_model,
    load_processor,
)
from adapt.models.prompts import prompt_inputs
from adapt.models.roles import ROLES, linear_layers
from adapt.models.trial import check_together
from adapt.params import InputError

PROBES = ("capture", "steering", "training", "several")
QUESTION = "Describe the picture."


def report(
    source: str, picture: Path | None, device: torch.device, *, tried: bool = True
) -> tuple[dict[str, Any], Subject | None]:
    """What `--json` prints, but for memory, and what memory is worked out from.

    Without `tried` weights are left alone, also where there are some. Raises InputError for a
    source that is no vision-language model of transformers, or a picture that cannot be read.
    """
    logging.disable_progress_bar()
    image, config = read_picture(picture), _config(source)
    is_stored = weights.has_weights(Path(source).expanduser())
    has_weights = is_stored and tried
    facts: dict[str, Any] = {"model": source, "model_type": config.model_type}
    facts |= {"family": None, "weights": has_weights}
    # 1. By the configuration: is the family known, and does its decoder let attention be read?
    reason, subject = unknown(config), None
    if reason is None:
        facts |= _shape(config)
        model = _model(source, config, has_weights, device)
        reason = unsupported(model)
    verdicts: dict[str, str | None] = dict.fromkeys(PROBES, reason)
    if reason is None:
        # 2. By the processor: where do the picture's tokens stand in a prompt?
        try:
            processor = _processor(source)
            if has_weights:
                check_together(model, processor, source)
            # Without weights there is no device.
            asker = model if has_weights else torch.nn.Linear(1, 1)
            with foreign("a prompt with this picture"):
                inputs = prompt_inputs(asker, processor, [[image]], [QUESTION])
            layout = layout_of(model, inputs)
            subject = subject_of(source, model, inputs, layout, is_stored)
        except InputError as error:
            verdicts = dict.fromkeys(PROBES, str(error))
        else:
            facts["picture"] = _picture(image, inputs, layout)
            facts["parts"] = _parts(subject)
            # 3. By trial, where there are weights.
            if has_weights:
                verdicts = _tried(model, processor, image, inputs, layout)
    return facts | {p: {"supported": not verdicts[p], "why": verdicts[p]} for p in PROBES}, subject


def read_picture(path: Path | None) -> Image.Image:
    """The picture as the stages see it; without a path a grey one of 640 x 480 pixels."""
    if path is None:
        return Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    try:
        return open_picture(path.read_bytes())
    except (OSError, PictureProblem) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"--picture {path}: not a picture that can be read ({reason})") from None


def _config(source: str) -> Any:
    check_source(source)
    return load_config(source)


def _model(source: str, config: Any, has_weights: bool, device: torch.device) -> Any:
    """The model; where there are no weights its modules alone."""
    if has_weights:
        return load_model(Path(source).expanduser(), device, generation_dtype(device))
    return structure(source, config)


def _processor(source: str) -> Any:
    processor = load_processor(source)
    if not getattr(processor, "chat_template", None):
        raise InputError("its processor has no chat template, through which questions are asked")
    return processor


# ---- what is known without trying --------------------------------------------------------------


def _shape(config: Any) -> dict[str, Any]:
    text = config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    sliding = sum(kind == "sliding_attention" for kind in getattr(text, "layer_types", None) or ())
    return {
        "family": FAMILIES[config.model_type].name,
        "layers": text.num_hidden_layers,
        "heads": heads,
        "key_value_heads": getattr(text, "num_key_value_heads", None) or heads,
        "head_size": getattr(text, "head_dim", None) or text.hidden_size // heads,
        "sliding": {"layers": sliding, "tokens": text.sliding_window} if sliding else None,
    }


def _picture(image: Image.Image, inputs: Any, layout: Layout) -> dict[str, Any]:
    columns = layout.columns_BN[0].tolist()
    sizes = {"size": list(image.size), "prompt": inputs["input_ids"].shape[1]}
    places = {"tokens": len(columns), "first": columns[0], "last": columns[-1]}
    views = [
        {"kind": v.kind, "grid": list(v.grid), "first": v.columns[0], "last": v.columns[-1]}
        for v in layout.views
    ]
    return {**sizes, **places, "views": views}


def _parts(subject: Subject) -> dict[str, dict[str, Any]]:
    """Of each role: parameters, and the names of its linear layers with how many have each."""
    parts: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        names = [name.rpartition(".")[2] for name in linear_layers(subject.model, role)]
        linear = dict(sorted(Counter(names).items()))
        parts[role] = {"parameters": subject.sizes.parameters[role], "linear": linear}
    return parts


# ---- what is tried -----------------------------------------------------------------------------


def _tried(
    model: Any, processor: Any, image: Image.Image, inputs: Any, layout: Layout
) -> dict[str, str | None]:
    """Of each probe why it does not work, or None where it does."""
    steer = SteerConfig(alpha=0.5, tau=1.0, trigger="amc", anchor_share=1.0, layers="all")
    decoding = Decoding(anchor_tokens=1, max_new_tokens=3, steer=steer)
    try:
        with foreign("an answer about this picture"):
            flaw = _flaw(model, inputs, layout)
            answer(model, processor, [[image]], [QUESTION], decoding)
    except InputError as error:
        flaw = str(error)
    if flaw is not None:
        return dict.fromkeys(PROBES, flaw)
    several = trial.several_flaw(model, processor, image)
    training = trial.training_flaw(model, processor, image)
    return {"capture": None, "steering": None, "training": training, "several": several}


def _flaw(model: Any, inputs: Any, layout: Layout) -> str | None:
    """What is wrong with the last token's attention to the picture, or with its gradient."""
    # 1. Only the last layer has gradients: activations of the layers below need not be kept.
    last = layer_count(model) - 1
    layers = [m for m in decoder_of(model).modules() if getattr(m, "layer_idx", None) == last]
    weights = [weight for layer in layers for weight in layer.parameters()]
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    # 2. The same pass plain and observed.
    rows = torch.tensor([[inputs["input_ids"].shape[1] - 1]], device=layout.columns_BN.device)
    capture = RowCapture(rows, layout.columns_BN)
    with torch.no_grad():
        plain = model(**inputs).logits
    with observed(model, capture):
        observed_logits = model(**inputs).logits
    maps_BLRN = capture.stacked()
    gradients = torch.autograd.grad(maps_BLRN.square().sum(), weights, allow_unused=True)
    # 3. Observation changes nothing; the maps and their gradients are there.
    if not torch.equal(plain, observed_logits):
        return "its output changes while it is observed"
    if not maps_BLRN.isfinite().all() or not maps_BLRN.any():
        return "its attention to the picture is not finite, or nothing"
    has_gradient = any(g is not None and bool(g.any()) for g in gradients)
    return None if has_gradient else "its attention has no gradient"
