"""A model asked every question of a split: its answers, and its attention by token, as tables.

Nothing is judged here. What is hallucinated, the curves and the early warning are worked out from
these tables alone (`adapt/evaluation`), so that a changed metric or plot costs no generation.

    responses   a row per answer: arm, steered, split, id, image_id, kind, question, reference,
                response, tokens (how many), heat (mean attention to each patch over tokens and
                layers) and grid (rows, columns)
    tokens      a row per generated token of a description: arm, split, id, image_id, position,
                relative (0 first, 1 last), length (of its answer, in tokens), end (where it ends in
                the answer, in characters), fired (share of layers that were steered), the
                degradation signals, svar and logprob (nats)
    traces      a row per token of the longest descriptions: id, position, heat (attention to each
                patch, mean over layers)

Shapes: B answers, T generated tokens, L layers, N image tokens.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from adapt.attention.signals import all_signals
from adapt.data.schema import KINDS, Example, open_images
from adapt.generation.answer import Answers, Decoding, answer, answer_anchors
from adapt.generation.debias import debias_masks
from adapt.generation.settings import Config, SteerConfig
from adapt.models.identity import content_key
from adapt.models.load import load_model, load_processor
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

    Raises InputError for rows without a description: hallucination is counted in descriptions.
    """

    def __init__(self, folder: Path, split: str, rows: Sequence[Example], config: Config) -> None:
        self.model, self.processor, self.config = load_model(folder), load_processor(folder), config
        self._seat(split, rows)

    def turned_to(self, split: str, rows: Sequence[Example]) -> "Bench":
        """The same model, which is not loaded again, before the questions of another split."""
        other = copy.copy(self)
        other._seat(split, rows)
        return other

    def _seat(self, split: str, rows: Sequence[Example]) -> None:
        by_kind = [sorted((r for r in rows if r.kind == k), key=lambda r: r.id) for k in KINDS]
        describe, n = by_kind[0], self.config.batch
        if not describe:
            problem = "the split has no describe questions"
            raise InputError(f"{problem}; hallucination is counted in descriptions")
        self.split = split
        # Answers of one kind are about equally long: a batch of them pads little.
        self.batches = [part[i : i + n] for part in by_kind for i in range(0, len(part), n)]
        questions, size = (
            sorted({row.question for row in describe}),
            open_images(describe[0])[0].size,
        )
        both = (self.model, self.processor)
        self.debias = debias_masks(*both, questions, size, self.config.anchor, self.config.seed)

    def weights(self) -> str:
        """A name for the weights that answer, the same wherever they lie."""
        return content_key(self.model, {})

    def ask(self, arm: str, steer: SteerConfig | None, traces: int = 0) -> Tables:
        """Answer every question of the split as `arm`; `steer` None is plain decoding.

        `traces`: of how many descriptions, the longest, attention is kept token by token.
        """
        decoding = Decoding(
            anchor_tokens=self.config.anchor.anchor_tokens,
            max_new_tokens=self.config.max_new_tokens,
            debias=self.debias,
            steer=steer,
        )
        responses: list[dict[str, Any]] = []
        tokens: list[pd.DataFrame] = []
        longest: list[tuple[int, str, np.ndarray]] = []
        for batch in track(self.batches, f"answering as {arm}"):
            images, questions = [open_images(row) for row in batch], [row.question for row in batch]
            answers = answer(self.model, self.processor, images, questions, decoding)
            responses += [_response(row, answers, i) for i, row in enumerate(batch)]
            if batch[0].kind == "describe":
                tokens.append(self._token_table(batch, answers))
                longest += _heat_by_token(batch, answers) if traces else []
                longest = sorted(longest, key=lambda one: (-one[0], one[1]))[:traces]
        labels = {"arm": arm, "split": self.split}
        return Tables(
            responses=pd.DataFrame(responses).assign(**labels, steered=steer is not None),
            tokens=pd.concat(tokens, ignore_index=True).assign(**labels),
            traces=_trace_table(longest),
        )

    def _token_table(self, batch: Sequence[Example], answers: Answers) -> pd.DataFrame:
        K = self.config.anchor.anchor_tokens
        anchor_BN = answer_anchors(answers, K, self.debias)
        values_BT = all_signals(answers.maps_BTLN.cpu(), anchor_BN.cpu(), K) | {
            "fired": answers.fired_BTL.float().mean(2),
            "svar": svar(answers.maps_BTLN),
            "logprob": answers.logprob_BT,
        }
        values = {name: value_BT.cpu().numpy() for name, value_BT in values_BT.items()}
        tables = []
        for b, row in enumerate(batch):
            length = int(answers.mask_BT[b].sum())
            position = np.arange(length)
            places = {"position": position, "relative": position / max(length - 1, 1)}
            columns = {"id": row.id, "image_id": row.image_id, **places, "length": length}
            tokens = answers.tokens_BT[b, :length].tolist()
            columns["end"] = token_ends(self.processor.tokenizer, tokens)
            columns |= {name: value_BT[b, :length] for name, value_BT in values.items()}
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)


def _response(row: Example, answers: Answers, i: int) -> dict[str, Any]:
    mask_T, maps_TLN = answers.mask_BT[i], answers.maps_BTLN[i]
    # An empty answer looked somewhere too: at the step that chose to end it.
    heat_N = maps_TLN[mask_T].mean((0, 1)) if mask_T.any() else maps_TLN[0].mean(0)
    asked = {key: getattr(row, key) for key in ("id", "image_id", "kind", "question")}
    texts = {"reference": row.answer, "response": answers.texts[i], "tokens": int(mask_T.sum())}
    return asked | texts | {"heat": heat_N.cpu().numpy(), "grid": list(answers.grid)}


def token_ends(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Where each token ends in the decoded text, in characters: `len(decode(tokens[: t + 1]))`."""
    starts = [tokens[: t + 1] for t in range(len(tokens))]
    return [len(tokenizer.decode(start, skip_special_tokens=True)) for start in starts]


def svar(maps_BTLN: Tensor) -> Tensor:
    """Summed visual attention ratio (arXiv 2411.16724): visual mass of the middle layers, [B, T].

    The paper takes layers 5 to 18 of 32; here it is the middle third, at least one layer. The
    masses of three layers are 0.25, 0.75 and 0.5:

    >>> svar(Tensor([[[[0.125, 0.125], [0.25, 0.5], [0.5, 0.0]]]]))
    tensor([[0.7500]])
    """
    L = maps_BTLN.shape[2]
    return maps_BTLN[:, :, L // 3 : math.ceil(2 * L / 3)].sum(-1).mean(2)


def _heat_by_token(batch: Sequence[Example], answers: Answers) -> list[tuple[int, str, np.ndarray]]:
    """Length, id, and attention to each patch by token [T, N], of every answer of a batch."""
    lengths = answers.mask_BT.sum(1).tolist()
    heat_BTN = answers.maps_BTLN.mean(2).cpu().numpy()
    rows = zip(lengths, batch, heat_BTN, strict=True)
    return [(length, row.id, heat_TN[:length]) for length, row, heat_TN in rows]


def _trace_table(longest: Sequence[tuple[int, str, np.ndarray]]) -> pd.DataFrame:
    rows = [(name, *row) for _, name, heat_TN in longest for row in enumerate(heat_TN)]
    return pd.DataFrame(rows, columns=["id", "position", "heat"])
