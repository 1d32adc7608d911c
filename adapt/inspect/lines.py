"""The report as lines for a reader; `--json` has the same facts for programs."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

UNTRIED = "by its family; there are no weights here to try it with"
PROBES = ("capture", "steering", "training", "several")
WIDTH = 10  # of the words on the left
INDENT = " " * WIDTH
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The report, from what the model is to what it takes."""
    family = facts["family"] or "none that is known"
    yield f"{'family':<{WIDTH}}{family} (model type {facts['model_type']})"
    if "layers" in facts:
        yield from _decoder_lines(facts)
    if "picture" in facts:
        yield from _picture_lines(facts["picture"])
    for probe in PROBES:
        verdict, how = facts[probe], "tried" if facts["weights"] else UNTRIED
        answer = f"yes ({how})" if verdict["supported"] else f"no: {verdict['why']}"
        yield f"{probe:<{WIDTH}}{answer}"
    if "parts" in facts:
        yield from _part_lines(facts["parts"])
    if "memory" in facts:
        yield from _memory_lines(facts["memory"])
    elif "parts" in facts:
        yield f"{'memory':<{WIDTH}}unknown: no params.yaml here; name one with --params"


def _decoder_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    heads = f"{facts['heads']} heads of {facts['head_size']}"
    of_keys = f"{facts['key_value_heads']} of keys and values"
    yield f"{'decoder':<{WIDTH}}{facts['layers']} layers, {heads}, {of_keys}"
    if facts.get("sliding"):
        layers, tokens = facts["sliding"]["layers"], facts["sliding"]["tokens"]
        yield f"{INDENT}{layers} of them see the last {tokens} tokens only, and then no picture"


def _picture_lines(picture: Mapping[str, Any]) -> Iterator[str]:
    width, height = picture["size"]
    where = f"positions {picture['first']} to {picture['last']} of {picture['prompt']}"
    tokens = f"{picture['tokens']} image tokens, {where}"
    yield f"{'picture':<{WIDTH}}{width} x {height} pixels: {tokens}"
    views = Counter((view["kind"], *view["grid"]) for view in picture["views"])
    for (kind, rows, columns), count in views.items():
        board = f"{count} tiles of" if kind == "tile" else "the whole picture in"
        yield f"{INDENT}{board} {rows} x {columns} patches"


def _part_lines(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Of each part its size, what params.yaml does with it, and what LoRA can adapt."""
    for i, (role, part) in enumerate(parts.items()):
        head = "parts" if i == 0 else ""
        state = part.get("state", "")
        yield f"{head:<{WIDTH}}{role:<10}{part['parameters']:>16,} weights  {state}".rstrip()
        if part["linear"] and role != "projector":
            layers = ", ".join(f"{count} {name}" for name, count in part["linear"].items())
            yield f"{INDENT}{'':<10}linear layers: {layers}"


# ---- memory ------------------------------------------------------------------------------------


def _memory_lines(memory: Mapping[str, Any]) -> Iterator[str]:
    """A table of parts by stage, and a line for each stage that says whether it fits."""
    stages, machine = memory["stages"], memory["machine"]
    yield f"{'memory':<{WIDTH}}of one process, by {memory['params']}"
    yield INDENT + f"{'':<12}" + "".join(f"{stage:>12}" for stage in stages)
    names = dict.fromkeys(name for stage in stages.values() for name in stage["parts"])
    for name in names:
        cells = (stage["parts"].get(name, 0) for stage in stages.values())
        yield INDENT + f"{name:<12}" + "".join(f"{size(n) if n else '-':>12}" for n in cells)
    totals = "".join(f"{size(stage['total']):>12}" for stage in stages.values())
    yield INDENT + f"{'total':<12}" + totals
    for name, stage in stages.items():
        yield f"{name:<{WIDTH}}{stage['what']}: {_verdict(stage, machine)}"
    disk = memory["disk"]
    sizes = f"a checkpoint {size(disk['checkpoint'])}, up to {size(disk['kept'])} at once"
    yield f"{'disk':<{WIDTH}}{sizes}; the trained model {size(disk['result'])}"


def _verdict(stage: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    within = f"{size(stage['limit'])} of {machine['name']} ({size(machine['bytes'])})"
    if stage["fits"]:
        return f"fits into {within}"
    problem = f"does not fit into {within}"
    advice, auto = stage["advice"], stage["auto"]
    if not advice:
        return f"{problem}, nor with the smallest settings"
    if set(advice) <= set(auto):
        return f"fits into {within}: {needed(advice, auto)}"
    return f"{problem}; it does {needed(advice, auto)}"


def needed(advice: Mapping[str, Any], auto: Collection[str]) -> str:
    """Which settings to change, and which of them change by themselves; "" for none of either.

    >>> needed({"train.lora.rank": 16, "train.accumulation": 3}, ["train.accumulation"])
    'with train.lora.rank: 16, and train.accumulation: auto becomes 3'
    >>> needed({"train.gradient_checkpointing": True}, [])
    'with train.gradient_checkpointing: true'
    """
    asked = [f"{key}: {_yaml(value)}" for key, value in advice.items() if key not in auto]
    found = [f"{key}: auto becomes {_yaml(advice[key])}" for key in advice if key in auto]
    parts = [f"with {' and '.join(asked)}"] if asked else []
    parts += [" and ".join(found)] if found else []
    return ", and ".join(parts)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def size(count: int) -> str:
    """Bytes in the unit that shows at least one of them.

    >>> size(3 * 2**30 + 2**29), size(900)
    ('3.5 GiB', '900 bytes')
    """
    for unit, name in UNITS:
        if abs(count) >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
