"""Can this model be aligned, and what would it take? The first is tried, the second worked out.

    python -m adapt.inspect MODEL [--picture FILE] [--params FILE] [--gpu GIB] [--overlay FILE]

Torch and transformers are imported where they are used, so that `--help` is there at once.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt import command, environment
from adapt.inspect.lines import lines

NEEDED = ("capture", "steering", "training")  # for exit code 0
PARAMS = Path("params.yaml")
HELP = """\
MODEL is a folder as `save_pretrained` writes it, or a hub id (owner/name). Only for a hub id is
anything fetched, and then configuration and processor alone, never weights.

  python -m adapt.inspect results/base/model
  python -m adapt.inspect llava-hf/llava-1.5-7b-hf --gpu 80        # would it fit into 80 GiB?
  python -m adapt.inspect ./my-model --params recipes/my-model.yaml
  python -m adapt.inspect ./my-model --picture scan.png --json | jq .picture.views
  python -m adapt.inspect ./my-model --overlay anchor.png     # where its first words look

What the lines say:
  family     whose rule turns image tokens into a grid of patches (docs/families.md has them all)
  picture    where a picture's tokens stand in the prompt, and the grids that they form
  capture    attention of an answer to the picture can be read
  steering   and changed while the model answers
  training   and one batch with all terms of the loss, plain and guided pictures (v+, v-), has
             brought finite gradients to projector and decoder
  several    a prompt may have several pictures
  parts      vision tower, projector and decoder: their size, what `train` would do with each, and
             the linear layers that `train.lora.targets` may name
  memory     what one process takes at its peak, part by part, as the sections pairs, answer and
             train of params.yaml have it (batch, max_new_tokens, samples, batch_pairs,
             accumulation, workers, lora, tower, precision, gradient_checkpointing). Formulas:
             adapt/inspect/memory.py and training.py. The prompt is a question about --picture:
             give your largest. Answers are taken to be as long as they may be.
  pairs, answer, train
             whether that fits here (or into --gpu), and which settings would
  disk       training's checkpoints (weights and optimizer), and the trained model

Exit codes: 0 capture, steering and training work, 1 one of them does not (the line says why),
2 a mistake in the arguments or files. Whether it fits does not count.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(argv)

    def work() -> int:
        facts = _facts(options)
        print(json.dumps(facts, indent=2) if options.json else "\n".join(lines(facts)))
        return 0 if all(facts[probe]["supported"] for probe in NEEDED) else 1

    return command.ended("adapt.inspect", work, in_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m adapt.inspect",
        description="Can this vision-language model be aligned, and what would it take?",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    picture = "a picture to lay out (default: a grey gradient of 640 x 480 pixels)"
    settings = "settings whose memory is worked out (default: params.yaml, where there is one)"
    gpu = "judge for a GPU of so much memory instead of this machine"
    overlay = "draw its visual anchor into this PNG file (needs weights, and params.yaml here)"
    parser.add_argument("model", metavar="MODEL", help="a folder or a hub id")
    parser.add_argument("--picture", type=Path, metavar="FILE", help=picture)
    parser.add_argument("--params", type=Path, metavar="FILE", help=settings)
    parser.add_argument("--gpu", type=_gib, metavar="GIB", help=gpu)
    parser.add_argument("--overlay", type=Path, metavar="FILE", help=overlay)
    parser.add_argument("--json", action="store_true", help="the same answer for programs")
    return parser


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    from adapt.inspect.machine import imagined, machine
    from adapt.inspect.plan import Plans, memory_facts
    from adapt.inspect.probes import report
    from adapt.inspect.train_plan import states
    from adapt.models.device import resolve

    # 1. The settings first: what is wrong with them is said before anything is loaded.
    file = options.params or (PARAMS if PARAMS.exists() else None)
    plans = Plans.read(file) if file else None
    # 2. The model.
    device = resolve("auto" if plans is None or options.gpu else plans.train.device)
    facts, subject = report(options.model, options.picture, device)
    # 3. What is done with its parts, and what that takes.
    if plans and subject:
        for role, state in states(subject, plans.train).items():
            facts["parts"][role]["state"] = state
        place = imagined(options.gpu) if options.gpu else machine(device)
        facts["memory"] = {"params": str(file), **memory_facts(subject, plans, place)}
    if options.overlay:
        from adapt.inspect.overlay import draw

        draw(options.model, options.picture, options.overlay, facts)
    return facts


def _gib(text: str) -> float:
    size = float(text)
    if not 1 <= size <= 10_000:
        raise argparse.ArgumentTypeError("expected 1 to 10000 GiB")
    return size


if __name__ == "__main__":
    environment.prepare(Path.cwd())
    raise SystemExit(main())
