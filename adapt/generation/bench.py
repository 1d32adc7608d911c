"""A model asked every question of a split: its answers, and its attention by token, as tables.

Nothing is judged here. What is hallucinated, the curves and the early warning are worked out from
these tables alone (`adapt/evaluation`), so that a changed metric or plot costs no generation.

    responses   a row per answer: arm, steered, split, id, image_id, kind, question, reference,
                response, tokens (how many), heats (for each picture, mean attention over tokens
                and layers to each cell of a grid over it) and grids (rows, columns of each)
    tokens      a row per generated token of a description: arm, split, id, image_id, position,
                relative (0 first, 1 last), length (of its answer, in tokens), end (where it ends in
                the answer, in characters), fired (share of layers that were steered), the
                degradation signals, svar and logprob (nats)
    traces      a row per token of the longest descriptions: id, position, heats (as above, of one
                token)

A grid over a picture is that of its patches where these cover it, else a raster
(`adapt/attention/support.py`).

Shapes: B answers, T generated tokens, L layers, N image tokens, M cells of a grid.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from adapt.attention.layout import View
from adapt.attention.places import Place, places_of
from adapt.attention.support import picture_map
from adapt.data.schema import KINDS, Example
from adapt.generation.answer import Answers, Decoding
from adapt.generation.batches import answered, prompt_of
from adapt.generation.debias import Debias
from adapt.generation.settings import Config, SteerConfig
from adapt.models.device import generation_dtype, resolve
from adapt.models.identity import content_key
from adapt.models.load import load_model, load_processor
from adapt.models.prompts import prompt_version
from adapt.params import InputError
from adapt.progress import track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """The answers of one or several arms; see the module docstring."""

    responses: pd.DataFrame
    tokens: pd.DataFrame
    traces: pd.DataFrame

    @classmethod
    def joined(cls, parts: "Sequence[Tables]") -> "Tables":
        """The rows of all parts."""
        names = [field.name for field in dataclasses.fields(cls)]
        columns = {name: [getattr(part, name) for part in parts] for name in names}
        return cls(**{name: pd.concat(c, ignore_index=True) for name, c in columns.items()})

    def write(self, folder: Path) -> None:
        """`responses.parquet`, `tokens.parquet` and `traces.parquet`."""
        for field in dataclasses.fields(self):
            getattr(self, field.name).to_parquet(folder / f"{field.name}.parquet", index=False)


class Bench:
    """A loaded model and the questions it is asked; debias masks are estimated once for all arms.

    `state` is the folder that keeps them. Raises InputError for rows without a description:
    hallucination is counted in descriptions.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        rows: Sequence[Example],
        config: Config,
        state: Path | None = None,
    ) -> None:
        device = resolve(config.device)
        self.model = load_model(folder, device, generation_dtype(device))
        self.processor, self.config, self._state = load_processor(folder), config, state
        self._seat(split, rows)

    def turned_to(self, split: str, rows: Sequence[Example]) -> "Bench":
        """The same model, which is not loaded again, before the questions of another split."""
        other = copy.copy(self)
        other._seat(split, rows)
        return other

    def _seat(self, split: str, rows: Sequence[Example]) -> None:
        # Answers of one kind are about equally long: a batch of them pads little.
        by_kind = [sorted((r for r in rows if r.kind == k), key=lambda r: r.id) for k in KINDS]
        describe = by_kind[0]
        if not describe:
            problem = "the split has no describe questions"
            raise InputError(f"{problem}; hallucination is counted in descriptions")
        self.split, self.by_kind = split, by_kind
        config, questions = self.config, sorted({row.question for row in describe})
        asked = (self.model, self.processor, questions, config.anchor, config.seed)
        self.debias = Debias(*asked, folder=self._state, batch=config.batch)

    def weights(self) -> str:
        """A name for the weights that answer, the same wherever they lie."""
        return content_key(self.model, {})

    def prompt(self) -> str:
        """The version of the prompt in which they are asked."""
        return prompt_version(self.processor)

    def ask(self, arm: str, steer: SteerConfig | None, traces: int = 0) -> Tables:
        """Answer every question of the split as `arm`; `steer` None is plain decoding.

        `traces`: of how many descriptions, the longest, attention is kept token by token.
        """
        responses: list[dict[str, Any]] = []
        tokens: list[pd.DataFrame] = []
        longest: list[_Trace] = []
        total = sum(map(len, self.by_kind))
        parts = track(self._answered(steer), f"answering as {arm}", total, lambda p: len(p[0]))
        for batch, answers in parts:
            looks = [self._look(answers, i) for i in range(len(batch))]
            responses += [_response(row, answers, i, looks[i]) for i, row in enumerate(batch)]
            if batch[0].kind == "describe":
                tokens.append(self._token_table(batch, answers))
                longest += [_Trace(row.id, look) for row, look in zip(batch, looks, strict=True)]
                longest = sorted(longest, key=lambda one: (-one.length, one.id))[:traces]
        labels = {"arm": arm, "split": self.split}
        return Tables(
            responses=pd.DataFrame(responses).assign(**labels, steered=steer is not None),
            tokens=pd.concat(tokens, ignore_index=True).assign(**labels),
            traces=_trace_table(longest),
        )

    def _answered(self, steer: SteerConfig | None) -> Iterator[tuple[Sequence[Example], Answers]]:
        decoding = Decoding(
            anchor_tokens=self.config.anchor.anchor_tokens,
            max_new_tokens=self.config.max_new_tokens,
            debias=self.debias,
            steer=steer,
        )
        asked = (decoding, self.config.batch, prompt_of, "answer.batch")
        for rows in self.by_kind:
            yield from answered(self.model, self.processor, rows, *asked)

    def _look(self, answers: Answers, i: int) -> "_Look":
        places = places_of(self.model.config, self.processor, answers.sizes[i])
        # An empty answer looked somewhere too: at the step that chose to end it.
        length = int(answers.mask_BT[i].sum())
        heat_TN = answers.heat_BTN[i, : max(length, 1)].float().cpu()
        return _Look(heat_TN, length, answers.layout.of(i), places)

    def _token_table(self, batch: Sequence[Example], answers: Answers) -> pd.DataFrame:
        counts_B, K = answers.layout.counts_B, self.config.anchor.anchor_tokens
        values_BT = answers.signals(counts_B, answers.mask_BT, K) | {
            "fired": answers.fired_BTL.float().mean(2),
            "svar": svar(answers.mass_BTL),
            "logprob": answers.logprob_BT,
        }
        values = {name: value_BT.float().cpu().numpy() for name, value_BT in values_BT.items()}
        tables = []
        for b, row in enumerate(batch):
            length = int(answers.mask_BT[b].sum())
            position = np.arange(length)
            places = {"position": position, "relative": position / max(length - 1, 1)}
            columns = {"id": row.id, "image_id": row.image_id, **places, "length": length}
            tokens = answers.tokens_BT[b, :length].tolist()
            # Whole numbers also of an empty answer, or the column becomes one of objects.
            ends = token_ends(self.processor.tokenizer, tokens)
            columns["end"] = np.array(ends, dtype=np.int64)
            columns |= {name: value_BT[b, :length] for name, value_BT in values.items()}
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)


@dataclasses.dataclass(frozen=True)
class _Look:
    """Where an answer of `length` tokens looked, token by token, and what the image tokens see."""

    heat_TN: Tensor
    length: int
    views: Sequence[View]
    places: Sequence[Sequence[Place]]

    def mean(self) -> tuple[list[np.ndarray], list[list[int]]]:
        """Mean over tokens for each picture, [M], and the (rows, columns) of each."""
        maps = picture_map(self.heat_TN.mean(0), self.views, self.places)
        return [heat_M for heat_M, _ in maps], [list(grid) for _, grid in maps]

    def by_token(self) -> list[list[np.ndarray]]:
        """For each token, a map [M] of each picture."""
        maps = picture_map(self.heat_TN[: self.length], self.views, self.places)
        return [list(one) for one in zip(*(heat_TM for heat_TM, _ in maps), strict=True)]


@dataclasses.dataclass(frozen=True)
class _Trace:
    id: str
    look: _Look

    @property
    def length(self) -> int:
        return self.look.length


def _response(row: Example, answers: Answers, i: int, look: _Look) -> dict[str, Any]:
    asked = {key: getattr(row, key) for key in ("id", "image_id", "kind", "question")}
    texts = {"reference": row.answer, "response": answers.texts[i], "tokens": look.length}
    heats, grids = look.mean()
    return asked | texts | {"heats": heats, "grids": grids}


def token_ends(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Where each token ends in the decoded text, in characters: `len(decode(tokens[: t + 1]))`."""
    starts = [tokens[: t + 1] for t in range(len(tokens))]
    return [len(tokenizer.decode(start, skip_special_tokens=True)) for start in starts]


def svar(mass_BTL: Tensor) -> Tensor:
    """Summed visual attention ratio (arXiv 2411.16724): visual mass of the middle layers, [B, T].

    The paper takes layers 5 to 18 of 32; here it is the middle third, at least one layer. The
    masses of three layers are 0.25, 0.75 and 0.5:

    >>> svar(Tensor([[[0.25, 0.75, 0.5]]]))
    tensor([[0.7500]])
    """
    L = mass_BTL.shape[2]
    return mass_BTL[:, :, L // 3 : math.ceil(2 * L / 3)].mean(2)


def _trace_table(longest: Sequence[_Trace]) -> pd.DataFrame:
    rows = [(one.id, t, heats) for one in longest for t, heats in enumerate(one.look.by_token())]
    return pd.DataFrame(rows, columns=["id", "position", "heats"])
