"""What is tried on a model to see whether it can be aligned, and what is found: a report as a dict.

Three probes, in the order in which they need each other: `capture` (attention of an answer to the
picture can be read), `steering` (and changed while the model answers), `training` (and optimised).
With weights in the folder they are tried; without, the configuration answers alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from transformers import AutoConfig, AutoModelForImageTextToText

from adapt.attention.capture import RowCapture, decoder_of, layer_count, observed
from adapt.attention.grids import FAMILIES
from adapt.attention.layout import Layout, layout_of, unknown, unsupported
from adapt.generation.answer import Decoding, answer
from adapt.generation.settings import SteerConfig
from adapt.models.load import check_source, load_model, load_processor
from adapt.models.prompts import prompt_inputs
from adapt.params import InputError

PROBES = ("capture", "steering", "training")
TOKENS = 1000
QUESTION = "Describe the picture."


def report(source: str, picture: Path | None = None) -> dict[str, Any]:
    """What `--json` prints.

    Raises InputError for a source that is no vision-language model of transformers, or a picture
    that cannot be read.
    """
    image, config = read_picture(picture), _config(source)
    has_weights = any(Path(source).expanduser().glob("*.safetensors"))
    facts: dict[str, Any] = {"model": source, "model_type": config.model_type}
    facts |= {"family": None, "weights": has_weights}
    # 1. By the configuration: is the family known, and does its decoder let attention be read?
    reason = unknown(config)
    if reason is None:
        facts |= _shape(config)
        model = _model(source, config, has_weights)
        reason = unsupported(model)
    verdicts: Mapping[str, str | None] = dict.fromkeys(PROBES, reason)
    if reason is None:
        # 2. By the processor: where do the picture's tokens stand in a prompt?
        try:
            processor = _processor(source)
            device = model if has_weights else torch.nn.Linear(1, 1)  # no weights, no device
            inputs = prompt_inputs(device, processor, [[image]], [QUESTION])
            layout = layout_of(model, inputs)
        except InputError as error:
            verdicts = dict.fromkeys(PROBES, str(error))
        else:
            facts["picture"] = _picture(image, inputs, layout)
            facts["memory"] = memory(model, layout.columns_BN.shape[1])
            # 3. By trial, where there are weights.
            flaw = _tried(model, processor, image, inputs, layout) if has_weights else None
            unguided = flaw or why_unguided(inputs, layout)
            verdicts = {"capture": flaw, "steering": flaw, "training": unguided}
    return facts | {p: {"supported": not verdicts[p], "why": verdicts[p]} for p in PROBES}


def read_picture(path: Path | None) -> Image.Image:
    """The picture, RGB; without a path a grey one of 640 x 480 pixels."""
    if path is None:
        return Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError):
        raise InputError(f"--picture {path}: not a picture that can be read") from None


def _config(source: str) -> Any:
    folder = Path(source).expanduser()
    origin = str(folder) if folder.is_dir() else source
    check_source(origin)
    try:
        return AutoConfig.from_pretrained(origin, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: {str(error).splitlines()[0]}") from None


def _model(source: str, config: Any, has_weights: bool) -> Any:
    """The model; where there are no weights its modules alone, which take no memory."""
    if has_weights:
        return load_model(Path(source).expanduser())
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def _processor(source: str) -> Any:
    try:
        processor = load_processor(source)
    except (ImportError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"its processor cannot be loaded here: {reason}") from None
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


def memory(model: Any, image_tokens: int) -> dict[str, int]:
    """Bytes that capture keeps of one answer per 1,000 of its tokens.

    Decoding (`adapt/generation/steer.py`): a map in fp32 and whether it fired. Training
    (`adapt/attention/rows.py`): queries, a normaliser per head, and the map; the keys are SDPA's.
    """
    shape = _shape(model.config)
    layers, heads, maps = shape["layers"], shape["heads"], 4 * image_tokens
    queries = heads * shape["head_size"] * model.dtype.itemsize
    training = TOKENS * layers * (queries + 4 * heads + maps)
    return {"decoding": TOKENS * layers * (maps + 1), "training": training}


def why_unguided(inputs: Any, layout: Layout) -> str | None:
    """Why the training stages cannot make v+ and v- of a picture; None where they can."""
    guided, views = "guided pictures (v+, v-) need", len(layout.views)
    if views > 1:
        return f"a picture has {views} grids of patches, and {guided} one"
    shape = list(inputs["pixel_values"].shape)
    shapes = f"pixel values of pictures, [B, C, X, Y]; its processor makes {shape}"
    return None if len(shape) == 4 else f"{guided} {shapes}"


# ---- what is tried -----------------------------------------------------------------------------


def _tried(
    model: Any, processor: Any, image: Image.Image, inputs: Any, layout: Layout
) -> str | None:
    """Why capture or steering does not work; None where both do."""
    steer = SteerConfig(alpha=0.5, tau=1.0, trigger="amc", anchor_share=1.0, layers="all")
    decoding = Decoding(anchor_tokens=1, max_new_tokens=3, steer=steer)
    try:
        flaw = _flaw(model, inputs, layout)
        answer(model, processor, [[image]], [QUESTION], decoding)
    except InputError as error:
        return str(error)
    return flaw


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
