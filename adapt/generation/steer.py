"""Attention-supervised inference (ASI): attention to the image, watched and pulled back.

docs/method.md, section 3. Published (arXiv 2606.31054): where the match of a token's attention with
the anchor falls below a threshold, add `alpha * log(w_i + eps)` to the image logits of that step
before the softmax [paper]. Ours, measured in docs/log.md:

* The threshold is relative to the mean of the K anchor tokens, per layer; an absolute one would
  fire at every step [ours].
* `trigger`: "amc" is S_AMC [paper]; "mass" is the visual mass, whose decay is what precedes
  hallucinations [ours].
* `anchor_share` s: the bias is `alpha * (1 - s + s * log(w_i + eps))`, w scaled to mean 1. With
  s = 1 it moves attention between patches [paper]; with s = 0 it gives the image back the mass that
  it has lost [ours].
* `layers`: where to steer; in the last layers, which turn to the next word, it does harm [ours].

The rule is `floor` and `bias` (once, after K tokens), then `fires` at every step and layer. Every
step, layer and sample goes the same way through it: the bias is 0 where it does not fire, so that
SDPA runs once, and nothing waits for the device.

Shapes: B answers, H heads, S source positions, N image tokens, L layers, T generated tokens,
D head size.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adapt.attention.anchor import inside
from adapt.attention.bias import ImageBias
from adapt.attention.capture import Call, Observer, layer_count
from adapt.attention.layout import Grid, Layout
from adapt.attention.rows import Columns, last_row
from adapt.attention.settings import Layers, beyond, includes
from adapt.attention.signals import amc
from adapt.attention.trace import Attention, Trace
from adapt.generation.settings import SteerConfig
from adapt.params import InputError, require

BIAS_EPS = 1e-3  # keeps log(w) finite where the anchor is 0


def level(maps_BN: Tensor, anchor_BN: Tensor, trigger: str) -> Tensor:
    """What is watched: visual mass, or S_AMC with the anchor; [B], or more dimensions before N."""
    return maps_BN.sum(-1) if trigger == "mass" else amc(maps_BN, anchor_BN)


def floor(maps_BTLN: Tensor, anchor_BN: Tensor, steer: SteerConfig) -> Tensor:
    """The level below which steering steps in, [B, L]: tau times the mean of the K anchor tokens.

    It is -1, which no level falls below, in layers that are left alone.
    """
    floor_BL = steer.tau * level(maps_BTLN, anchor_BN[:, None, None], steer.trigger).mean(1)
    steered = [includes(steer.layers, layer) for layer in range(floor_BL.shape[1])]
    return floor_BL.masked_fill(~torch.tensor(steered, device=floor_BL.device), -1.0)


def fires(
    a_BN: Tensor, anchor_BN: Tensor, floor_B: Tensor, trigger: str, to: Tensor | None = None
) -> Tensor:
    """Where a step's attention has decayed, [B]; never where a window has no image left.

    `to`: where that is written.
    """
    mass_B = a_BN.sum(-1)
    level_B = mass_B if trigger == "mass" else level(a_BN, anchor_BN, trigger)
    return torch.logical_and(level_B < floor_B, mass_B > 0, out=to)


def bias(anchor_BN: Tensor, inside_BN: Tensor, alpha: float, anchor_share: float) -> Tensor:
    """What is added to the image logits, [B, N]: alpha (1 - s + s log(w + eps)), w of mean 1.

    It is 0 outside of all views.

    >>> bias(torch.tensor([[0.75, 0.25]]), torch.tensor([[True, True]]), 2.0, 0.0)
    tensor([[2., 2.]])
    """
    w_BN = anchor_BN * inside_BN.sum(1, keepdim=True)
    return alpha * (1 - anchor_share + anchor_share * (w_BN + BIAS_EPS).log()) * inside_BN


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What is fixed once the anchor tokens have been generated."""

    anchor_BN: Tensor
    bias: ImageBias
    floor_BL: Tensor
    trigger: str
    layers: Layers


class DecodeObserver(Observer):
    """Observer for one `generate`: attention of every token to the image, and steering on request.

    Args:
        layout: of the (left-padded) prompts, one for each answer.
        anchor_tokens: K, the tokens that the anchor is read from; steering starts after them.
        debias: debias masks by grid; None does without.
        steer: None only watches.

    Greedy decoding and sampling only: InputError for beam search (answers move between rows),
    assisted decoding and a prompt in chunks (several tokens in a step).
    """

    def __init__(
        self,
        layout: Layout,
        anchor_tokens: int,
        debias: Mapping[Grid, Tensor] | None = None,
        steer: SteerConfig | None = None,
    ) -> None:
        self.layout, self.columns_BN = layout, layout.columns_BN
        self._columns = Columns(self.columns_BN, padded=bool((self.columns_BN < 0).any()))
        self.anchor_tokens, self.debias = anchor_tokens, debias
        self.steer = steer if steer is not None and steer.alpha > 0 and steer.tau > 0 else None
        self._trace: Trace | None = None
        self._rule: _Rule | None = None
        self._layers = self._steps = 0
        # Where the answers begin, which is one column for all prompts of a padded batch.
        self._start = 0
        # Positions that have been through the model, also those that a window has dropped.
        self._length = 0
        # Which answers may be steered from here on; None: all.
        self._may_B: Tensor | None = None
        # Length of each layer's cache at the latest step.
        self._cached: dict[int, int] = {}
        # Of the latest call: how many layers came before it in its step, and its index.
        self._slot = self._layer = -1

    def may_steer(self, may_B: Tensor) -> None:
        """Which answers may be steered from the next step on; all, until it is said."""
        self._may_B = may_B

    def start(self, model: nn.Module) -> None:
        """InputError for layers to steer that the model lacks."""
        self._layers = layer_count(model)
        missing = beyond(self.steer.layers, self._layers) if self.steer else []
        problem = f"the model has layers 0 to {self._layers - 1}, got {missing}"
        require(not missing, "steer.layers", problem)

    def observe(self, call: Call) -> Tensor:
        """Called once per layer and step; only the last query row generates a token."""
        layer = call.layer
        if layer <= self._layer or not self._steps:
            self._start_step(call)
        self._layer, self._slot = layer, self._slot + 1
        trace, rule = self._trace, self._rule
        assert trace is not None
        keys = call.attended_keys()
        dropped = self._length - keys.shape[2]
        # 1. Where nothing is steered the attention can wait for that of other steps, if the cache
        # grows: a fixed one, or a window, may write over its keys.
        is_free = rule is None or not includes(rule.layers, self._slot)
        if self._has_grown(call) and is_free and not dropped:
            trace.defer(self._slot, call, keys)
            return call.attend()
        # 2. The token's attention to the image, exact, before any steering.
        p_BHS = last_row(call.query_BHSD, keys, call.mask, call.scaling)
        p_BHN, own_BH = self._seen(dropped).of(p_BHS), self._own(p_BHS, dropped)
        a_BN = torch.mean(p_BHN, 1, out=trace.map_at(self._slot))
        if rule is None:
            torch.mean(own_BH, 1, out=trace.prelim_at(self._slot))
            return call.attend()
        # 3. Has it decayed below this layer's floor?
        floor_B, fired_B = rule.floor_BL[:, self._slot], trace.fired_at(self._slot)
        fires(a_BN, rule.anchor_BN, floor_B, rule.trigger, to=fired_B)
        if self._may_B is not None:
            fired_B &= self._may_B
        # 4. The bias where it has; what is recorded is the attention that SDPA then has.
        rule.bias.add(self._slot, p_BHN, own_BH, fired_B)
        return call.attend(rule.bias.mask(call, fired_B, max(dropped, 0)))

    def _record(self) -> None:
        """The attention that SDPA has had in the layers that were steered since the last time."""
        if self._rule is None or self._trace is None:
            return
        for first, maps_LBN, prelim_LB in self._rule.bias.computed():
            self._trace.replace(first, maps_LBN, prelim_LB)

    def _has_grown(self, call: Call) -> bool:
        """Whether the layer's cache is longer by this step's token; never at the prompt."""
        before, now = self._cached.get(self._slot, -1), call.key_BKSD.shape[2]
        self._cached[self._slot] = now
        return now == before + 1

    def _seen(self, dropped: int) -> Columns:
        """The image tokens among the keys of a window that has dropped some positions."""
        return self._columns if dropped <= 0 else Columns((self.columns_BN - dropped).clamp_min(-1))

    def _own(self, p_BHS: Tensor, dropped: int) -> Tensor:
        """Attention to the answer's own tokens, that of the query among them: [B, H].

        `dropped`: positions that a window has left behind, of the prompt first.
        """
        start = max(self._start - max(dropped, 0), 0)
        return p_BHS[:, :, start:].sum(-1)

    def _start_step(self, call: Call) -> None:
        B, heads, length, _ = call.query_BHSD.shape
        if len(self.columns_BN) != B:
            problem = f"generation has {B} rows where {len(self.columns_BN)} answers are expected"
            advice = "set num_beams and num_return_sequences to 1"
            raise InputError(f"{problem}: beam search cannot be observed; {advice}")
        if self._steps and length != 1:
            kinds = "assisted decoding, a prompt in chunks and generation without a cache"
            problem = f"generation takes a step of {length} tokens"
            raise InputError(f"{problem}: {kinds} cannot be observed")
        if self._trace is None:
            self._start = length
            rows = B * heads * length
            of = (self.layout, self.debias, self._layers, length, self.anchor_tokens, rows)
            self._trace = Trace(*of, by_one=self._may_B is not None)
        self._record()
        self._trace.begin()
        if self.steer and self._steps == self.anchor_tokens:
            self._rule = self._fixed(self.steer, self._trace)
        self._steps, self._length, self._slot = self._steps + 1, self._length + length, -1

    def _fixed(self, steer: SteerConfig, trace: Trace) -> _Rule:
        anchor_BN = trace.anchor()
        inside_BN = inside(trace.patches, self.columns_BN.shape)
        bias_BN = bias(anchor_BN, inside_BN, steer.alpha, steer.anchor_share)
        floor_BL = floor(trace.first(), anchor_BN, steer)
        image_bias = ImageBias(bias_BN, self.columns_BN)
        return _Rule(anchor_BN, image_bias, floor_BL, steer.trigger, steer.layers)

    @property
    def trace(self) -> Trace:
        """The recorder, up to date; InputError where nothing was generated in the block."""
        self._record()
        if self._trace is None:
            raise InputError("no step was seen: generate in the block, in the thread that entered")
        return self._trace

    def attention(self, mask_BT: Tensor) -> Attention:
        """What was seen, of the T tokens of `mask_BT`, true for those of an answer."""
        return self.trace.finish(mask_BT)
