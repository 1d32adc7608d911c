"""Attention of chosen rows at chosen columns: exact, with gradients, in memory linear in S.

The softmax of a row needs all of its S logits, but only for a moment: rows are taken a chunk at a
time, reduced to their few columns and to the mean over heads, and computed again in the backward
pass. What lives between the two passes are the queries of the rows, the keys (which SDPA keeps as
well) and one normaliser per row and head.

Shapes: B batch, H query heads, K key/value heads, R rows, S source positions, N columns, D head
size. Rows and columns are padded with -1. Logits are fp32 whatever the model's dtype.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits in flight: the working memory is a few of these, or a few rows where one row has more.
CHUNK = 2**20
CACHED = 2**22  # numbers, 16 MiB: keys that are read faster by rows of queries than by themselves
LOWEST = torch.finfo(torch.float32).min


def attention_at(
    query_BHRD: Tensor,
    key_BKSD: Tensor,
    mask: Tensor | None,
    rows_BR: Tensor,
    columns_BN: Tensor,
    scaling: float,
) -> Tensor:
    """Mean over heads of the exact softmax of `rows_BR` at `columns_BN`, 0 at padding: [B, R, N].

    Args:
        query_BHRD: queries of the rows. key_BKSD: all keys; H / K query heads share one.
        mask: boolean (true: attend) or float (added), [B or 1, H or 1, Q, S or more], indexed by
            `rows_BR`; None lets row r attend to the columns up to r, and row r of an empty mask
            (all false) to all alike.
        scaling: of the logits.

    With one head, queries and keys of zero and no mask, row 2 attends to columns 0, 1 and 2 alike:

    >>> q, k = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 5, 4)
    >>> attention_at(q, k, None, torch.tensor([[2]]), torch.tensor([[0, 2, 4, -1]]), 1.0)
    tensor([[[0.3333, 0.3333, 0.0000, 0.0000]]])
    """
    # Autocast would make the logits half precision again.
    with torch.autocast(query_BHRD.device.type, enabled=False):
        return _AttentionAt.apply(query_BHRD, key_BKSD, mask, rows_BR, columns_BN, scaling)


def over_keys(query_BHnD: Tensor, key_BKSD: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """The exact softmax of some queries over all keys, per head: [B, H, n, S] fp32.

    For steps of generation: one pass over the keys, no gradient. `mask`, boolean (true: attend) or
    float (added): [B or 1, H or 1, n, S or more]; None: every query attends to all keys.
    """
    B, H, n, D = query_BHnD.shape
    K, S = key_BKSD.shape[1:3]
    keys, q = key_BKSD.reshape(B * K, S, D), query_BHnD.reshape(B * K, H // K * n, D)
    # Keys that a cache holds are best read by rows of queries, unless there is one; see `products`.
    if q.shape[1] > 1 and keys.numel() <= CACHED:
        s_BHnS = products(q, keys.transpose(1, 2)).view(B, H, n, S)
    else:
        s_BHnS = products(keys, q.transpose(1, 2)).transpose(1, 2).reshape(B, H, n, S)
    return masked_(s_BHnS.mul_(scaling), None if mask is None else mask[..., :S]).softmax(-1)


def last_row(query_BHSD: Tensor, key_BKSD: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """The exact softmax of the last query over all keys, per head: [B, H, S] fp32."""
    mask = None if mask is None else mask[:, :, -1:]
    return over_keys(query_BHSD[:, :, -1:], key_BKSD, mask, scaling)[:, :, 0]


def products(left: Tensor, right: Tensor) -> Tensor:
    """Batched matrix product in fp32.

    On CUDA, halves are multiplied as they are and summed in fp32; elsewhere they are converted
    first, which costs less there than SDPA's own pass. What is long belongs on the left: a CPU then
    reads it in its order, up to three times as fast.
    """
    with torch.autocast(left.device.type, enabled=False):
        is_half = left.is_cuda and left.dtype != torch.float32
        if is_half:
            return torch.bmm(left, right, out_dtype=torch.float32)
        return left.float() @ right.float()


class Columns:
    """Columns to pick out of rows, for many of these.

    Args:
        columns_BN: where, -1 at padding. padded: whether there is some.
    """

    def __init__(self, columns_BN: Tensor, padded: bool = True) -> None:
        self._index_B1N = columns_BN.clamp_min(0)[:, None]
        self._is_real_B1N = (columns_BN >= 0)[:, None] if padded else None

    def of(self, rows_BRS: Tensor) -> Tensor:
        """Rows at their columns, [B, R, N]; 0 at padding."""
        at_BRN = rows_BRS.gather(-1, self._index_B1N.expand(-1, rows_BRS.shape[1], -1))
        return at_BRN if self._is_real_B1N is None else at_BRN.mul_(self._is_real_B1N)


class _AttentionAt(torch.autograd.Function):
    """Forward and backward over chunks of rows; see `attention_at`."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, *others: Any) -> Tensor:
        mask, rows_BR, columns_BN, scaling = others
        B, H, R, _ = query.shape
        key32 = key.float()
        out_BRN = query.new_zeros(B, R, columns_BN.shape[1], dtype=torch.float32)
        norm_BHR1 = query.new_zeros(B, H, R, 1, dtype=torch.float32)
        for part in _chunks(query, key):
            # 1. All logits of some rows, for a moment.
            s_BHrS = _logits(_scaled(query[:, :, part], scaling), key32, mask, rows_BR[:, part])
            # 2. The softmax's normaliser, log sum exp; the maximum first, so that exp stays finite.
            top = s_BHrS.amax(-1, keepdim=True)
            total = s_BHrS.sub_(top).exp_().sum(-1, keepdim=True)
            norm_BHR1[:, :, part] = top + total.log()
            # 3. Only the columns, as the mean over heads, are kept.
            out_BRN[:, part] = (s_BHrS.gather(-1, _over_heads(columns_BN, s_BHrS)) / total).mean(1)
        ctx.save_for_backward(query, key, mask, rows_BR, columns_BN, norm_BHR1)
        ctx.scaling = scaling
        return out_BRN.mul_(_is_real(rows_BR, columns_BN))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BRN: Tensor) -> tuple[Tensor | None, ...]:
        query, key, mask, rows_BR, columns_BN, norm_BHR1 = ctx.saved_tensors
        with torch.autocast(query.device.type, enabled=False):
            grad_BRN = grad_BRN.float() * _is_real(rows_BR, columns_BN) / query.shape[1]
            key32, grad_q = key.float(), torch.empty_like(query)
            grad_k32 = torch.zeros_like(key32)
            for part in _chunks(query, key):
                # 1. The same logits again, and with the kept normaliser the softmax.
                q = _scaled(query[:, :, part], ctx.scaling)
                s_BHrS = _logits(q, key32, mask, rows_BR[:, part])
                norm = norm_BHR1[:, :, part]
                # A row that may attend to nothing has no gradient: its masked logits are constants.
                p_BHrS = s_BHrS.sub_(norm).exp_().mul_(norm > LOWEST / 2)
                # 2. Through the softmax: dL/ds. 3. Through s = scaling q k: dL/dq and dL/dk, where
                # query heads that share a key head add up.
                ds_BKrS = _grouped(_softmax_backward(p_BHrS, grad_BRN[:, part], columns_BN), key)
                grad_q[:, :, part] = (ds_BKrS @ key32).mul_(ctx.scaling).view_as(q)
                grad_k32 += ds_BKrS.transpose(2, 3) @ _grouped(q, key)
        return grad_q, grad_k32.to(key.dtype), None, None, None, None


def _chunks(query_BHRD: Tensor, key_BKSD: Tensor) -> Iterator[slice]:
    """Slices of rows, of as many rows as have about CHUNK logits."""
    B, H, R, _ = query_BHRD.shape
    size = max(1, CHUNK // max(1, B * H * key_BKSD.shape[2]))
    return (slice(start, start + size) for start in range(0, R, size))


def _grouped(rows: Tensor, key_BKSD: Tensor) -> Tensor:
    """[B, H, r, *] as [B, K, H / K * r, *]: heads that share a key head are rows of one product."""
    return rows.reshape(rows.shape[0], key_BKSD.shape[1], -1, rows.shape[3])


def _scaled(query_BHrD: Tensor, scaling: float) -> Tensor:
    return query_BHrD.float() * scaling


def _logits(query_BHrD: Tensor, key_BKSD: Tensor, mask: Tensor | None, rows_Br: Tensor) -> Tensor:
    """Logits [B, H, r, S]; masked ones hold the smallest float, not -inf: no row becomes NaN."""
    B, H, r, _ = query_BHrD.shape
    S = key_BKSD.shape[2]
    s = (_grouped(query_BHrD, key_BKSD) @ key_BKSD.transpose(2, 3)).view(B, H, r, S)
    rows = rows_Br.clamp_min(0)
    if mask is None:
        is_later = torch.arange(S, device=rows.device) > rows[:, :, None]
        return s.masked_fill_(is_later[:, None], LOWEST)
    mask = mask[..., :S].expand(B, -1, -1, -1)
    return masked_(s, mask.gather(2, rows[:, None, :, None].expand(B, mask.shape[1], r, S)))


def masked_(s: Tensor, mask: Tensor | None) -> Tensor:
    """Apply a boolean (true: attend) or additive mask to logits in place."""
    if mask is None:
        return s
    is_bool = mask.dtype == torch.bool
    return s.masked_fill_(~mask, LOWEST) if is_bool else s.add_(mask).clamp_min_(LOWEST)


def _over_heads(columns_BN: Tensor, like_BHrS: Tensor) -> Tensor:
    """Columns as an index [B, H, r, N] into logits."""
    return columns_BN.clamp_min(0)[:, None, None].expand(*like_BHrS.shape[:3], -1)


def _is_real(rows_BR: Tensor, columns_BN: Tensor) -> Tensor:
    return (rows_BR >= 0)[:, :, None] & (columns_BN >= 0)[:, None]


def _softmax_backward(p_BHrS: Tensor, grad_BrN: Tensor, columns_BN: Tensor) -> Tensor:
    """dL/ds = p (g - sum p g), in place; g is 0 outside the columns, and the same for all heads."""
    B, _, r, S = p_BHrS.shape
    index_BrN = columns_BN.clamp_min(0)[:, None].expand_as(grad_BrN)
    g_BrS = grad_BrN.new_zeros(B, r, S).scatter_add_(2, index_BrN, grad_BrN)
    p_BHrN = p_BHrS.gather(-1, _over_heads(columns_BN, p_BHrS))
    dot_BHr1 = (p_BHrN * grad_BrN[:, None]).sum(-1, keepdim=True)
    return p_BHrS.mul_(g_BrS[:, None] - dot_BHr1)
