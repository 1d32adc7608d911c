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
from adapt.data.pictures import open_picture
from adapt.models.prompts import Pictures, answer_tokens, encode
from adapt.preference.guide import enhanced, noise_injected
from adapt.preference.prefix import APART, is_per_token

GUIDED = "guided_"
Opened = list[Image.Image]
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
    * what the processor makes of the pictures, of B prompts; under `apart_*` of 2B, chosen and
      rejected ones, where a rejected answer has pictures of its own; and under `guided_*`, with
      `guide` alone, of 2B: v+ of all pairs, then v- of all.
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
        own = [_opened(row["images"]) for row in rows]
        others = [_opened(row.get("rejected_images", ())) for row in rows]
        # 1. The prompts, once for both answers unless these are about different pictures.
        prompts = self._prompts(rows, own)
        batch = prompts.pictures
        if any(others):
            other = [pictures or same for pictures, same in zip(others, own, strict=True)]
            prompts = self._prompts([*rows, *rows], own + other)
            batch |= {APART + name: value for name, value in prompts.pictures.items()}
        batch |= self._sequences(prompts.tokens, rows)
        # 2. Guided pictures stand in the same prompts.
        if self.guide:
            twice = self._prompts([*rows, *rows], self._guided(rows, own, others))
            ids = prompts.tokens["input_ids"]
            same = ids.repeat(2 * len(rows) // len(ids), 1).equal(twice.tokens["input_ids"])
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

    def _prompts(self, rows: Sequence[Row], pictures: Pictures) -> "Prompts":
        questions, histories = [r["question"] for r in rows], [r.get("history", ()) for r in rows]
        return divided(encode(self.processor, pictures, questions, "right", histories))

    def _sequences(self, prompts: Mapping[str, Tensor], rows: Sequence[Row]) -> dict[str, Tensor]:
        """Prompts, B or 2B, and answers as one sequence each, [2B, S]."""
        texts = [row[side] for side in ("chosen", "rejected") for row in rows]
        answers = answer_tokens(self.processor, texts, self.ends)
        return continued(prompts, answers, self.processor.tokenizer.pad_token_id)

    def _guided(
        self, rows: Sequence[Row], own: Sequence[Opened], others: Sequence[Opened]
    ) -> list[Opened]:
        """v+ of the rows' pictures, then v- of them, or of those of the rejected answer."""
        plus: list[Opened] = []
        minus: list[Opened] = []
        for row, good, bad in zip(rows, own, others, strict=True):
            maps = [np.frombuffer(one, np.uint8).reshape(SIDE, SIDE) for one in row["support"]]
            plus.append([enhanced(v, m) for v, m in zip(good, maps, strict=True)])
            names = [
                f"{row['id']} {number}" if number else row["id"] for number in range(len(good))
            ]
            noisy = zip(bad or good, names, strict=True)
            minus.append([noise_injected(v, self.noise, name) for v, name in noisy])
        return plus + minus


# ---- what a batch is made of ---------------------------------------------------------------------


def _opened(contents: Sequence[bytes]) -> Opened:
    return [open_picture(content) for content in contents]


def continued(
    prompts: Mapping[str, Tensor], answers: Sequence[Sequence[int]], pad: int
) -> dict[str, Tensor]:
    """Each answer behind its prompt, padded on the right: [A, S].

    `prompts`: their per-token inputs, [P, S'] with padding; answer a goes on from prompt a mod P.
    `completion_mask` is 1 at the tokens of answers.
    """
    real = prompts["attention_mask"].bool()
    types = {key: _answer_type(key, prompts[key]) for key in prompts.keys() - {"input_ids"}}
    columns: dict[str, list[Tensor]] = {}
    for i, tokens in enumerate(answers):
        # 1. A prompt without its padding, and the answer right behind it.
        answer = torch.tensor(tokens, dtype=torch.long)
        begun = {key: value[i % len(real)][real[i % len(real)]] for key, value in prompts.items()}
        going_on = {key: torch.full_like(answer, types[key]) for key in types}
        going_on |= {"input_ids": answer, "completion_mask": torch.ones_like(answer)}
        begun["completion_mask"] = torch.zeros_like(begun["input_ids"])
        for key, value in going_on.items():
            columns.setdefault(key, []).append(torch.cat([begun[key], value]))
    # 2. Padding behind it, which no token sees.
    padding = {"input_ids": pad}
    return {
        key: pad_sequence(values, batch_first=True, padding_value=padding.get(key, 0))
        for key, values in columns.items()
    }


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What a processor makes of prompts: [B, P] each of their tokens, and the rest of pictures."""

    tokens: dict[str, Tensor]
    pictures: dict[str, Tensor]


def divided(features: Mapping[str, Tensor]) -> Prompts:
    """What has a value for each token, and what belongs to the pictures."""
    ids = features["input_ids"]
    tokens = {key: value for key, value in features.items() if is_per_token(value, ids)}
    return Prompts(tokens, {key: value for key, value in features.items() if key not in tokens})


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

    Of plain pictures those of both answers stay beside (`apart_*`), where the rejected answer has
    its own.

    >>> part({"ids": ["a"], "pixel_values": 1, "guided_pixel_values": 2}, guided=True)
    {'pixel_values': 2}
    """
    inputs = {key: value for key, value in batch.items() if key not in OURS}
    plain = {key: value for key, value in inputs.items() if not key.startswith(GUIDED)}
    if not guided:
        return plain
    seen = {key: value for key, value in plain.items() if not key.startswith(APART)}
    return seen | {key.removeprefix(GUIDED): inputs[key] for key in inputs.keys() - plain.keys()}


def chosen_half(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen rows of what `part` returns of plain pictures, without the reference."""
    ids, names = batch["input_ids"], (k for k in batch if k not in REFERENCE)
    half = {k: batch[k] for k in names if not k.startswith(APART)}
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
