"""How long texts are: in tokens of the model that params.yaml names, or else in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from adapt.params import InputError, plain, shown

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Measure:
    """Counts tokens, or words where there is no tokenizer; `why` says which and why."""

    unit: str
    why: str
    tokenizer: Tokenizer | None = None

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """The length of each text."""
        if self.tokenizer is None:
            return [len(text.split()) for text in texts]
        found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(one) for one in found]


def measure(params: Mapping[str, Any], workspace: Path) -> Measure:
    """The tokens of `base.source` if that is a folder of this machine that has its tokenizer.

    Its weights are not read, and nothing is fetched. InputError for a damaged tokenizer.
    """
    base = params.get("base")
    named = base.get("source") if isinstance(base, Mapping) else None
    path = workspace / str(named) / TOKENIZER
    if not isinstance(named, str) or not path.is_file():
        why = f"base.source, {shown(named)}, is no folder with a {TOKENIZER}"
        return Measure("words", why)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{path}: {plain(str(error))}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Measure("tokens", f"of base.source, {plain(named)}", tokenizer)


def spread(values: Sequence[int] | Sequence[float]) -> dict[str, float] | None:
    """Least, median, 95th percentile, and greatest; None of nothing.

    >>> spread([1, 2, 3, 4, 100])
    {'min': 1, 'median': 3, 'p95': 100, 'max': 100}
    """
    if not len(values):
        return None
    shares = {"min": 0, "median": 50, "p95": 95, "max": 100}
    found = np.percentile(values, [*shares.values()], method="higher")
    return dict(zip(shares, found.tolist(), strict=True))
