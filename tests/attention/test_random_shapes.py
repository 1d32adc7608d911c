"""Attention of chosen rows at chosen columns against a float64 reference, on random shapes, masks
and chunk sizes.
"""

from typing import NamedTuple
from unittest import mock

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from adapt.attention import rows
from adapt.attention.rows import Columns, attention_at, last_row


class Case(NamedTuple):
    query_BHSD: Tensor
    key_BKSD: Tensor
    mask: Tensor | None
    rows_BR: Tensor
    columns_BN: Tensor
    chunk: int


@st.composite
def cases(draw) -> Case:
    """A prompt with image spans somewhere, padded left or right, behind any kind of mask that SDPA
    takes.
    """
    B, K, G, S, D = (draw(st.integers(1, n)) for n in (3, 3, 4, 40, 8))
    R = draw(st.integers(0, 5))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    query, key = (
        2 * torch.randn(B, heads, S, D, generator=generator).to(dtype) for heads in (K * G, K)
    )
    chosen = torch.randint(-1, S, (B, R), generator=generator)
    start, width = draw(st.integers(0, S - 1)), draw(st.integers(1, S))
    columns = torch.arange(start, min(S, start + width)).repeat(B, 1)
    columns = columns.masked_fill(torch.rand(columns.shape, generator=generator) < 0.1, -1)
    mask = draw(st.sampled_from([None, "bool", "lowest", "infinite"]))
    if mask is not None:
        pad = torch.randint(
            0, S + 1, (B, 1), generator=generator
        )  # S: a sample of nothing but padding
        position = torch.arange(S)
        real_BS = position >= pad if draw(st.booleans()) else position < S - pad
        allowed = position <= position[:, None]
        if draw(st.booleans()):
            allowed = allowed & (position > position[:, None] - draw(st.integers(1, 8)))
        mask = _as(mask, (allowed & real_BS[:, None])[:, None], dtype)
    return Case(query, key, mask, chosen, columns, draw(st.sampled_from([1, 200, 2**20])))


def _as(kind: str, allowed: Tensor, dtype: torch.dtype) -> Tensor:
    if kind == "bool":
        return allowed
    barred = torch.finfo(dtype).min if kind == "lowest" else -torch.inf
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, barred)


def reference(case: Case, query: Tensor, key: Tensor) -> Tensor:
    """All of softmax(q k / sqrt D) in float64, then the mean over heads: [B, S, S]."""
    S, D = query.shape[2:]
    logits = (
        query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(2, 3) * D**-0.5
    )
    allowed = torch.ones(S, S, dtype=torch.bool).tril() if case.mask is None else case.mask
    if allowed.dtype != torch.bool:
        allowed = allowed > -1e30
    return logits.masked_fill(~allowed, rows.LOWEST).softmax(-1).mean(1)


def picked(maps_BSS: Tensor, rows_BR: Tensor, columns_BN: Tensor) -> Tensor:
    b = torch.arange(len(rows_BR))[:, None, None]
    real = (rows_BR >= 0)[:, :, None] & (columns_BN >= 0)[:, None]
    return maps_BSS[b, rows_BR[:, :, None], columns_BN[:, None]] * real


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(cases())
def test_values_and_gradients_equal_a_float64_reference(case):
    query, key = (t.clone().requires_grad_() for t in case[:2])
    query64, key64 = (t.double().requires_grad_() for t in case[:2])
    B, H, _, D = query.shape
    index = case.rows_BR.clamp_min(0)[:, None, :, None].expand(-1, H, -1, D)
    with mock.patch.object(rows, "CHUNK", case.chunk):
        seen = attention_at(
            query.gather(2, index), key, case.mask, case.rows_BR, case.columns_BN, D**-0.5
        )
        weight = torch.linspace(-1, 2, seen.numel()).view_as(seen)
        (seen * weight).sum().backward()
    full = reference(case, query64, key64)
    want = picked(full, case.rows_BR, case.columns_BN)
    (want * weight).sum().backward()
    torch.testing.assert_close(seen.double(), want, atol=1e-6, rtol=1e-5)
    rough = (
        {"atol": 1e-5, "rtol": 1e-4}
        if query.dtype == torch.float32
        else {"atol": 0.02, "rtol": 0.02}
    )
    torch.testing.assert_close(query.grad.double(), query64.grad, **rough)
    torch.testing.assert_close(key.grad.double(), key64.grad, **rough)

    row = last_row(query.detach(), key.detach(), case.mask, D**-0.5)
    last = Columns(case.columns_BN).of(row).mean(1)
    want = picked(full.detach(), torch.full((B, 1), query.shape[2] - 1), case.columns_BN)[:, 0]
    torch.testing.assert_close(last.double(), want, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(row.sum(-1), torch.ones(B, H), atol=1e-5, rtol=0)
