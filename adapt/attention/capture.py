"""Exact capture of text-to-image attention inside SDPA, without attention maps of S x S.

One attention function is registered with transformers' attention interface. Its output is SDPA's; beside it, an
observer gets the queries and keys and computes what it needs: softmax probabilities of a few rows (tokens that are
being generated) at a few columns (image tokens), with the exact normaliser over all columns, averaged over heads.
No module is patched; leaving the context restores the model, also after an error.

Shapes: B batch, H query heads, K key/value heads, R observed rows, S source positions, N image tokens, D head size,
L decoder layers. Columns and rows are padded with -1.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

NAME = "adapt_sdpa"


class Observer(Protocol):
    """Sees every attention call of one decoder and returns the output to use."""

    def observe(self, call: "Call") -> Tensor:
        """`call.output_BSHD`, or what should stand in its place."""
        ...


class Call:
    """One attention call: the arguments that the attention interface passes, and SDPA's output [B, S, H, D]."""

    __slots__ = ("key_BKSD", "layer", "mask", "output_BSHD", "query_BHSD", "scaling", "value_BKSD")

    def __init__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, output: Tensor
    ) -> None:
        self.layer, self.query_BHSD, self.key_BKSD, self.value_BKSD = layer, query, key, value
        self.mask, self.scaling, self.output_BSHD = mask, scaling, output


_observers: weakref.WeakKeyDictionary[nn.Module, Observer] = weakref.WeakKeyDictionary()


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    observer = _observers.get(module)
    if observer is not None:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        layer: int = module.layer_idx
        output = observer.observe(Call(layer, query, key, value, attention_mask, scaling, output))
    return output, None


def _register() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
    # Masks are made by name too: ours are SDPA's.
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def decoder_of(model: nn.Module) -> nn.Module:
    """The language model inside a vision-language model (or inside its DDP or PEFT wrapper)."""
    return getattr(model, "module", model).get_decoder()


def layer_count(model: nn.Module) -> int:
    """L: the number of decoder layers."""
    return int(decoder_of(model).config.num_hidden_layers)


@contextmanager
def observed(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Show every attention call of the model's decoder to `observer` inside the block.

    Raises RuntimeError when the model is already observed (two observers could not both decide the output).
    """
    _register()
    decoder = decoder_of(model)
    modules = [m for m in decoder.modules() if isinstance(getattr(m, "layer_idx", None), int)]
    if any(m in _observers for m in modules):
        raise RuntimeError("this model's attention is already observed; leave the other block first")
    before = decoder.config._attn_implementation
    decoder.set_attn_implementation(NAME)
    _observers.update({m: observer for m in modules})
    try:
        yield
    finally:
        for m in modules:
            _observers.pop(m, None)
        decoder.set_attn_implementation(before)


def scores(query_BHRD: Tensor, key_BKSD: Tensor, mask_BHRS: Tensor | None, scaling: float) -> Tensor:
    """Attention logits [B, H, R, S] in fp32; masked positions hold the smallest float, never -inf (no NaN rows)."""
    B, H, R, D = query_BHRD.shape
    K = key_BKSD.shape[1]
    grouped = query_BHRD.reshape(B, K, H // K * R, D)  # grouped-query attention: H / K query heads share a key head
    s = torch.matmul(grouped.float(), key_BKSD.float().transpose(2, 3)).view(B, H, R, -1) * scaling
    if mask_BHRS is None:
        return s
    if mask_BHRS.dtype == torch.bool:
        return s.masked_fill(~mask_BHRS, torch.finfo(s.dtype).min)
    return (s + mask_BHRS).clamp_min(torch.finfo(s.dtype).min)


def last_row(call: Call) -> Tensor:
    """Logits [B, H, 1, S] of the last query: the token that this step generates."""
    mask = None if call.mask is None else call.mask[:, :, -1:, : call.key_BKSD.shape[2]]
    return scores(call.query_BHSD[:, :, -1:], call.key_BKSD, mask, call.scaling)


def rows_of(call: Call, rows_BR: Tensor) -> Tensor:
    """Logits [B, H, R, S] of chosen rows of the first `len(rows_BR)` samples; row -1 is padding (any values)."""
    B, R = rows_BR.shape
    rows = rows_BR.clamp_min(0)
    q_BHSD, S = call.query_BHSD[:B], call.key_BKSD.shape[2]
    q_BHRD = q_BHSD.gather(2, rows[:, None, :, None].expand(-1, q_BHSD.shape[1], -1, q_BHSD.shape[3]))
    if call.mask is None:  # SDPA's own causal mask, aligned at the last key
        shift = S - q_BHSD.shape[2]
        mask = (torch.arange(S, device=rows.device)[None, None] <= rows[:, :, None] + shift)[:, None]
    else:
        mask = call.mask.expand(call.query_BHSD.shape[0], -1, -1, -1)[:B, :, :, :S]
        mask = mask.gather(2, rows[:, None, :, None].expand(B, mask.shape[1], R, S))
    return scores(q_BHRD, call.key_BKSD[:B], mask, call.scaling)


def at_columns(scores_BHRS: Tensor, columns_BN: Tensor) -> Tensor:
    """Mean over heads of the exact softmax at image columns: [B, R, N], 0 where a column is padding (-1)."""
    B, H, R, _ = scores_BHRS.shape
    norm_BHR1 = scores_BHRS.logsumexp(-1, keepdim=True)
    index = columns_BN.clamp_min(0)[:, None, None].expand(B, H, R, -1)
    a_BHRN = (scores_BHRS.gather(-1, index) - norm_BHR1).exp()
    return a_BHRN.mean(1) * (columns_BN >= 0)[:, None]


class RowCapture:
    """Observer for a forward pass over whole sequences: keeps `maps[layer]` = [B', R, N] with gradients.

    Args:
        rows_BR: query positions to observe, -1 for padding. A first dimension smaller than the batch observes only
            the first samples (in preference batches: the chosen halves).
        columns_BN: image-token positions of the same samples, -1 for padding.
        layers: decoder layers to observe; empty for all.
    """

    def __init__(self, rows_BR: Tensor, columns_BN: Tensor, layers: tuple[int, ...] = ()) -> None:
        assert len(rows_BR) == len(columns_BN), "rows and columns belong to the same samples"
        self.rows_BR, self.columns_BN, self.layers = rows_BR, columns_BN, layers
        self.maps: dict[int, Tensor] = {}

    def observe(self, call: Call) -> Tensor:
        # Without gradients it is the reference pass of an adapter model, which shares its modules with the policy.
        if torch.is_grad_enabled() and (not self.layers or call.layer in self.layers):
            self.maps[call.layer] = at_columns(rows_of(call, self.rows_BR), self.columns_BN)
        return call.output_BSHD

    def stacked(self) -> Tensor:
        """Maps of all observed layers, [B', L', R, N], in layer order."""
        return torch.stack([self.maps[layer] for layer in sorted(self.maps)], dim=1)
