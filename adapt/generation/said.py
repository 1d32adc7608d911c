"""One answer as it goes into the tables: its text, where it looked, and its signals by token.

It holds no tensor of the batch that it was made in, so that it can be kept (`kept.py`) and be put
into a table next to answers of other runs.

Shapes: B answers, T generated tokens, L layers, N image tokens, M cells of a grid over a picture.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from adapt.attention.layout import Grid
from adapt.attention.places import places_of
from adapt.attention.settings import PRELIM, SIGNALS, SIMILARITY
from adapt.attention.support import picture_map
from adapt.data.schema import Example
from adapt.generation.answer import Answers
from adapt.generation.written import token_ends
from adapt.metrics.split import FREE

_COLUMNS = {
    **{"position": np.int64, "relative": np.float64, "length": np.int64, "end": np.int64},
    **dict.fromkeys((*SIGNALS, "fired", "svar", "logprob", *PRELIM, *SIMILARITY), np.float32),
}
Sizes = tuple[tuple[int, int], ...]  # (width, height) of the pictures of one prompt
Maps = list[list[NDArray[Any]]]  # of each token, a map [M] of each picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """One answer of `length` tokens.

    heats   mean attention over tokens and layers to each cell of a grid over each picture, [M]
    grids   (rows, columns) of each of these grids
    tokens  columns of the token table, each [T]; none for an answer of a few words
    maps    where each token looked; None unless they were wanted
    views   the grids of image tokens in the prompt, and `sizes` of its pictures
    """

    text: str
    length: int
    heats: list[NDArray[Any]]
    grids: list[list[int]]
    tokens: dict[str, NDArray[Any]]
    maps: Maps | None
    views: tuple[Grid, ...]
    sizes: Sizes


class Listener:
    """Takes the answers of a batch apart; `anchor_tokens` is K."""

    def __init__(self, model: Any, processor: Any, anchor_tokens: int) -> None:
        self._model, self._processor, self._K = model, processor, anchor_tokens

    def heard(self, answers: Answers, signals: bool, traced: Sequence[bool]) -> list[Said]:
        """Each answer of the batch; `signals`: with columns by token, `traced`: with its maps."""
        none: dict[str, NDArray[Any]] = {}
        columns = self.columns(answers) if signals else [none] * len(answers.texts)
        parts = enumerate(zip(columns, traced, strict=True))
        return [self._said(answers, i, tokens, of) for i, (tokens, of) in parts]

    def _said(
        self, answers: Answers, i: int, tokens: dict[str, NDArray[Any]], traced: bool
    ) -> Said:
        places = places_of(self._model.config, self._processor, answers.sizes[i])
        length, views = int(answers.mask_BT[i].sum()), answers.layout.of(i)
        # An empty answer looked somewhere too: at the step that chose to end it.
        heat_TN = answers.heat_BTN[i, : max(length, 1)].float().cpu()
        mean = picture_map(heat_TN.mean(0), views, places)
        maps: Maps | None = None
        if traced:
            by_token = [heat_TM for heat_TM, _ in picture_map(heat_TN[:length], views, places)]
            maps = [list(one) for one in zip(*by_token, strict=True)]
        return Said(
            text=answers.texts[i],
            length=length,
            heats=[heat_M for heat_M, _ in mean],
            grids=[list(grid) for _, grid in mean],
            tokens=tokens,
            maps=maps,
            views=tuple(view.grid for view in views),
            sizes=tuple(answers.sizes[i]),
        )

    def columns(self, answers: Answers) -> list[dict[str, NDArray[Any]]]:
        """The columns of the token table, for each answer of the batch."""
        counts_B = answers.layout.counts_B
        assert answers.similarity_BTPM.shape[2], "decoded with similarity"
        # Places one after the other, the measures of each side by side: as in the names.
        similarity_FBT = answers.similarity_BTPM.flatten(2).movedim(2, 0)
        values_BT = answers.signals(counts_B, answers.mask_BT, self._K) | {
            "fired": answers.fired_BTL.float().mean(2),
            "svar": svar(answers.mass_BTL),
            "logprob": answers.logprob_BT,
            "pas": answers.prelim_BTL[:, :, 0],
            "prelim": answers.prelim_BTL.mean(2),
            **dict(zip(SIMILARITY, similarity_FBT, strict=True)),
        }
        values = {name: value_BT.float().cpu().numpy() for name, value_BT in values_BT.items()}
        every = []
        for b, length in enumerate(answers.mask_BT.sum(1).tolist()):
            position = np.arange(length)
            columns = {"position": position, "relative": position / max(length - 1, 1)}
            columns["length"] = np.full(length, length)
            ends = token_ends(self._processor.tokenizer, answers.tokens_BT[b, :length].tolist())
            # Whole numbers also of an empty answer, or the column becomes one of objects.
            columns["end"] = np.array(ends, dtype=np.int64)
            every.append(columns | {name: of_BT[b, :length] for name, of_BT in values.items()})
        return every


def svar(mass_BTL: Tensor) -> Tensor:
    """Summed visual attention ratio (arXiv 2411.16724): visual mass of the middle layers, [B, T].

    The paper takes layers 5 to 18 of 32; here it is the middle third, at least one layer. The
    masses of three layers are 0.25, 0.75 and 0.5:

    >>> svar(Tensor([[[0.25, 0.75, 0.5]]]))
    tensor([[0.7500]])
    """
    L = mass_BTL.shape[2]
    return mass_BTL[:, :, L // 3 : math.ceil(2 * L / 3)].mean(2)


# ---- tables ------------------------------------------------------------------------------------


def response_row(row: Example, said: Said) -> dict[str, Any]:
    """A row of the table of responses."""
    asked = {key: getattr(row, key) for key in ("id", "image_id", "kind", "question")}
    texts = {"reference": row.answer, "response": said.text, "tokens": said.length}
    return asked | texts | {"heats": said.heats, "grids": said.grids}


def token_table(rows: Sequence[Example], said: Mapping[str, Said]) -> pd.DataFrame:
    """A row per token of the free answers."""
    parts = [
        pd.DataFrame({"id": row.id, "image_id": row.image_id, **said[row.id].tokens})
        for row in rows
        if row.kind in FREE
    ]
    # Columns have their types also where nothing was said freely.
    none = {name: np.array([], dtype) for name, dtype in _COLUMNS.items()}
    ids = {name: pd.Series([], dtype="str") for name in ("id", "image_id")}
    return pd.concat(parts or [pd.DataFrame({**ids, **none})], ignore_index=True)
