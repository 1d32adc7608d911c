"""The cross-attention visual anchor, where the image supports the answer: docs/method.md section 2.

Read from the first K generated tokens, in four steps:

1. the mean map of those tokens, per layer (`adapt.generation.answer.first_maps`);
2. a score for every layer: spectral, smoothness, focus;
3. weights of the layers from the scores, and the weighted sum of their maps;
4. damping of the positions that draw attention whatever the image.

Marks: [paper] published (arXiv 2606.31054), [release] only in the authors' code, [ours] our
decision. Everything is batched over samples and layers and stays on the device. A batch whose
images have different grids, or several views each, takes one pass per distinct grid.

Shapes: B batch, L layers, N image tokens, V views of one grid, M = rows * cols of a grid.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adapt.attention.layout import Grid, Layout, View
from adapt.attention.signals import EPS, entropy, normalised
from adapt.params import InputError


def spectral_score(maps_BLN: Tensor, grid: Grid) -> Tensor:
    """S_spec = 1 - |high(A_l) - ideal(l)|, [B, L] [release].

    `high` is the share of the 2-D FFT power beyond a quarter of the largest radius; `ideal` falls
    from 0.8 at the first layer to 0.2 at the last.
    """
    B, L, _ = maps_BLN.shape
    power = torch.fft.fft2(maps_BLN.float().view(B, L, *grid)).abs().square()
    y, x = (torch.fft.fftfreq(n, device=maps_BLN.device) for n in grid)
    radius = (y[:, None].square() + x[None].square()).sqrt()
    high = (power * (radius > radius.max() / 4)).sum((-2, -1)) / power.sum((-2, -1)).clamp_min(EPS)
    return 1 - (high - torch.linspace(0.8, 0.2, L, device=maps_BLN.device)).abs()


def smoothness_score(maps_BLN: Tensor, grid: Grid) -> Tensor:
    """S_smooth = 1 / (1 + mean |grad A|^2), [B, L] [release].

    On maps scaled to [0, 1] [ours]: without the scaling the score is 1 everywhere.
    """
    a = _minmax(maps_BLN, -1).view(*maps_BLN.shape[:2], *grid)
    down, right = a.diff(dim=-2).square(), a.diff(dim=-1).square()
    return 1 / (1 + (down.sum((-2, -1)) + right.sum((-2, -1))) / maps_BLN.shape[-1])


def focus_score(maps_BLN: Tensor) -> Tensor:
    """S_focus = 1 - entropy / log N, [B, L]."""
    N = maps_BLN.shape[-1]
    return 1 - entropy(normalised(maps_BLN)) / max(math.log(N), EPS)


def layer_weights(maps_BLN: Tensor, grid: Grid) -> Tensor:
    """W = softmax_l(10 minmax_l(0.4 S_spec + 0.3 S_smooth + 0.3 S_focus)), [B, L] [release]."""
    spectral, smoothness = spectral_score(maps_BLN, grid), smoothness_score(maps_BLN, grid)
    score_BL = 0.4 * spectral + 0.3 * smoothness + 0.3 * focus_score(maps_BLN)
    return torch.softmax(_minmax(score_BL, 1, top=10), dim=1)


def _minmax(values: Tensor, dim: int, top: int = 1) -> Tensor:
    """Scaled to [0, top] along one dimension."""
    low, high = values.amin(dim, keepdim=True), values.amax(dim, keepdim=True)
    return top * (values - low) / (high - low).clamp_min(EPS)


def visual_anchor(maps_BLN: Tensor, grid: Grid, debias_N: Tensor) -> Tensor:
    """anchor = (sum_l W_l A_l) * M_debias, scaled to sum 1: [B, N] [paper; the scale is ours].

    Args:
        maps_BLN: mean attention over the first K generated tokens, per layer.
        debias_N: `debias_mask` of the same model and grid (ones: no debiasing).
    """
    weights_BL = layer_weights(maps_BLN, grid)
    return normalised((weights_BL[:, :, None] * maps_BLN).sum(1) * debias_N)


def debias_mask(noise_maps_BLN: Tensor) -> Tensor:
    """M_debias from maps on images of pure noise, [N] in (0, 1] [paper: the idea; form ours].

    A position that draws k > 1 times its uniform share is damped to 1 / k; the others stay.
    """
    share_N = normalised(noise_maps_BLN.mean((0, 1)))
    return 1 / (share_N * share_N.shape[0]).clamp_min(1.0)


# ---- images of several grids -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Patches:
    """The views of one grid in a batch.

    Patch m of view v is image token `slot_VM[v, m]` of sample `sample_V[v]`. `is_plain`: these
    views are all that the batch has, one per sample, covering its image tokens in order.
    """

    grid: Grid
    sample_V: Tensor
    slot_VM: Tensor
    is_plain: bool

    def of(self, maps_BLN: Tensor) -> Tensor:
        """The views' own maps, [V, L, M]."""
        slot_VLM = self.slot_VM[:, None].expand(-1, maps_BLN.shape[1], -1)
        return maps_BLN[self.sample_V].gather(2, slot_VLM)


def by_grid(layout: Layout, samples: int = 1) -> tuple[Patches, ...]:
    """The views of a batch by grid; `samples` answers to a prompt stand side by side.

    >>> views = (View(0, 0, "tile", (1, 2), (3, 4)), View(0, 0, "tile", (1, 2), (6, 7)))
    >>> patches, = by_grid(Layout(torch.tensor([[3, 4, 5, 6, 7]]), views), samples=2)
    >>> patches.sample_V.tolist(), patches.slot_VM.tolist(), patches.is_plain
    ([0, 1, 0, 1], [[0, 1], [0, 1], [3, 4], [3, 4]], False)
    """
    device, columns = layout.columns_BN.device, layout.columns_BN.tolist()
    # 1. Views of one grid can be scored together, and only they can.
    groups: dict[Grid, list[View]] = {}
    for view in layout.views:
        groups.setdefault(view.grid, []).append(view)
    # 2. A view names positions in the sequence; maps are indexed by image token.
    slot_of = [{column: n for n, column in enumerate(row)} for row in columns]
    # 3. The common case, one picture and one grid per sample, needs no gathering.
    places = [(view.sample, list(view.columns)) for view in layout.views]
    is_plain = places == list(enumerate(columns))
    # 4. Each view once for every answer to its prompt.
    patches = []
    for grid, views in groups.items():
        repeated = [(view, n) for view in views for n in range(samples)]
        sample = [view.sample * samples + n for view, n in repeated]
        slot = [[slot_of[view.sample][column] for column in view.columns] for view, _ in repeated]
        sample_V, slot_VM = (torch.tensor(index, device=device) for index in (sample, slot))
        patches.append(Patches(grid, sample_V, slot_VM, is_plain))
    return tuple(patches)


def inside(patches: Sequence[Patches], shape: Sequence[int]) -> Tensor:
    """True at the image tokens that belong to a view, [B, N]; `shape` is (B, N)."""
    inside_BN = torch.zeros(*shape, dtype=torch.bool, device=patches[0].sample_V.device)
    for p in patches:
        inside_BN[p.sample_V[:, None], p.slot_VM] = True
    return inside_BN


def anchors(
    maps_BLN: Tensor, patches: Sequence[Patches], debias: Mapping[Grid, Tensor] | None
) -> Tensor:
    """The anchor of each sample over all of its views, [B, N], sum 1; 0 outside of every view.

    Views are weighted by their share of the attention [ours]. `debias` holds a mask per grid; None
    does without. Raises InputError for a grid without a mask.
    """
    masks = [_mask(p.grid, debias, maps_BLN) for p in patches]
    if len(patches) == 1 and patches[0].is_plain:
        return visual_anchor(maps_BLN, patches[0].grid, masks[0])
    anchor_BN = torch.zeros_like(maps_BLN[:, 0])
    for p, mask_M in zip(patches, masks, strict=True):
        maps_VLM = p.of(maps_BLN)
        mass_V1 = maps_VLM.mean(1).sum(-1, keepdim=True)
        anchor_VM = visual_anchor(maps_VLM, p.grid, mask_M)
        anchor_BN[p.sample_V[:, None], p.slot_VM] = mass_V1 * anchor_VM
    return normalised(anchor_BN)


def _mask(grid: Grid, debias: Mapping[Grid, Tensor] | None, like: Tensor) -> Tensor:
    if debias is None:
        return like.new_ones(grid[0] * grid[1])
    if grid not in debias:
        shape = f"{grid[0]} x {grid[1]}"
        raise InputError(f"no debias mask for the grid {shape}: estimate it on such an image")
    return debias[grid]
