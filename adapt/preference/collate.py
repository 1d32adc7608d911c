"""Batches of preference pairs: tokens of both answers, pictures once, and guided pictures beside.

The processor takes prompt and pictures and the tokenizer the answer, with the token that ends it
and nothing after, so that training sees what decoding sees. Guided pictures, v+ for the chosen
answer and v- for the rejected one, are made before the processor: they have the size of the
picture, so the tokens stay and only what the processor makes of pictures differs. The noise of a
pair depends on its id alone: a resumed run sees what an uninterrupted one would have seen.

Shapes: B pairs, S sequence, R response tokens, N image tokens of a prompt.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adapt.attention.support import SIDE
from adapt.data.schema import open_picture
from adapt.models.prompts import answer_tokens, encode
from adapt.preference.guide import enhanced, noise_injected
from adapt.preference.prefix import is_per_token

GUIDED = "guided_"
ANCHOR = "anchor"
FLAT = "flat"
IDS = "ids"
PASS = "pass"  # of a step: "plain" or "guided"; see `adapt/preference/trainer.py`
# TRL's names for reference log-probabilities that were computed before.
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
OURS = (ANCHOR, FLAT, IDS, PASS)

Row = Mapping[str, Any]  # the fields of a `Pair`, and columns of `REFERENCE`


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedCollator:
    """A batch of rows, padded on the right, under the names that TRL's loss knows.

    * `input_ids`, `attention_mask`, `completion_mask` and token types [2B, S], all chosen answers
      first, then all rejected ones.
    * what the processor makes of the pictures, of B prompts; and under `guided_*`, with `guide`
      alone, of 2B: v+ of all pairs, then v- of all.
    * `ids`: the rows' ids; `anchor` [B, N], 0 behind the image tokens of a prompt; `flat` [B], true
      for an anchor that supports no place more than another, whose v+ tells nothing.
    * reference log-probabilities [B] each, where the rows have them: `ref_chosen_logps`,
      `ref_rejected_logps`, and under guided pictures `guided_ref_chosen_logps`,
      `guided_ref_rejected_logps`.

    Args:
        processor: of the model.
        ends: the tokens that end an answer, see `adapt.models.prompts.end_tokens`.
        noise: share of noise power in v-.
        guide: whether to make guided pictures.
    """

    processor: Any
    ends: tuple[int, ...]
    noise: float
    guide: bool = True

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The batch of these rows; InputError for a text with a special token of the model's."""
        pictures = [[open_picture(content) for content in row["images"]] for row in rows]
        questions = [row["question"] for row in rows]
        # 1. The prompts, once for both answers.
        prompts = _divided(encode(self.processor, pictures, questions, padding_side="right"))
        batch = self._sequences(prompts.tokens, rows) | prompts.pictures
        # 2. Guided pictures stand in the same prompts.
        if self.guide:
            guided = self._guided(rows, pictures)
            twice = _divided(encode(self.processor, guided, questions * 2, padding_side="right"))
            same = prompts.tokens["input_ids"].repeat(2, 1).equal(twice.tokens["input_ids"])
            assert same, "guided pictures have the tokens of plain ones"
            batch |= {GUIDED + name: value for name, value in twice.pictures.items()}
        # 3. What belongs to the rows.
        anchors = [torch.tensor(row["anchor"], dtype=torch.float32) for row in rows]
        flat = [all(len({*one}) == 1 for one in row["support"]) for row in rows]
        batch |= {IDS: [row["id"] for row in rows], FLAT: torch.tensor(flat)}
        batch[ANCHOR] = pad_sequence(anchors, batch_first=True)
        names = [*REFERENCE, *(GUIDED + name for name in REFERENCE)]
        kept = [name for name in names if name in rows[0]]
        return batch | {name: torch.tensor([row[name] for row in rows]) for name in kept}

    def _sequences(self, prompts: Mapping[str, Tensor], rows: Sequence[Row]) -> dict[str, Tensor]:
        """Prompts and answers as one sequence each, [2B, S]."""
        texts = [row[side] for side in ("chosen", "rejected") for row in rows]
        answers = [torch.tensor(ids) for ids in answer_tokens(self.processor, texts, self.ends)]
        real = prompts["attention_mask"].bool().repeat(2, 1)
        types = {key: _answer_type(key, prompts[key]) for key in prompts.keys() - {"input_ids"}}
        columns: dict[str, list[Tensor]] = {}
        for i, (answer, is_real) in enumerate(zip(answers, real, strict=True)):
            # 1. A prompt without its padding, and the answer right behind it.
            begun = {key: value[i % len(rows)][is_real] for key, value in prompts.items()}
            going_on = {key: torch.full_like(answer, types[key]) for key in types}
            going_on |= {"input_ids": answer, "completion_mask": torch.ones_like(answer)}
            begun["completion_mask"] = torch.zeros_like(begun["input_ids"])
            for key, value in going_on.items():
                columns.setdefault(key, []).append(torch.cat([begun[key], value]))
        # 2. Padding behind it, which no token sees.
        padding = {"input_ids": self.processor.tokenizer.pad_token_id}
        return {
            key: pad_sequence(values, batch_first=True, padding_value=padding.get(key, 0))
            for key, values in columns.items()
        }

    def _guided(
        self, rows: Sequence[Row], pictures: Sequence[Sequence[Image.Image]]
    ) -> list[list[Image.Image]]:
        """v+ of the rows' pictures, then v- of them."""
        plus: list[list[Image.Image]] = []
        minus: list[list[Image.Image]] = []
        for row, own in zip(rows, pictures, strict=True):
            maps = [np.frombuffer(one, np.uint8).reshape(SIDE, SIDE) for one in row["support"]]
            plus.append([enhanced(v, m) for v, m in zip(own, maps, strict=True)])
            names = [f"{row['id']} {number}" if number else row["id"] for number in range(len(own))]
            noisy = zip(own, names, strict=True)
            minus.append([noise_injected(v, self.noise, name) for v, name in noisy])
        return plus + minus


# ---- what a batch is made of ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Prompts:
    """What a processor makes of prompts: [B, P] each of their tokens, and the rest of pictures."""

    tokens: dict[str, Tensor]
    pictures: dict[str, Tensor]


def _divided(features: Mapping[str, Tensor]) -> _Prompts:
    ids = features["input_ids"]
    tokens = {key: value for key, value in features.items() if is_per_token(value, ids)}
    return _Prompts(tokens, {key: value for key, value in features.items() if key not in tokens})


def _answer_type(key: str, prompts: Tensor) -> int:
    """The value of a per-token input of the model at an answer's tokens.

    Token types tell pictures (1) from text (0), or a prompt (0) from what follows it (1). Where the
    first part of a sequence is all 0 although it has pictures, they are of the second kind, and an
    answer with zeros would be part of the prompt, whose tokens see each other.
    """
    if key == "attention_mask":
        return 1
    return int(key == "token_type_ids" and not prompts.any())


def part(batch: Mapping[str, Any], guided: bool) -> dict[str, Any]:
    """What model and TRL's loss take of a batch: one set of pictures, and the reference under it.

    >>> part({"ids": ["a"], "pixel_values": 1, "guided_pixel_values": 2}, guided=True)
    {'pixel_values': 2}
    """
    inputs = {key: value for key, value in batch.items() if key not in OURS}
    plain = {key: value for key, value in inputs.items() if not key.startswith(GUIDED)}
    if not guided:
        return plain
    return plain | {key.removeprefix(GUIDED): inputs[key] for key in inputs.keys() - plain.keys()}


def chosen_half(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen rows of what `part` returns of plain pictures, without the reference."""
    ids, half = batch["input_ids"], {k: v for k, v in batch.items() if k not in REFERENCE}
    return {k: v.chunk(2)[0] if is_per_token(v, ids) else v for k, v in half.items()}


def response_rows(completion_mask_BS: Tensor) -> Tensor:
    """Query positions that produce the response tokens, [B, R]: p - 1 for token p, -1 for padding.

    >>> response_rows(torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]]))
    tensor([[ 1,  2],
            [ 0, -1]])
    """
    is_producer_BT = completion_mask_BS[:, 1:].bool()
    T, longest = is_producer_BT.shape[1], max(int(is_producer_BT.sum(1).max()), 1)
    position_BT = torch.arange(T, device=is_producer_BT.device).expand_as(is_producer_BT)
    # Sorted, the positions of producers come first and the others, all T, after them.
    rows_BR = torch.where(is_producer_BT, position_BT, T).sort(1).values[:, :longest]
    return rows_BR.masked_fill(rows_BR == T, -1)
