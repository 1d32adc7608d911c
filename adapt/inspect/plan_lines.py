"""The table of `--plan` as lines for a reader, and as cells for other tables."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from adapt.inspect.lines import needed
from adapt.inspect.machine import GIB
from adapt.inspect.memory import total

# Columns by the parts of `training.step` and of `memory.decoding`.
TRAINING: tuple[str, ...] = ("weights", "autocast", "gradients", "optimizer", "gathered")
TRAINING += ("activations", "capture", "logits")
DECODING = ("weights", "cache", "capture", "logits", "working")
NOTHING = "-"
SHORT = {"train.accumulation": "acc", "train.gradient_checkpointing": "ckpt"}


def plan_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """What fits as it is set, or what would; then the table."""
    plan = facts["plan"]
    yield f"{facts['model']}: {plan['weights'] / 1e9:.2f} billion weights; {_rows(plan)}"
    tower = f"full training has its vision tower {_TOWER[plan['full_tower']]}"
    yield f"LoRA of rank {plan['rank']}; {tower}; section train with {plan['workers']} workers:"
    for card, advice in plan["as_set"].items():
        yield f"{card + ' GiB':<9}{_as_set(advice, plan['auto'])}"
    yield ""
    yield from _aligned(training_cells(plan))
    if plan["left_out"]:
        numbers = ", ".join(map(str, plan["left_out"]))
        yield f"left out: {numbers} workers, among whom the rows of a step do not divide"
    yield ""
    yield from _aligned(decoding_cells(plan))
    yield "GiB of one process. What each column is: --help"


_TOWER = {"full": "trained", "frozen": "frozen", "lora": "frozen"}


def _rows(plan: Mapping[str, Any]) -> str:
    kept = f" and {plan['keep_rows']} plain rows" if plan["keep_rows"] else ""
    prompt, answer = plan["prompt_tokens"], plan["answer_tokens"]
    return f"{plan['batch_pairs']} pairs{kept} a step, prompts of {prompt} tokens, answers {answer}"


def _as_set(advice: Mapping[str, Any] | None, auto: Collection[str]) -> str:
    if advice is None:
        return "section train does not fit, nor with the smallest settings"
    if set(advice) <= set(auto):
        return "; ".join(["section train fits as it is", *filter(None, [needed(advice, auto)])])
    return f"section train fits {needed(advice, auto)}"


def training_cells(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """The ways to train, a row each, as words and numbers under their heads; in GiB."""
    used = [n for n in TRAINING if any(row["parts"].get(n) for row in plan["rows"])]
    return [
        {
            "way": row["way"],
            "shard": row["shard"],
            "workers": str(row["workers"]),
            "pairs": str(row["pairs"]),
            **{name: _gib(row["parts"].get(name, 0)) for name in used},
            "step": _gib(total(row["parts"])),
            "reference": _gib(row["reference"]),
            "peak": _gib(row["peak"]),
            "checkpoint": _gib(row["checkpoint"]),
            "main memory": _gib(row["main_memory"]),
            **{f"{card} GiB": _fits(change) for card, change in row["fits"].items()},
        }
        for row in plan["rows"]
    ]


def _fits(change: Mapping[str, Any] | None) -> str:
    """What a card needs: nothing ("yes"), smaller passes or checkpointing, or more than that."""
    if change is None:
        return "no"
    words = [SHORT[key] + (f" {n}" if n is not True else "") for key, n in change.items()]
    return ", ".join(words) or "yes"


def decoding_cells(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """What `pairs` and `answer` take, a row for each card."""
    return [
        {
            "stage": one["stage"],
            "card": f"{one['card']} GiB",
            "at once": one["what"].partition(" ")[0],
            **{name: _gib(one["parts"][name]) for name in DECODING},
            "peak": _gib(one["peak"]),
            "fits": _decodes(one),
        }
        for one in plan["decoding"]
    ]


def _decodes(one: Mapping[str, Any]) -> str:
    if one["fits"]:
        return "yes"
    return ", ".join(f"{key}: {value}" for key, value in one["advice"].items()) or "no"


def _gib(count: int) -> str:
    """Bytes in GiB, nothing as a dash.

    >>> _gib(3 * 2**30 + 2**29), _gib(0)
    ('3.5', '-')
    """
    return f"{count / GIB:.1f}" if count else NOTHING


def _aligned(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Words to the left, numbers to the right, under their heads."""
    lines = [dict(zip(rows[0], rows[0], strict=True)), *rows] if rows else []
    width = {head: max(len(line[head]) for line in lines) for head in lines[0]} if lines else {}
    words = {"way", "shard", "stage", "card"}
    for line in lines:
        cells = [
            cell.ljust(width[head]) if head in words else cell.rjust(width[head])
            for head, cell in line.items()
        ]
        yield "  ".join(cells).rstrip()
