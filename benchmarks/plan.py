"""What 7B, 13B and 32B take, and which cards they fit: the tables of docs/scale.md.

    python -m benchmarks.plan

Makes folders of configuration and processor by the published sizes (`benchmarks/shapes.py`) without
a network, and asks what `python -m adapt.inspect FOLDER --plan` asks, by params.yaml but for the
length of answers. Beside it what was measured on a GPU at these sizes, by the dated files that are
named, against what is worked out for the same batch.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from adapt import params
from adapt.inspect import memory, training
from adapt.inspect.estimate import Subject
from adapt.inspect.machine import GIB, imagined
from adapt.inspect.memory import FP32
from adapt.inspect.passes import Pass, shapes
from adapt.inspect.plan import Plans
from adapt.inspect.plan_lines import decoding_cells, training_cells
from adapt.inspect.probes import report
from adapt.inspect.sizes import Sizes
from adapt.inspect.train_plan import pass_of
from adapt.inspect.ways import Asked, planned
from benchmarks.shapes import PLANNED, described
from benchmarks.sides import arguments, progress, table, write

ROOT = Path(__file__).parents[1]
TOKENS = 128
# Peaks in GiB of a step of two pairs with LoRA of rank 64, and of 16 answers with capture. Answers
# of the steps: 125, 78, 121 and 94 tokens; a shared sequence is 215 long behind its prompt. These
# steps ran without autocast, which training has: see `outside`.
STEPS = "on_gpu_nvidia-h100-80gb-hbm3_2026-11-26.md"
ANSWERS = "on_gpu_nvidia-h200_2026-11-27.md"
DPO = {"w_vag": 0.0, "w_sft": 0.0, "w_attn": 0.0}
ALL = {"w_vag": 1.0, "vag_form": "paper", "w_sft": 1.0, "w_attn": 0.1}
TRAINED = [
    ("llava", "LoRA step, dpo", DPO, 107, 28.2),
    ("llava", "LoRA step, all terms", ALL, 125, 39.3),
    ("qwen", "LoRA step, dpo", DPO, 107, 29.8),
    ("qwen", "LoRA step, all terms", ALL, 125, 38.7),
]
DECODED = [
    ("llava", 256, 20.1, STEPS),
    ("llava", 128, 19.1, ANSWERS),
    ("qwen", 256, 17.1, STEPS),
    ("qwen", 128, 17.1, ANSWERS),
]


def folder_of(name: str, parent: Path) -> tuple[Path, Path]:
    """A folder with configuration and processor, and a picture of the usual size."""
    folder, case = parent / name, PLANNED[name]
    config, processor = described(case, tiny=False)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    picture = folder / "picture.png"
    case.pictures(1, tiny=False)[0].save(picture)
    return folder, picture


def settings(train: Mapping[str, Any]) -> Plans:
    """params.yaml with answers of TOKENS and these keys of section `train`."""
    content = params.read(ROOT / "params.yaml")
    content["train"] |= train
    return Plans.of(content | {"max_new_tokens": TOKENS}, "params.yaml")


def measured(subjects: Mapping[str, Subject]) -> Iterator[dict[str, str]]:
    """What was measured on a GPU beside what is worked out."""
    card = imagined(80)
    for name, what, weights, tokens, peak in TRAINED:
        fixed = {"workers": 0, "batch_pairs": 2, "w_dpo": 1.0, "w_keep": 0.0, "tower": "frozen"}
        lora = {**params.read(ROOT / "params.yaml")["train"]["lora"], "rank": 64}
        plans = settings({**fixed, **weights, "lora": lora})
        sizes = subjects[name].sizes
        plan = pass_of(subjects[name], plans.train, tokens, card)
        expected = memory.total(training.step(sizes, plan))
        yield _beside(name, what, expected + outside(sizes, plan), peak, STEPS)
    for name, tokens, peak, source in DECODED:
        batch = memory.Decoding(rows=16, answer=tokens, anchor_tokens=5, each=2, is_sampled=False)
        parts = memory.decoding(subjects[name].sizes, batch)
        yield _beside(name, f"16 answers of {tokens} tokens", memory.total(parts), peak, source)


def outside(sizes: Sizes, plan: Pass) -> int:
    """Bytes that a step of 16-bit weights and fp32 adapters takes more without autocast.

    Each adapted layer keeps its input in fp32 and what its two halves exchange; no casts of
    adapters. The benchmark of the steps above had its forward outside of what accelerate wraps.
    """
    tokens = max(math.prod(shape) for shape in shapes(sizes, plan))
    more = (FP32 - plan.each) * (plan.adapted * sizes.decoder.inputs + plan.ranks)
    return round(tokens * more) - training.casts(sizes, plan, kept=True)


def _beside(name: str, what: str, expected: int, peak: float, source: str) -> dict[str, str]:
    return {
        "model": PLANNED[name].name,
        "what": what,
        "expected": f"{expected / GIB:.1f}",
        "measured": f"{peak:.1f}",
        "ratio": f"{expected / GIB / peak:.2f}",
        "measured by": source,
    }


def cards(tables: Mapping[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    """A row for each way: the cards of all models on which it fits."""
    rows = []
    for lines in zip(*tables.values(), strict=True):
        row = {head: lines[0][head] for head in ("way", "shard", "workers")}
        for name, line in zip(tables, lines, strict=True):
            fits = [cell for head, cell in line.items() if head.endswith(" GiB")]
            row[PLANNED[name].name] = " / ".join(fits)
        rows.append(row)
    return rows


def main() -> None:
    """Work out, print and write."""
    models = ["llava", "llava-13b", "qwen-32b"]
    parser = arguments(__doc__.splitlines()[0], list(PLANNED), models, repeats=1)
    options = parser.parse_args()
    asked, plans, subjects = Asked(), settings({}), {}
    notes, tables = [], {}
    with tempfile.TemporaryDirectory() as parent:
        for name in PLANNED:
            folder, picture = folder_of(name, Path(parent))
            _, subjects[name] = report(str(folder), picture, torch.device("cpu"), tried=False)
            if name not in options.sizes:
                continue
            plan = planned(str(folder), picture, plans, asked)["plan"]
            tables[name] = training_cells(plan)
            about = f"{plan['weights'] / 1e9:.2f} billion weights, prompts of"
            about += f" {plan['prompt_tokens']} tokens, answers of {plan['answer_tokens']}"
            parts = [table(tables[name]), "", table(decoding_cells(plan)), ""]
            notes += [f"## {PLANNED[name].name}: {about}; GiB", "", *parts]
            progress(f"{name}: {len(tables[name])} ways")
        beside = [*measured(subjects)]
    notes += ["## Measured on a GPU beside it; GiB", "", table(beside), ""]
    sizes = " / ".join(f"{size:g}" for size in asked.cards)
    notes += [f"## Whether it fits a card of {sizes} GiB", ""]
    notes += ["`acc N`: with train.accumulation, `ckpt`: with train.gradient_checkpointing."]
    about = f"Worked out, nothing was run: params.yaml with answers of {TOKENS} tokens, "
    about += f"{plans.train.batch_pairs} pairs and {plans.train.keep_rows} plain rows a step."
    write("plan", "What each way to train takes", [about, "", *notes], cards(tables), options)


if __name__ == "__main__":
    main()
