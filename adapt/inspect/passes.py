"""One forward and backward of training in numbers; letters as in `memory.py`."""

import dataclasses

from adapt.inspect.sizes import Sizes
from adapt.preference.settings import Optimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass of one process.

    `pairs` of answers of `answer` tokens; `trained`: weights that have a gradient, adapters with
    them; `optimizer`: what changes these, and `factored`: numbers that Adafactor keeps of them;
    `visits`: numbers of the largest of their tensors where AdamW's moments come for an update only,
    else 0, and `away`: whether they live in another memory than the device's;
    `adapters`: those of LoRA; `ranks`: of all layers that it adapts, added up; `adapted`:
    their inputs, of those of all linear layers of their part, a share; `layers`: how many are
    supervised. `stored`: bytes of a weight; `each`: bytes of an
    activation, smaller than `stored` under autocast. `passes`: forwards with a backward before an
    update; `divided`: whether the processes share weights, gradients and optimizer (FSDP);
    `shares`: whether the two answers of a pair share their prompt; `guided`: whether there
    is a pass over guided pictures; `kept`: rows of the pass over plain rows, 0 for none;
    `distilled`: whether that is held to the base's distributions; `fused`: whether Triton's kernels
    fold tiles of logits, as on CUDA; `trains_head`, `trains_tower`: whether these have gradients.
    """

    pairs: int
    answer: int
    trained: int
    optimizer: Optimizer
    factored: int
    visits: int
    away: bool
    adapters: int
    ranks: int
    adapted: float
    layers: int
    stored: float
    each: int
    passes: int
    processes: int
    divided: bool
    checkpointing: bool
    shares: bool
    guided: bool
    kept: int
    distilled: bool
    fused: bool
    trains_head: bool
    trains_tower: bool


def shapes(sizes: Sizes, plan: Pass) -> tuple[tuple[int, int], ...]:
    """(sequences, tokens of each) of the plain pass, of the guided one and of that over plain rows.

    No sequence where there is no such pass. The word that stands twice in a shared sequence is the
    prompt's last one.
    """
    length = sizes.prompt + plan.answer
    shared = (plan.pairs, sizes.prompt + 2 * plan.answer + 1)
    plain = shared if plan.shares else (2 * plan.pairs, length)
    return plain, (2 * plan.pairs if plan.guided else 0, length), (plan.kept, length)
