"""Batches of preference pairs: tokens of both answers, pictures once, and guided pictures beside.

The processor takes prompt and pictures and the tokenizer the answer, with the token that ends it
and nothing after, so that training sees what decoding sees. Guided pictures, v+ and v-, are made
before the processor: they have the size of the picture, so the tokens stay and only what the
processor makes of pictures differs. The noise of a pair depends on its id alone: a resumed run sees
what an uninterrupted one would have seen.

Shapes: B pairs, S sequence, R response tokens, N image tokens of a prompt.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adapt.data.pictures import open_picture
from adapt.models.continued import Prompts, continued, divided, is_per_token
from adapt.models.prompts import Pictures, answer_tokens, encode, located_tokens
from adapt.pairs.beginning import begun_tokens
from adapt.preference.guide import Opened, Row, halves
from adapt.preference.prefix import APART
from adapt.preference.settings import VagForm
from adapt.preference.spans import token_weights
from adapt.preference.targets import PRODUCERS, TARGETS, BoxTargets

GUIDED = "guided_"
ANCHOR = "anchor"
FLAT = "flat"
IDS = "ids"
PASS = "pass"  # of a step: "plain" or "guided"; see `adapt/preference/trainer.py`
# TRL's names for reference log-probabilities that were computed before.
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
OURS = (ANCHOR, FLAT, IDS, PASS, PRODUCERS, TARGETS)
TOKEN_WEIGHTS = "token_weights"
NOT_INPUTS = ("completion_mask", TOKEN_WEIGHTS, *REFERENCE)  # of the model


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedCollator:
    """A batch of rows, padded on the right, under the names that TRL's loss knows.

    * `input_ids`, `attention_mask`, `completion_mask` and token types [2B, S], all chosen answers
      first, then all rejected ones. The mask is 0 at what both answers of a pair begin with, which
      so is part of the prompt: `adapt/pairs/beginning.py`.
    * `token_weights` [2B, S], with a `span_weight` other than 1: adapt/preference/spans.py.
    * what the processor makes of the pictures, of B prompts; under `apart_*` of 2B, chosen and
      rejected ones, where a rejected answer has pictures of its own; and under `guided_*`, with
      `guide` alone, of 2B, as `form` says: v+ of all pairs, then v- of all (paper); the plain ones,
      then v- (same_text), with the chosen answers in both halves under `guided_input_ids` and its
      like; or v- twice (same_image).
    * `ids`: the rows' ids; `anchor` [B, N], 0 behind the image tokens of a prompt; `flat` [B], true
      for an anchor that supports no place more than another, whose v+ tells nothing.
    * with `aim` alone, `producers` [B, M] and `targets` [B, M, N]: see `BoxTargets`.
    * reference log-probabilities [B] each, where the rows have them: `ref_chosen_logps`,
      `ref_rejected_logps`, and under guided pictures `guided_ref_chosen_logps`,
      `guided_ref_rejected_logps`.

    Args:
        processor: of the model.
        ends: the tokens that end an answer, see `adapt.models.prompts.end_tokens`.
        noise: share of noise power in v-.
        guide: whether to make guided pictures.
        form: what guidance compares.
        aim: makes the targets of attention where boxes supervise it.
        span_weight: of tokens inside the spans that decide; 1 weighs nothing.
    """

    processor: Any
    ends: tuple[int, ...]
    noise: float
    guide: bool = True
    form: VagForm = "paper"
    aim: BoxTargets | None = None
    span_weight: float = 1.0

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The batch of these rows; InputError for a text with a special token of the model's."""
        own = [_opened(row["images"]) for row in rows]
        others = [_opened(row.get("rejected_images", ())) for row in rows]
        # 1. The prompts, once for both answers unless these are about different pictures.
        prompts = self._prompts(rows, own)
        batch = prompts.pictures
        if self.aim is not None:
            batch |= self.aim(rows, own, prompts.tokens | batch)
        if any(others):
            other = [pictures or same for pictures, same in zip(others, own, strict=True)]
            prompts = self._prompts([*rows, *rows], own + other)
            batch |= {APART + name: value for name, value in prompts.pictures.items()}
        batch |= self._sequences(prompts.tokens, rows, ("chosen", "rejected"))
        # 2. Guided pictures stand in the same prompts.
        if self.guide:
            guided = self._guided(prompts.tokens, rows, own, others)
            batch |= {GUIDED + name: value for name, value in guided.items()}
        # 3. What belongs to the rows.
        anchors = [torch.tensor(row["anchor"], dtype=torch.float32) for row in rows]
        flat = [all(len({*one}) == 1 for one in row["support"]) for row in rows]
        batch |= {IDS: [row["id"] for row in rows], FLAT: torch.tensor(flat)}
        batch[ANCHOR] = pad_sequence(anchors, batch_first=True)
        names = [*REFERENCE, *(GUIDED + name for name in REFERENCE)]
        kept = [name for name in names if name in rows[0]]
        return batch | {name: torch.tensor([row[name] for row in rows]) for name in kept}

    def _prompts(self, rows: Sequence[Row], pictures: Pictures) -> Prompts:
        questions, histories = [r["question"] for r in rows], [r.get("history", ()) for r in rows]
        return divided(encode(self.processor, pictures, questions, "right", histories))

    def _sequences(
        self, prompts: Mapping[str, Tensor], rows: Sequence[Row], sides: Sequence[str]
    ) -> dict[str, Tensor]:
        """Prompts, B or 2B, and the answers of all rows side by side as one sequence each, [2B, S].

        Whatever has a value for each token of an answer is made here.
        """
        texts = [row[side] for side in sides for row in rows]
        answers = answer_tokens(self.processor, texts, self.ends)
        begun = [self._begun(row) for row in rows] * len(sides)
        batch = continued(prompts, answers, self.processor.tokenizer.pad_token_id, begun=begun)
        if self.span_weight != 1:
            spans = [row.get(f"{side}_spans", ()) for side in sides for row in rows]
            _, ranges = located_tokens(self.processor, texts, self.ends)
            weights = token_weights(batch["attention_mask"], ranges, spans, self.span_weight)
            batch[TOKEN_WEIGHTS] = weights
        return batch

    def _begun(self, row: Row) -> int:
        """How many tokens both answers of a row begin with that are not trained."""
        answers = (row["chosen"], row["rejected"])
        return begun_tokens(self.processor, row.get("prefix", ""), answers, self.ends)

    def _guided(
        self,
        tokens: Mapping[str, Tensor],
        rows: Sequence[Row],
        own: Sequence[Opened],
        others: Sequence[Opened],
    ) -> dict[str, Tensor]:
        """What the model sees of 2B guided rows, where it is not what it sees of the plain ones.

        `tokens`: of the plain prompts, B or 2B.
        """
        pictures = halves(self.form, self.noise, rows, own, others)
        twice = self._prompts([*rows, *rows], pictures)
        if self.form == "same_text":
            return twice.pictures | self._sequences(twice.tokens, rows, ("chosen", "chosen"))
        ids = tokens["input_ids"]
        same = ids.repeat(2 * len(rows) // len(ids), 1).equal(twice.tokens["input_ids"])
        assert same, "guided pictures have the tokens of plain ones"
        return twice.pictures


# ---- what a batch is made of ---------------------------------------------------------------------


def _opened(contents: Sequence[bytes]) -> Opened:
    return [open_picture(content) for content in contents]


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
