"""Can this model be aligned, and what would it take? The first is tried, the second worked out.

    python -m adapt.inspect MODEL [--picture FILE] [--params FILE] [--gpu GIB] [--overlay FILE]
    python -m adapt.inspect MODEL --plan [--gpu GIB,...] [--pairs N] [--tokens N] [--workers N,...]

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
  python -m adapt.inspect ./my-model --params other-params.yaml
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
             accumulation, workers, shard, lora, tower, precision, optimizer, offload,
             gradient_checkpointing). Formulas:
             adapt/inspect/memory.py and training.py. The prompt is a question about --picture:
             give your largest. Answers are taken to be as long as they may be.
  pairs, answer, train
             whether that fits here (or into --gpu), and which settings would
  disk       training's checkpoints (weights and optimizer), and the trained model

With --plan, a table instead: what each way to train takes of one card, and on which it fits.
Configuration and processor are enough; weights are not read, where there are some.

  python -m adapt.inspect llava-hf/llava-1.5-7b-hf --plan
  python -m adapt.inspect ./my-model --plan --gpu 40 --pairs 16 --tokens 200 --workers 4,8
  python -m adapt.inspect ./my-model --plan --shard fsdp --json | jq .plan.rows

  first      for each card the smallest change of section train that fits: smaller passes, then
             checkpointing (with fsdp before smaller passes), then train.shard: fsdp, then
             train.offload, then a lighter optimizer, then LoRA, then its base in 4 bits. Keys that
             are auto become that by themselves, for the rows and the card of the training
  way        full training, its passes in fp32 or bf16 (what is trained is held in fp32), with what
             AdamW keeps in main memory (offload) or by Adafactor; LoRA over a base as it is
             stored, or in 4 bits
  shard, workers, pairs
             whether workers share the model (fsdp); how many; pairs of one pass of one of them
  weights to logits
             the parts at the peak of a step (adapt/inspect/training.py). autocast: 16-bit copies of
             32-bit weights; gathered: what a divided model has whole for a while
  reference  all of the pass before the first step; peak: the higher one of it and a step
  checkpoint on disk, all files together
  main memory
             of a process: while the model is read, or with offload what AdamW keeps, where that is
             more; a machine has it once for each of its processes
  24 GiB ... "yes", or what makes it fit: acc N is train.accumulation, ckpt is
             train.gradient_checkpointing; "no": neither does. A fifth of a card and half a GiB are
             left to CUDA and its allocator
  at once    answers that pairs and answer make at once there; cache: their keys and values

Exit codes: 0 capture, steering and training work, 1 one of them does not (the line says why),
2 a mistake in the arguments or files. Whether it fits does not count. With --plan: 0 there is a
table, 1 the model cannot be aligned (the line says why), 2 as above.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    _check(parser, options)

    def work() -> int:
        if options.plan:
            return _plan(options)
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
    gpu = "judge for a GPU of so much memory instead of this machine; with --plan 24,48,80"
    plan = "the ways to train side by side, and the cards on which they fit"
    workers = "numbers of workers of the plan (default: 1,2,4,8)"
    shard = "of the plan: only what is undivided, or only what is divided (default: both)"
    overlay = "draw its visual anchor into this PNG file (needs weights, and params.yaml here)"
    parser.add_argument("model", metavar="MODEL", help="a folder or a hub id")
    parser.add_argument("--picture", type=Path, metavar="FILE", help=picture)
    parser.add_argument("--params", type=Path, metavar="FILE", help=settings)
    parser.add_argument("--gpu", type=_cards, metavar="GIB", default=[], help=gpu)
    parser.add_argument("--overlay", type=Path, metavar="FILE", help=overlay)
    parser.add_argument("--plan", action="store_true", help=plan)
    parser.add_argument("--pairs", type=_count, metavar="N", help="train.batch_pairs of the plan")
    parser.add_argument("--tokens", type=_count, metavar="N", help="max_new_tokens of the plan")
    parser.add_argument("--workers", type=_counts, metavar="N", help=workers)
    parser.add_argument("--shard", choices=("none", "fsdp"), help=shard)
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
        place = imagined(*options.gpu) if options.gpu else machine(device)
        facts["memory"] = {"params": str(file), **memory_facts(subject, plans, place)}
    if options.overlay:
        from adapt.inspect.overlay import draw

        draw(options.model, options.picture, options.overlay, facts)
    return facts


def _plan(options: argparse.Namespace) -> int:
    """Print the table."""
    from adapt.inspect.plan import Plans
    from adapt.inspect.plan_lines import plan_lines
    from adapt.inspect.ways import CARDS, SHARDS, WORKERS, Asked, planned

    # 1. The settings, and what the command line has in their place.
    file = options.params or PARAMS
    given = {"train.batch_pairs": options.pairs, "max_new_tokens": options.tokens}
    # The first lines are of one number of workers: the first that was asked for.
    given["train.workers"] = options.workers[0] if options.workers else None
    plans = Plans.changed(file, {key: value for key, value in given.items() if value})
    # 2. The table, of a model by its configuration alone.
    asked = Asked(
        cards=options.gpu or CARDS,
        workers=options.workers or WORKERS,
        shards=[options.shard] if options.shard else SHARDS,
    )
    facts = planned(options.model, options.picture, plans, asked)
    told = plan_lines(facts) if "plan" in facts else lines(facts)
    print(json.dumps(facts, indent=2) if options.json else "\n".join(told))
    return 0 if "plan" in facts else 1


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What does not go together ends here, with one line."""
    alone = {"pairs", "tokens", "workers", "shard"}
    lonely = [name for name in sorted(alone) if getattr(options, name) and not options.plan]
    if lonely:
        parser.error(f"--{lonely[0]} goes with --plan")
    if len(options.gpu) > 1 and not options.plan:
        parser.error("several cards go with --plan")
    if options.plan and options.overlay:
        parser.error("--overlay needs weights, which --plan leaves alone")


def _cards(text: str) -> list[float]:
    return [*dict.fromkeys(_gib(one) for one in text.split(","))]


def _counts(text: str) -> list[int]:
    return [*dict.fromkeys(_count(one) for one in text.split(","))]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        given = text or "nothing"
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1000000, not {given}")
    return int(text)


def _gib(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 1 <= size <= 10_000:
        raise argparse.ArgumentTypeError(f"expected 1 to 10000 GiB, not {text}")
    return size


if __name__ == "__main__":
    environment.prepare(Path.cwd())
    raise SystemExit(main())
