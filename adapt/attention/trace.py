"""What is kept of an answer's attention to the image while it is generated: sums, not maps.

A map for every token and layer, [B, T, L, N], is the largest thing that decoding would ever make:
36 GB for 64 answers of 512 tokens to pictures of 2,880 tokens. The signals of docs/method.md,
section 1, need five numbers for every token and layer, and one map over all layers. Only the maps
of the first K tokens are kept as they are: the anchor is read from them.

All layers of some steps are reduced at once, when these are over, so that a step costs a part of a
handful of operations, whatever the number of layers. Where nothing is steered, their attention is
computed together, too (`adapt/attention/deferred.py`).

Shapes: B answers, T generated tokens, L layers, N image tokens, K anchor tokens, n steps.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adapt.attention import signals
from adapt.attention.anchor import anchors, by_grid
from adapt.attention.capture import Call
from adapt.attention.deferred import Deferred
from adapt.attention.layout import Grid, Layout
from adapt.attention.signals import amc, entropy, normalised

IN_FLIGHT = 2**18  # numbers of the steps that are reduced together: 1 MiB, or one step's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """The attention of some answers to their images; see the module docstring.

    `first_BKLN`: maps of the first K tokens (fewer where all answers are shorter). `heat_BTN`: the
    map of each token, mean over layers. `mass_BTL`, `entropy_BTL` (nats, of the map as a
    distribution) and `amc_BTL` (S_AMC with the anchor, `anchor_BN`) of each token and layer;
    `prelim_BTL`: attention to the answer's own tokens so far (mean over heads), 0 for the first;
    `fired_BTL`: where steering stepped in. What stands behind the end of an answer is void.
    """

    first_BKLN: Tensor
    heat_BTN: Tensor
    mass_BTL: Tensor
    entropy_BTL: Tensor
    amc_BTL: Tensor
    prelim_BTL: Tensor
    fired_BTL: Tensor
    anchor_BN: Tensor

    def signals(self, counts_B: Tensor, mask_BT: Tensor, anchor_tokens: int) -> dict[str, Tensor]:
        """Every signal of `SIGNALS`, each [B, T].

        `counts_B`: image tokens of each answer's own prompt; `mask_BT`: the tokens of the answers.
        """
        return {
            "mass": signals.visual_mass(self.mass_BTL),
            "focus": signals.focus(self.entropy_BTL, counts_B),
            "amc": signals.relative_amc(self.amc_BTL, mask_BT, anchor_tokens),
            "responsiveness": signals.responsiveness(self.heat_BTN, mask_BT),
            "drift": signals.drift(self.heat_BTN, self.anchor_BN),
        }


def mean_of_first(first_BKLN: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean map over the first K tokens of each answer, or all of a shorter one: [B, L, N]."""
    weight_BK = mask_BT[:, : first_BKLN.shape[1]].to(first_BKLN.dtype, copy=True)
    weight_BK[:, 0] = 1  # an empty answer still has the step that chose to end it
    total_BLN = (first_BKLN * weight_BK[:, :, None, None]).sum(1)
    return total_BLN / weight_BK.sum(1)[:, None, None]


def together(maps: int, rows: int) -> int:
    """How many steps are reduced at once: a power of two, as `IN_FLIGHT` holds, one at least.

    `maps`: numbers of a step's maps, L B N, which are there four times while they are summed up;
    `rows`: B H S, of a layer's logits, which are there three times with their softmax.

    >>> together(3 * 36, 4 * 90), together(12 * 576, 12 * 640), together(32 * 576, 32 * 640)
    (16, 4, 1)
    """
    fitting = max(1, min(Series.STEPS, IN_FLIGHT // (4 * maps + 3 * rows)))
    return 1 << fitting.bit_length() - 1


class Trace:
    """Recorder of one generation.

    Every step begins with `begin`, and for each layer in turn either `map_at`, `prelim_at` and
    `fired_at` are filled, or `defer` is called; what is there of a step may be put in the place of
    another by `replace`, until the next begins. Steps are reduced in groups, which end with the
    K-th step and with each n-th (`together`). These hang on sizes alone, so that the same steps
    come out of the same products, to the last bit, whatever is steered later and whoever reads
    between groups.

    Args:
        layout: of the prompts, one for each answer.
        debias: of the anchor, as `adapt.attention.anchor.anchors` takes it.
        layers: at most. start: length of the (padded) prompts.
        anchor_tokens: K.
        rows: numbers that a step has for each layer besides its maps, B * H * S.
        by_one: whether each step is to be reduced by itself, since the next one hangs on it.
    """

    def __init__(
        self,
        layout: Layout,
        debias: Mapping[Grid, Tensor] | None,
        layers: int,
        start: int,
        anchor_tokens: int,
        rows: int,
        by_one: bool = False,
    ) -> None:
        self.patches, self.debias, self.anchor_tokens = by_grid(layout), debias, anchor_tokens
        B, N = layout.columns_BN.shape
        shape, device = (layers, B, N), layout.columns_BN.device
        self._most = 1 if by_one else together(layers * B * N, rows)
        self._first_KLBN = torch.zeros(anchor_tokens, *shape, device=device)
        self._maps_nLBN = torch.zeros(self._most, *shape, device=device)
        self._heat = Series((B, N), torch.float32, device)
        of_layers = ((B, layers), torch.float32, device)
        self._mass, self._entropy, self._amc, self._prelim = (Series(*of_layers) for _ in range(4))
        self._fired = Series((B, layers), torch.bool, device)
        self._deferred = Deferred(layout.columns_BN, start)
        self._step, self._since, self._layers = -1, 0, 0
        self._anchor_BN: Tensor | None = None

    def begin(self) -> None:
        """The next step of the generation."""
        step = self._step + 1
        if self.ends_group(step):
            self._reduce()
            for _, series in self._series():
                series.reach(step)
        self._step = step

    def ends_group(self, steps: int) -> bool:
        """Whether so many steps are whole groups."""
        return steps % self._most == 0 or steps == self.anchor_tokens

    def map_at(self, layer: int) -> Tensor:
        """The place of this step's map of a layer, [B, N], to be filled."""
        self._layers = max(self._layers, layer + 1)
        return self._maps_nLBN[self._step - self._since, layer]

    def prelim_at(self, layer: int) -> Tensor:
        """The place of a layer's attention to the answer so far, [B], to be filled."""
        return self._prelim.at(self._step)[:, layer]

    def fired_at(self, layer: int) -> Tensor:
        """The place of whether this step was steered in a layer, [B], to be filled."""
        return self._fired.at(self._step)[:, layer]

    def replace(self, first: int, maps_LBN: Tensor, prelim_LB: Tensor) -> None:
        """Maps and attention to the answer so far of this step, of some layers from `first` on."""
        last = first + len(maps_LBN)
        self._maps_nLBN[self._step - self._since, first:last] = maps_LBN
        self._prelim.at(self._step)[:, first:last] = prelim_LB.T

    def defer(self, layer: int, call: Call, keys: Tensor) -> None:
        """Compute this step of a layer later; `keys`: all since the first position."""
        self._layers = max(self._layers, layer + 1)
        self._deferred.add(layer, self._step, call, keys)

    def first(self) -> Tensor:
        """Maps of the steps that have been reduced, K at most: [B, K, L, N]."""
        steps = min(self._since, self.anchor_tokens)
        return self._first_KLBN[:steps, : self._layers].movedim(2, 0)

    def anchor(self) -> Tensor:
        """The anchor of the K anchor tokens, [B, N]; only once they have been generated."""
        if self._anchor_BN is None:
            first_BKLN = self.first()
            every_BK = torch.ones(first_BKLN.shape[:2], device=first_BKLN.device)
            maps_BLN = mean_of_first(first_BKLN, every_BK)
            self._anchor_BN = anchors(maps_BLN, self.patches, self.debias)
        return self._anchor_BN

    def finish(self, mask_BT: Tensor) -> Attention:
        """What was recorded of the T tokens of `mask_BT`, true for those of an answer.

        The recorder is empty afterwards.
        """
        self._reduce()
        # A device may run a step ahead of the check that an answer has ended.
        steps = mask_BT.shape[1]
        assert self._step + 1 in (steps, steps + 1), "one observed step per generated token"
        return self._recorded(mask_BT, {name: of.stacked(steps) for name, of in self._series()})

    def upto(self, mask_BT: Tensor) -> Attention:
        """The same of the first T tokens, in the middle of a generation."""
        self._reduce()
        return self._recorded(mask_BT, self._between(0, mask_BT.shape[1]))

    def between(self, start: int, stop: int) -> Attention:
        """What was recorded of some steps behind the K-th, in the middle of a generation.

        `first_BKLN` is empty: the step before the first of them may be among the K.
        """
        self._reduce()
        values = self._between(start, stop)
        nothing = values["heat_BTN"].new_zeros(0)
        return Attention(first_BKLN=nothing, anchor_BN=self.anchor(), **self._of_layers(values))

    def _recorded(self, mask_BT: Tensor, values: dict[str, Tensor]) -> Attention:
        first_BKLN = self.first()[:, : mask_BT.shape[1]].contiguous()
        is_whole = first_BKLN.shape[1] == self.anchor_tokens
        if is_whole and bool(mask_BT[:, : self.anchor_tokens].all()):
            anchor_BN = self.anchor()
        else:
            # An answer shorter than K has its anchor from fewer tokens, all of them among these.
            anchor_BN = anchors(mean_of_first(first_BKLN, mask_BT), self.patches, self.debias)
        kept = self._of_layers(values)
        kept["amc_BTL"][:, : first_BKLN.shape[1]] = amc(first_BKLN, anchor_BN[:, None, None])
        return Attention(first_BKLN=first_BKLN, anchor_BN=anchor_BN, **kept)

    def _of_layers(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values of the layers that were seen."""
        return {
            name: value if name == "heat_BTN" else value[:, :, : self._layers]
            for name, value in values.items()
        }

    def _between(self, start: int, stop: int) -> dict[str, Tensor]:
        return {name: of.between(start, stop) for name, of in self._series()}

    def _series(self) -> tuple[tuple[str, "Series"], ...]:
        """What is kept of every step, by its name among the fields of `Attention`."""
        return (
            ("heat_BTN", self._heat),
            ("mass_BTL", self._mass),
            ("entropy_BTL", self._entropy),
            ("amc_BTL", self._amc),
            ("prelim_BTL", self._prelim),
            ("fired_BTL", self._fired),
        )

    def _reduce(self) -> None:
        """The sums of the steps that are over, once."""
        start, stop = self._since, self._step + 1
        if start == stop:
            return
        # 1. The attention that has waited.
        for layer, since, maps_BnN, prelim_Bn in self._deferred.computed():
            first, last = since - start, since - start + maps_BnN.shape[1]
            self._maps_nLBN[first:last, layer] = maps_BnN.transpose(0, 1)
            self._prelim.part(start + first, start + last)[:, :, layer] = prelim_Bn.T
        # 2. Its sums over all layers of these steps.
        L = self._layers
        a_nLBN = self._maps_nLBN[: stop - start, :L]
        torch.mean(a_nLBN, 1, out=self._heat.part(start, stop))
        self._mass.part(start, stop)[:, :, :L] = a_nLBN.sum(-1).transpose(1, 2)
        self._entropy.part(start, stop)[:, :, :L] = entropy(normalised(a_nLBN)).transpose(1, 2)
        self._since = stop
        # 3. The first K are kept, and the later ones compared with their anchor.
        if stop <= self.anchor_tokens:
            self._first_KLBN[start:stop, :L] = a_nLBN
        else:
            self._amc.part(start, stop)[:, :, :L] = amc(a_nLBN, self.anchor()).transpose(1, 2)


class Series:
    """One value per step, in blocks of some steps.

    Many small tensors that stay would lie between the blocks of memory which a growing cache takes
    and gives back, and keep them from being used again: measured, that costs more than the capture
    itself.
    """

    STEPS = 16

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._options = shape, {"dtype": dtype, "device": device}
        self._blocks: list[Tensor] = []  # each [STEPS, *shape]

    def reach(self, step: int) -> None:
        """Make room for this step."""
        if step >= self.STEPS * len(self._blocks):
            self._blocks.append(torch.zeros(self.STEPS, *self._shape, **self._options))

    def at(self, step: int) -> Tensor:
        """The place of one step's value, to be filled."""
        return self._blocks[step // self.STEPS][step % self.STEPS]

    def part(self, start: int, stop: int) -> Tensor:
        """The places of some steps of one block, [stop - start, ...], to be filled."""
        block, first = divmod(start, self.STEPS)
        assert stop <= (block + 1) * self.STEPS, "steps of one block"
        return self._blocks[block][first : first + stop - start]

    def between(self, start: int, stop: int) -> Tensor:
        """The values of the steps from `start` to `stop`, [B, stop - start, ...]; all stay."""
        starts = [start, *range((start // self.STEPS + 1) * self.STEPS, stop, self.STEPS)]
        parts = [self.part(*pair) for pair in itertools.pairwise([*starts, stop])]
        return torch.cat(parts).transpose(0, 1)

    def stacked(self, steps: int) -> Tensor:
        """The values of so many steps, [B, T, ...]; the blocks go as they are copied."""
        out = torch.empty(self._shape[0], steps, *self._shape[1:], **self._options)
        for start in range(0, steps, self.STEPS):
            part = self._blocks.pop(0).movedim(0, 1)
            out[:, start : start + self.STEPS] = part[:, : steps - start]
        return out
