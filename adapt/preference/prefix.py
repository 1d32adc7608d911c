"""Prefix sharing (arXiv 2410.20305): prompt and pictures are computed once for both answers.

A batch of pairs has two rows for each of them, all chosen answers first, padded on the right. Here
a pair is one sequence,

    prompt | chosen answer | the prompt's last token once more | rejected answer

in which the rejected branch sees the prompt and itself alone. The last token stands twice because
it produces the first token of both answers. A table says for each place of that sequence where it
comes from; token ids, token types and positions are looked up in it, and what the model returns
goes back through it to where TRL looks for it, so that the loss stays TRL's. Positions are those
that the model itself gives to the two rows: some models have several for each token.

What belongs to pictures (`pixel_values`, sizes, patch grids) is in a batch once for each pair,
whatever its form: pictures, patches and tiles need not come in equal numbers. `twice` repeats it
for a model that is to see the two rows apart. Where a rejected answer has pictures of its own,
there is no shared prompt, and those of all 2B rows lie in the batch as well (`APART`).

Shapes: B pairs, S sequence of a row, Z of a pair.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adapt.attention.capture import NAME, decoder_of
from adapt.models.continued import is_per_token

APART = "apart_"


def cannot_share(model: nn.Module, batch: Mapping[str, Any]) -> str | None:
    """Why a mask of our own cannot say which token of this batch sees which; None where it can."""
    config, reason = decoder_of(model).config, None
    kinds = getattr(config, "layer_types", None)
    window, S = getattr(config, "sliding_window", None), batch["input_ids"].shape[1]
    others = sorted(set(kinds or ()) - {"full_attention", "sliding_attention"})
    # A window as long as the rows hides nothing from them; our mask stands in place of the model's.
    is_windowed = window is not None and window < S
    # Such models make their own masks, in which the tokens of a picture (`token_type_ids`) or a
    # whole prompt see each other.
    makes_masks = hasattr(getattr(model, "module", model), "create_masks_for_generate")
    if any(name.startswith(APART) for name in batch):
        reason = "a rejected answer has pictures of its own"
    elif config._attn_implementation not in ("sdpa", NAME):
        name = config._attn_implementation
        reason = f"its attention is {name}, which takes masks in another form than sdpa"
    elif makes_masks or "token_type_ids" in batch:
        reason = "the tokens of a picture see each other"
    elif others:
        reason = f"its layers are of the kind {', '.join(others)}"
    elif is_windowed and (kinds is None or "sliding_attention" in kinds):
        reason = f"its layers see a window of {window} tokens, and the rows have {S}"
    return reason


def pair_forward(model: nn.Module, *, labels: Tensor, **inputs: Any) -> Any:
    """Outputs of TRL's fused head for pairs, [2B, S - 1], from one sequence for each pair.

    Called as TRL calls a model, with tokens and labels of [2B, S] and the pictures of B prompts;
    log-probabilities and the other outputs for each token are 0 where there is no label.
    """
    table, ids = Table.of(labels != -100), inputs["input_ids"]
    # 1. Everything that has a value per token is looked up, and so are positions and labels. Labels
    #    are shifted first: what comes after the chosen answer here does not continue it.
    packed = {k: table.packed(v) if is_per_token(v, ids) else v for k, v in inputs.items()}
    packed |= {"position_ids": table.packed(positions(model, inputs)), "attention_mask": table.mask}
    outputs = model(**packed, shift_labels=table.packed(shifted(labels)))
    # 2. What is computed for each token goes back to the two rows of its pair.
    per_token = {
        name: table.unpacked(value)[:, :-1]  # a row's last token produces nothing
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.shape == table.index_BZ.shape
    }
    return dataclasses.replace(outputs, **per_token)


def apart_forward(model: nn.Module, **inputs: Any) -> Any:
    """The same from a sequence for each answer, as the model was made to see them."""
    return model(**twice(inputs))


def twice(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs for 2B rows of what has the tokens of 2B and the pictures of B.

    Pictures under `apart_*` are those of 2B already.

    >>> inputs = {"input_ids": torch.ones(2, 3), "image_sizes": torch.tensor([[5, 7]])}
    >>> twice(inputs)["image_sizes"]
    tensor([[5, 7],
            [5, 7]])
    """
    ids, own = inputs["input_ids"], {k for k in inputs if k.startswith(APART)}
    pictures = {k for k, v in inputs.items() if isinstance(v, Tensor) and not is_per_token(v, ids)}
    both = {k: torch.cat([inputs[k], inputs[k]]) for k in pictures - own}
    both |= {k.removeprefix(APART): inputs[k] for k in own}
    return {k: both.get(k, v) for k, v in inputs.items() if k not in own}


def shifted(labels_BS: Tensor) -> Tensor:
    """The label that each position produces."""
    return torch.nn.functional.pad(labels_BS[:, 1:], (0, 1), value=-100)


def positions(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The positions of the tokens of both rows, [2B, S], or several for each, [A, 2B, S].

    A model whose positions have axes says which ones (`get_rope_index`, in transformers); others
    count the tokens.
    """
    own = next((m for m in model.modules() if hasattr(m, "get_rope_index")), None)
    if own is None:
        return inputs["attention_mask"].cumsum(1) - 1
    names = inspect.signature(own.get_rope_index).parameters
    return own.get_rope_index(**twice({k: v for k, v in inputs.items() if k in names}))[0]


@dataclasses.dataclass(frozen=True)
class Table:
    """Where every place of a pair's sequence comes from.

    `index_BZ` points into the two rows of a pair laid end to end, 2 S places; padding repeats the
    last one. `prompt_B1` is the length of the prompt, `branch_B1` that of prompt and chosen answer,
    where the second branch begins; `real_BZ` is false at padding.
    """

    index_BZ: Tensor
    prompt_B1: Tensor
    branch_B1: Tensor
    real_BZ: Tensor
    length: int

    @classmethod
    def of(cls, is_answer_2BS: Tensor) -> "Table":
        """From where the answers of rows stand that are padded on the right.

        A prompt of two tokens, a chosen answer of one and a rejected one of two:

        >>> answers = torch.tensor([[0, 0, 1, 0], [0, 0, 1, 1]]).bool()
        >>> Table.of(answers).index_BZ
        tensor([[0, 1, 2, 5, 6, 7]])
        """
        S, device = is_answer_2BS.shape[1], is_answer_2BS.device
        # 1. The first token of an answer comes after the prompt's; no answer is empty.
        prompt_B1 = is_answer_2BS.chunk(2)[0].int().argmax(1, keepdim=True)
        chosen_B1, rejected_B1 = is_answer_2BS.sum(1, keepdim=True).chunk(2)
        # 2. The first branch is the chosen row; the second one goes on in the rejected row, from
        #    the prompt's last token.
        branch_B1 = prompt_B1 + chosen_B1
        total_B1 = branch_B1 + 1 + rejected_B1
        place_Z = torch.arange(int(total_B1.max()), device=device)
        place_BZ = place_Z.minimum(total_B1 - 1)
        second_BZ = place_BZ - branch_B1 + S + prompt_B1 - 1
        index_BZ = torch.where(place_BZ < branch_B1, place_BZ, second_BZ)
        return cls(index_BZ, prompt_B1, branch_B1, place_Z < total_B1, S)

    def packed(self, value_2BS: Tensor) -> Tensor:
        """Values of the two rows, [..., 2B, S], along the pairs' sequences, [..., B, Z]."""
        ends = torch.cat(value_2BS.chunk(2, dim=-2), dim=-1)
        return ends.gather(-1, self.index_BZ.expand(*ends.shape[:-1], -1))

    def unpacked(self, value_BZ: Tensor) -> Tensor:
        """Values along the pairs' sequences in the rows that they come from, [2B, S], else 0."""
        B, S = len(value_BZ), self.length
        # Padding goes to a place behind both rows, which is dropped.
        index_BZ = torch.where(self.real_BZ, self.index_BZ, 2 * S)
        ends = value_BZ.new_zeros(B, 2 * S + 1).scatter(1, index_BZ, value_BZ)
        return torch.cat(ends[:, :-1].chunk(2, dim=1))

    @property
    def mask(self) -> Tensor:
        """Which place sees which, [B, 1, Z, Z].

        Prompt of one token, answers of one:

        >>> Table.of(torch.tensor([[0, 1], [0, 1]]).bool()).mask[0, 0].int()
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 0, 1, 0],
                [0, 0, 1, 1]], dtype=torch.int32)
        """
        place_Z = torch.arange(self.index_BZ.shape[1], device=self.index_BZ.device)
        row, column = place_Z[:, None], place_Z
        branch, prompt = self.branch_B1[:, :, None], self.prompt_B1[:, :, None]
        # 1. Every place sees the real ones up to itself,
        visible = self.real_BZ[:, None] & (column <= row)
        # 2. but the second branch sees neither the chosen answer nor the first copy of the
        #    prompt's last token,
        other = (row >= branch) & (column >= prompt - 1) & (column < branch)
        # 3. and padding sees itself: the softmax of an empty row is not a number.
        return (visible & ~other | (row == column))[:, None]
