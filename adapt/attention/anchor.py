"""The cross-attention visual anchor: where the image supports the answer, read from the first K
generated tokens.

Marks: [paper] published (arXiv 2606.31054), [release] only in the authors' code, [ours] our
decision. Everything is batched over samples and layers and stays on the device. A batch whose
images have different grids, or several views each, takes one pass per distinct grid.

Shapes: B batch, L layers, N image tokens, V views of one grid, M = rows * cols of a grid, X x Y
pixels, C channels.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.attention.layout import Layout, View
from adapt.attention.signals import EPS, entropy, normalised
from adapt.params import InputError

Grid = tuple[int, int]


def spectral_score(maps_BLN: Tensor, grid: Grid) -> Tensor:
    """S_spec = 1 - |high(A_l) - ideal(l)|, [B, L] [release].

    high: share of the 2-D FFT power beyond a quarter of the largest radius; ideal falls from 0.8
    (first layer) to 0.2.
    """
    B, L, _ = maps_BLN.shape
    power = torch.fft.fft2(maps_BLN.float().view(B, L, *grid)).abs().square()
    y, x = (torch.fft.fftfreq(n, device=maps_BLN.device) for n in grid)
    radius = (y[:, None].square() + x[None].square()).sqrt()
    high = (power * (radius > radius.max() / 4)).sum((-2, -1)) / power.sum((-2, -1)).clamp_min(EPS)
    return 1 - (high - torch.linspace(0.8, 0.2, L, device=maps_BLN.device)).abs()


def smoothness_score(maps_BLN: Tensor, grid: Grid) -> Tensor:
    """S_smooth = 1 / (1 + mean |grad A|^2), [B, L], on maps scaled to [0, 1] [ours: unscaled it is
    1 everywhere].
    """
    low, high = maps_BLN.amin(-1, keepdim=True), maps_BLN.amax(-1, keepdim=True)
    a = ((maps_BLN - low) / (high - low).clamp_min(EPS)).view(*maps_BLN.shape[:2], *grid)
    down, right = a.diff(dim=-2).square(), a.diff(dim=-1).square()
    return 1 / (1 + (down.sum((-2, -1)) + right.sum((-2, -1))) / maps_BLN.shape[-1])


def focus_score(maps_BLN: Tensor) -> Tensor:
    """S_focus = 1 - entropy / log N, [B, L]."""
    N = maps_BLN.shape[-1]
    return 1 - entropy(normalised(maps_BLN)) / max(math.log(N), EPS)


def layer_weights(maps_BLN: Tensor, grid: Grid) -> Tensor:
    """W = softmax(10 * minmax(0.4 S_spec + 0.3 S_smooth + 0.3 S_focus)) over layers, [B, L]
    [release].
    """
    s = (
        0.4 * spectral_score(maps_BLN, grid)
        + 0.3 * smoothness_score(maps_BLN, grid)
        + 0.3 * focus_score(maps_BLN)
    )
    low, high = s.amin(1, keepdim=True), s.amax(1, keepdim=True)
    return torch.softmax(10 * (s - low) / (high - low).clamp_min(EPS), dim=1)


def visual_anchor(maps_BLN: Tensor, grid: Grid, debias_N: Tensor) -> Tensor:
    """anchor = (sum_l W_l A_l) * M_debias, scaled to sum 1: [B, N] [paper; the scale is ours].

    Args:
        maps_BLN: mean attention over the first K generated tokens, per layer.
        debias_N: `debias_mask` of the same model and grid (ones: no debiasing).
    """
    weights_BL = layer_weights(maps_BLN, grid)
    return normalised((weights_BL[:, :, None] * maps_BLN).sum(1) * debias_N)


@dataclasses.dataclass(frozen=True)
class Patches:
    """The views of one grid in a batch: patch m of view v is image token `slot_VM[v, m]` of sample
    `sample_V[v]`.

    `is_plain`: they are all that the batch has, one view per sample that covers its image tokens in
    order.
    """

    grid: Grid
    sample_V: Tensor
    slot_VM: Tensor
    is_plain: bool

    def of(self, maps_BLN: Tensor) -> Tensor:
        """The views' own maps, [V, L, M]."""
        return maps_BLN[self.sample_V].gather(
            2, self.slot_VM[:, None].expand(-1, maps_BLN.shape[1], -1)
        )


def by_grid(layout: Layout, samples: int = 1) -> tuple[Patches, ...]:
    """The views of a batch, one entry per distinct grid; `samples` answers to a prompt stand side
    by side.

    >>> views = (View(0, 0, "tile", (1, 2), (3, 4)), View(0, 0, "tile", (1, 2), (6, 7)))
    >>> patches, = by_grid(Layout(torch.tensor([[3, 4, 5, 6, 7]]), views), samples=2)
    >>> patches.sample_V.tolist(), patches.slot_VM.tolist(), patches.is_plain
    ([0, 1, 0, 1], [[0, 1], [0, 1], [3, 4], [3, 4]], False)
    """
    device, columns = layout.columns_BN.device, layout.columns_BN.tolist()
    slot_of = [{column: n for n, column in enumerate(row)} for row in columns]
    groups: dict[Grid, list[View]] = {}
    for view in layout.views:
        groups.setdefault(view.grid, []).append(view)
    is_plain = [view.sample for view in layout.views] == list(range(len(columns))) and all(
        list(view.columns) == columns[view.sample] for view in layout.views
    )
    found = []
    for grid, views in groups.items():
        sample = [view.sample * samples + n for view in views for n in range(samples)]
        slot = [
            [slot_of[view.sample][column] for column in view.columns]
            for view in views
            for _ in range(samples)
        ]
        found.append(
            Patches(
                grid,
                torch.tensor(sample, device=device),
                torch.tensor(slot, device=device),
                is_plain,
            )
        )
    return tuple(found)


def inside(patches: Sequence[Patches], shape: Sequence[int]) -> Tensor:
    """True at the image tokens that belong to a view, [B, N]; `shape` is (B, N)."""
    inside_BN = torch.zeros(*shape, dtype=torch.bool, device=patches[0].sample_V.device)
    for p in patches:
        inside_BN[p.sample_V[:, None], p.slot_VM] = True
    return inside_BN


def anchors(
    maps_BLN: Tensor, patches: Sequence[Patches], debias: Mapping[Grid, Tensor] | None
) -> Tensor:
    """`visual_anchor` of every view, weighted by the view's share of the attention [ours]: [B, N],
    sum 1.

    Tokens outside all views get 0. `debias`: a mask per grid; None does without.

    Raises InputError for a grid without a mask.
    """
    missing = [p.grid for p in patches if debias is not None and p.grid not in debias]
    if missing:
        raise InputError(
            f"no debias mask for the grid {missing[0][0]} x {missing[0][1]}: estimate it on such an image"
        )
    masks = [
        maps_BLN.new_ones(p.grid[0] * p.grid[1]) if debias is None else debias[p.grid]
        for p in patches
    ]
    if len(patches) == 1 and patches[0].is_plain:
        return visual_anchor(maps_BLN, patches[0].grid, masks[0])
    found_BN = torch.zeros_like(maps_BLN[:, 0])
    for p, mask_M in zip(patches, masks, strict=True):
        maps_VLM = p.of(maps_BLN)
        mass_V1 = maps_VLM.mean(1).sum(-1, keepdim=True)
        found_BN[p.sample_V[:, None], p.slot_VM] = mass_V1 * visual_anchor(maps_VLM, p.grid, mask_M)
    return normalised(found_BN)


def debias_mask(noise_maps_BLN: Tensor) -> Tensor:
    """Damping of positions that draw attention whatever the image, [N] in (0, 1] [paper: idea; form
    ours].

    From maps on images of pure noise: a position with k > 1 times its uniform share is damped to 1
    / k, others stay.
    """
    share_N = normalised(noise_maps_BLN.mean((0, 1)))
    return 1 / (share_N * share_N.shape[0]).clamp_min(1.0)


def pixel_mask(anchor_BN: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """The anchor as a soft mask over the image, [B, 1, X, Y] in [0, 1], bilinearly upsampled from
    the patch grid.
    """
    low, high = anchor_BN.amin(1, keepdim=True), anchor_BN.amax(1, keepdim=True)
    scaled = ((anchor_BN - low) / (high - low).clamp_min(EPS)).view(-1, 1, *grid)
    return F.interpolate(scaled, size=size, mode="bilinear", align_corners=False)


def enhanced(pixels_BCXY: Tensor, mask_B1XY: Tensor, white_C: Tensor) -> Tensor:
    """v+ = v * m + white * (1 - m) [paper]: what the anchor does not support fades to white.

    `white_C` is white in the processor's normalised units: (1 - mean) / std.
    """
    return pixels_BCXY * mask_B1XY + white_C.view(1, -1, 1, 1) * (1 - mask_B1XY)


def noise_injected(pixels_BCXY: Tensor, noise_BCXY: Tensor, share: float) -> Tensor:
    """v- = sqrt(1 - s) v + sqrt(s) noise [ours]: `share` s of the power is Gaussian noise of unit
    variance.
    """
    return (1 - share) ** 0.5 * pixels_BCXY + share**0.5 * noise_BCXY
