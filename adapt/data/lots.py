"""Some of many questions, by a draw that hangs on their names and a seed alone."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate

from adapt.data.schema import Example

Unit = Callable[[Example], str]


def alone(question: Example) -> str:
    """The unit of a question that comes without others."""
    return question.id


def drawn(asked: Sequence[Example], limit: int, seed: int, unit: Unit = alone) -> list[Example]:
    """So many questions in their order, each by a draw of its own: a larger limit adds to them.

    Those of one `unit` come together; the last unit may exceed the limit.
    """
    sizes = Counter(map(unit, asked))
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    before = accumulate((sizes[name] for name in order), initial=0)
    chosen = {name for name, count in zip(order, before, strict=False) if count < limit}
    return [one for one in asked if unit(one) in chosen]
