"""Can this model be aligned? Its family, where a picture stands in its sequence, what works, and
what it costs.

    python -m adapt.inspect MODEL [--picture FILE] [--overlay FILE] [--json]

With weights in the folder, capture, steering and a gradient are tried; without, the configuration
answers alone.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt.params import InputError

TRIALS = {"capture": "tried", "steering": "tried", "training": "its gradient was tried"}
TOKENS = 1000
QUESTION = "Describe the picture."
HELP = """\
MODEL is a folder as `save_pretrained` writes it, or a hub id (owner/name). Only for a hub id is anything fetched, and
then configuration and processor alone, never weights.

  python -m adapt.inspect results/base/model
  python -m adapt.inspect llava-hf/llava-1.5-7b-hf
  python -m adapt.inspect ./my-model --picture scan.png --json | jq .picture.views
  # where the first words look
  python -m adapt.inspect ./my-model --picture scan.png --overlay anchor.png 

What the lines say:
  family     whose rule turns image tokens into a grid of patches (docs/families.md has them all)
  picture    where a picture's tokens stand in the prompt, and the grids that they form
  capture    attention of an answer to the picture can be read
  steering   and changed while the model answers
  training   and optimised: the statistics have gradients, and pictures can be guided (v+, v-)
  memory     what capture keeps of one answer per 1,000 of its tokens, with all layers observed

Exit codes: 0 all three work, 1 something does not (the line says why), 2 a mistake in the arguments or files.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        report = inspect(options.model, options.picture)
        if options.overlay:
            _overlay(options.model, options.picture, options.overlay, report)
    except InputError as error:
        message = " ".join(str(error).split())
        if options.json:
            print(json.dumps({"error": message}))
        else:
            print(f"adapt.inspect: {message}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2) if options.json else "\n".join(lines(report)))
    return 0 if all(report[trial]["supported"] for trial in TRIALS) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m adapt.inspect",
        description="Can this vision-language model be aligned?",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a folder or a hub id")
    parser.add_argument(
        "--picture", type=Path, help="a picture to lay out (default: 640 x 480 pixels of grey)"
    )
    parser.add_argument(
        "--overlay", type=Path, help="draw the picture's visual anchor into this PNG file"
    )
    parser.add_argument("--json", action="store_true", help="the same answer for programs")
    return parser


def inspect(source: str, picture: Path | None = None) -> dict[str, Any]:
    """What `--json` prints.

    Raises InputError for a source that is no vision-language model of transformers, or a picture
    that cannot be read.
    """
    from adapt.attention.layout import unknown, unsupported

    image, config = _image(picture), _config(source)
    report = {
        "model": source,
        "model_type": config.model_type,
        "family": None,
        "weights": _weights(source),
    }
    why = unknown(config)
    if why is None:
        report |= _shape(config)
        model = _model(source, config)
        why = unsupported(model)
    verdicts: Mapping[str, str | None] = dict.fromkeys(TRIALS, why)
    if why is None:
        try:
            processor, inputs, layout = _laid_out(source, model, image)
        except InputError as error:
            verdicts = dict.fromkeys(TRIALS, str(error))
        else:
            report["picture"] = _picture(image, inputs, layout)
            report["memory"] = _memory(model, layout.columns_BN.shape[1])
            verdicts = _verdicts(model, processor, image, inputs, layout, report["weights"])
    return report | {
        trial: {"supported": not verdicts[trial], "why": verdicts[trial]} for trial in TRIALS
    }


def _image(path: Path | None) -> Any:
    from PIL import Image, UnidentifiedImageError

    if path is None:
        return Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError):
        raise InputError(f"--picture {path}: not a picture that can be read") from None


def _weights(source: str) -> bool:
    return any(Path(source).expanduser().glob("*.safetensors"))


def _config(source: str) -> Any:
    from transformers import AutoConfig

    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / "config.json").exists():
        raise InputError(f"{source}: no model here (config.json is missing)")
    if not folder.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise InputError(f"{source}: no such folder, and not a hub id (owner/name)")
    try:
        return AutoConfig.from_pretrained(
            folder if folder.is_dir() else source, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: {str(error).splitlines()[0]}") from None


def _model(source: str, config: Any) -> Any:
    """The model; where there are no weights its modules alone, which take no memory."""
    import torch
    from transformers import AutoModelForImageTextToText

    from adapt.models.load import load_model

    if _weights(source):
        return load_model(Path(source).expanduser())
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def _shape(config: Any) -> dict[str, Any]:
    from adapt.attention.grids import FAMILIES

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


def _laid_out(source: str, model: Any, image: Any) -> tuple[Any, Any, Any]:
    """The processor, what it makes of the picture and a question, and the layout of that."""
    import torch

    from adapt.attention.layout import layout_of
    from adapt.generation.answer import prompt_inputs
    from adapt.models.load import load_processor

    try:
        processor = load_processor(source)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(
            f"its processor cannot be loaded here: {str(error).splitlines()[0]}"
        ) from None
    if not getattr(processor, "chat_template", None):
        raise InputError("its processor has no chat template, through which questions are asked")
    here = (
        model if _weights(source) else torch.nn.Linear(1, 1)
    )  # a model without weights is on no device
    inputs = prompt_inputs(here, processor, [image], [QUESTION])
    return processor, inputs, layout_of(model, inputs)


def _picture(image: Any, inputs: Any, layout: Any) -> dict[str, Any]:
    columns = layout.columns_BN[0].tolist()
    views = [
        {"kind": v.kind, "grid": list(v.grid), "first": v.columns[0], "last": v.columns[-1]}
        for v in layout.views
    ]
    size, prompt = list(image.size), inputs["input_ids"].shape[1]
    return {
        "size": size,
        "prompt": prompt,
        "tokens": len(columns),
        "first": columns[0],
        "last": columns[-1],
        "views": views,
    }


def _memory(model: Any, image_tokens: int) -> dict[str, int]:
    """Bytes that capture keeps of one answer per 1,000 of its tokens: see adapt/attention/rows.py
    and steer.py.

    Decoding: a map in fp32 and whether it fired. Training: queries, a normaliser per head, and the
    map; the keys are SDPA's.
    """
    shape = _shape(model.config)
    layers, heads, maps = shape["layers"], shape["heads"], 4 * image_tokens
    queries = heads * shape["head_size"] * model.dtype.itemsize
    return {
        "decoding": TOKENS * layers * (maps + 1),
        "training": TOKENS * layers * (queries + 4 * heads + maps),
    }


def _verdicts(
    model: Any, processor: Any, image: Any, inputs: Any, layout: Any, tried: bool
) -> Mapping[str, str | None]:
    """Why each of TRIALS does not work; None where it does."""
    from adapt.generation.answer import answer
    from adapt.generation.settings import SteerConfig

    unguided = _unguided(inputs, layout)
    if not tried:
        return {"capture": None, "steering": None, "training": unguided}
    try:
        flaw = _flaw(model, inputs, layout)
        steer = SteerConfig(alpha=0.5, tau=1.0, trigger="amc", anchor_share=1.0, layers="all")
        answer(
            model, processor, [image], [QUESTION], anchor_tokens=1, max_new_tokens=3, steer=steer
        )
    except InputError as error:
        flaw = str(error)
    return {"capture": flaw, "steering": flaw, "training": flaw or unguided}


def _flaw(model: Any, inputs: Any, layout: Any) -> str | None:
    """What is wrong with the last token's attention to the picture, and with its gradient in the
    last layer.
    """
    import torch

    from adapt.attention.capture import RowCapture, decoder_of, layer_count, observed

    last = layer_count(model) - 1
    weights = [
        p
        for m in decoder_of(model).modules()
        if getattr(m, "layer_idx", None) == last
        for p in m.parameters()
    ]
    model.requires_grad_(False)  # activations of the layers below need not be kept
    for weight in weights:
        weight.requires_grad_(True)
    rows = torch.tensor([[inputs["input_ids"].shape[1] - 1]], device=layout.columns_BN.device)
    capture = RowCapture(rows, layout.columns_BN)
    with torch.no_grad():
        plain = model(**inputs).logits
    with observed(model, capture):
        seen = model(**inputs).logits
    maps_BLRN = capture.stacked()
    found = torch.autograd.grad(maps_BLRN.square().sum(), weights, allow_unused=True)
    if not torch.equal(plain, seen):
        return "its output changes while it is observed"
    if not maps_BLRN.isfinite().all() or not maps_BLRN.any():
        return "its attention to the picture is not finite, or nothing"
    return (
        None
        if any(g is not None and bool(g.any()) for g in found)
        else "its attention has no gradient"
    )


def _unguided(inputs: Any, layout: Any) -> str | None:
    """Why the training stages cannot make v+ and v- of a picture."""
    if len(layout.views) > 1:
        return f"a picture has {len(layout.views)} grids of patches, and guided pictures (v+, v-) need one"
    shape = list(inputs["pixel_values"].shape)
    if len(shape) != 4:
        return f"guided pictures (v+, v-) need pixel values of pictures, [B, C, X, Y]; its processor makes {shape}"
    return None


def _overlay(source: str, picture: Path | None, path: Path, report: Mapping[str, Any]) -> None:
    """Write the overlay; section `anchor` of the working folder's params.yaml says what the anchor
    is read from.
    """
    from adapt import params
    from adapt.attention.settings import AnchorConfig
    from adapt.evaluation.plots import save
    from adapt.inspect.overlay import overlay
    from adapt.models.load import load_model, load_processor

    capture = report["capture"]
    if not (report["weights"] and capture["supported"]):
        raise InputError(
            f"--overlay: {capture['why'] or 'there are no weights here to draw an anchor with'}"
        )
    config = params.load(params.read(Path("params.yaml")), "anchor", AnchorConfig)
    folder = Path(source).expanduser()
    figure = overlay(load_model(folder), load_processor(folder), _image(picture), QUESTION, config)
    try:
        save(figure, path)
    except (OSError, ValueError) as error:
        raise InputError(f"--overlay {path}: {error}") from None


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people."""
    yield f"model     {report['model']}"
    yield f"family    {report['family'] or 'none that is known'} (model type {report['model_type']})"
    if "layers" in report:
        yield "decoder   {layers} layers, {heads} heads of {head_size}, {key_value_heads} of keys and values".format(
            **report
        )
    if report.get("sliding"):
        window = report["sliding"]
        yield f"          {window['layers']} of them see the last {window['tokens']} tokens only, and then no picture"
    if "picture" in report:
        yield from _picture_lines(report["picture"])
    for trial, how in TRIALS.items():
        verdict = report[trial]
        how = (
            how if report["weights"] else "by its family; there are no weights here to try it with"
        )
        yield f"{trial:<10}" + (f"yes ({how})" if verdict["supported"] else f"no: {verdict['why']}")
    if "memory" in report:
        amounts = {name: f"{value / 2**20:.1f} MiB" for name, value in report["memory"].items()}
        yield "memory    per 1,000 tokens of an answer: {decoding} to decode, {training} to train".format(
            **amounts
        )


def _picture_lines(picture: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"picture   {picture['size'][0]} x {picture['size'][1]} pixels: {picture['tokens']} image tokens, positions"
        f" {picture['first']} to {picture['last']} of {picture['prompt']}"
    )
    for (kind, rows, columns), count in Counter(
        (v["kind"], *v["grid"]) for v in picture["views"]
    ).items():
        what = f"{count} tiles of" if kind == "tile" else "the whole picture in"
        yield f"          {what} {rows} x {columns} patches"


if __name__ == "__main__":
    raise SystemExit(main())
