"""Can this model be aligned? Its family, where a picture stands, what works, and what it costs.

    python -m adapt.inspect MODEL [--picture FILE] [--overlay FILE] [--json]

Torch and transformers are imported where they are used, so that `--help` is there at once.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt import environment
from adapt.params import InputError

TRIED = {"capture": "tried", "steering": "tried", "training": "its gradient was tried"}
UNTRIED = "by its family; there are no weights here to try it with"
HELP = """\
MODEL is a folder as `save_pretrained` writes it, or a hub id (owner/name). Only for a hub id is
anything fetched, and then configuration and processor alone, never weights.

  python -m adapt.inspect results/base/model
  python -m adapt.inspect llava-hf/llava-1.5-7b-hf
  python -m adapt.inspect ./my-model --picture scan.png --json | jq .picture.views
  python -m adapt.inspect ./my-model --overlay anchor.png     # where its first words look

What the lines say:
  family     whose rule turns image tokens into a grid of patches (docs/families.md has them all)
  picture    where a picture's tokens stand in the prompt, and the grids that they form
  capture    attention of an answer to the picture can be read
  steering   and changed while the model answers
  training   and optimised: the statistics have gradients, and pictures can be guided (v+, v-)
  memory     what capture keeps of one answer per 1,000 of its tokens, with all layers observed

Exit codes: 0 all three work, 1 something does not (the line says why), 2 a mistake in the
arguments or files.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(argv)
    from adapt.inspect.probes import report

    try:
        facts = report(options.model, options.picture)
        if options.overlay:
            from adapt.inspect.overlay import draw

            draw(options.model, options.picture, options.overlay, facts)
    except InputError as error:
        message = " ".join(str(error).split())
        if options.json:
            print(json.dumps({"error": message}))
        else:
            print(f"adapt.inspect: {message}", file=sys.stderr)
        return 2
    print(json.dumps(facts, indent=2) if options.json else "\n".join(lines(facts)))
    return 0 if all(facts[probe]["supported"] for probe in TRIED) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m adapt.inspect",
        description="Can this vision-language model be aligned?",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    picture = "a picture to lay out (default: a grey gradient of 640 x 480 pixels)"
    overlay = "draw its visual anchor into this PNG file (needs weights, and params.yaml here)"
    parser.add_argument("model", metavar="MODEL", help="a folder or a hub id")
    parser.add_argument("--picture", type=Path, metavar="FILE", help=picture)
    parser.add_argument("--overlay", type=Path, metavar="FILE", help=overlay)
    parser.add_argument("--json", action="store_true", help="the same answer for programs")
    return parser


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The report for people."""
    family = facts["family"] or "none that is known"
    yield f"model     {facts['model']}"
    yield f"family    {family} (model type {facts['model_type']})"
    if "layers" in facts:
        heads = f"{facts['heads']} heads of {facts['head_size']}"
        of_keys = f"{facts['key_value_heads']} of keys and values"
        yield f"decoder   {facts['layers']} layers, {heads}, {of_keys}"
    if facts.get("sliding"):
        layers, tokens = facts["sliding"]["layers"], facts["sliding"]["tokens"]
        yield f"          {layers} of them see the last {tokens} tokens only, and then no picture"
    if "picture" in facts:
        yield from _picture_lines(facts["picture"])
    for probe, how in TRIED.items():
        verdict, how = facts[probe], how if facts["weights"] else UNTRIED
        yield f"{probe:<10}" + (f"yes ({how})" if verdict["supported"] else f"no: {verdict['why']}")
    if "memory" in facts:
        size = {name: f"{value / 2**20:.1f} MiB" for name, value in facts["memory"].items()}
        each = f"{size['decoding']} to decode, {size['training']} to train"
        yield f"memory    per 1,000 tokens of an answer: {each}"


def _picture_lines(picture: Mapping[str, Any]) -> Iterator[str]:
    width, height = picture["size"]
    where = f"positions {picture['first']} to {picture['last']} of {picture['prompt']}"
    yield f"picture   {width} x {height} pixels: {picture['tokens']} image tokens, {where}"
    views = Counter((view["kind"], *view["grid"]) for view in picture["views"])
    for (kind, rows, columns), count in views.items():
        board = f"{count} tiles of" if kind == "tile" else "the whole picture in"
        yield f"          {board} {rows} x {columns} patches"


if __name__ == "__main__":
    environment.prepare(Path.cwd())
    raise SystemExit(main())
