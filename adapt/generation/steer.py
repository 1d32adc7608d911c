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

The rule is `floor` (once, after K tokens), then at every step and layer `fires`, `bias` and
`_reweighted`. Every step, layer and sample goes the same way through it: the bias is 0 where it
does not fire, so that SDPA runs once, and nothing waits for the device.

Shapes: B answers, H heads, S source positions, N image tokens, L layers, T generated tokens,
D head size.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adapt.attention.anchor import inside
from adapt.attention.capture import Call, Observer, layer_count
from adapt.attention.layout import Grid, Layout
from adapt.attention.rows import columns_of, last_row
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


def fires(a_BN: Tensor, anchor_BN: Tensor, floor_B: Tensor, trigger: str) -> Tensor:
    """Where a step's attention has decayed, [B]; never where a window has no image left."""
    return (level(a_BN, anchor_BN, trigger) < floor_B) & (a_BN.sum(-1) > 0)


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
    bias_BN: Tensor
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
        columns_BN = _in_window(self.columns_BN, dropped)
        p_BHS = last_row(call.query_BHSD, keys, call.mask, call.scaling)
        p_BHN, own_BH = columns_of(p_BHS, columns_BN), self._own(p_BHS, dropped)
        a_BN, prelim_B = trace.map_at(self._slot), trace.prelim_at(self._slot)
        torch.mean(p_BHN, 1, out=a_BN)
        if rule is None:
            torch.mean(own_BH, 1, out=prelim_B)
            return call.attend()
        # 3. Has it decayed below this layer's floor?
        floor_B, fired_B = rule.floor_BL[:, self._slot], trace.fired_at(self._slot)
        fired_B.copy_(fires(a_BN, rule.anchor_BN, floor_B, rule.trigger))
        if self._may_B is not None:
            fired_B &= self._may_B
        # 4. The bias where it has; what is recorded is the attention that SDPA then has.
        bias_BN = rule.bias_BN * fired_B[:, None]
        after_BN, own_B = _reweighted(p_BHN, own_BH, bias_BN)
        a_BN.copy_(after_BN)
        prelim_B.copy_(own_B)
        return call.attend(_with_bias(call, columns_BN, bias_BN))

    def _has_grown(self, call: Call) -> bool:
        """Whether the layer's cache is longer by this step's token; never at the prompt."""
        before, now = self._cached.get(self._slot, -1), call.key_BKSD.shape[2]
        self._cached[self._slot] = now
        return now == before + 1

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
        self._trace.begin()
        if self.steer and self._steps == self.anchor_tokens:
            self._rule = self._fixed(self.steer, self._trace)
        self._steps, self._length, self._slot = self._steps + 1, self._length + length, -1

    def _fixed(self, steer: SteerConfig, trace: Trace) -> _Rule:
        anchor_BN = trace.anchor()
        inside_BN = inside(trace.patches, self.columns_BN.shape)
        bias_BN = bias(anchor_BN, inside_BN, steer.alpha, steer.anchor_share)
        floor_BL = floor(trace.first(), anchor_BN, steer)
        return _Rule(anchor_BN, bias_BN, floor_BL, steer.trigger, steer.layers)

    @property
    def trace(self) -> Trace:
        """The recorder; InputError where nothing was generated in the block."""
        if self._trace is None:
            raise InputError("no step was seen: generate in the block, in the thread that entered")
        return self._trace

    def attention(self, mask_BT: Tensor) -> Attention:
        """What was seen, of the T tokens of `mask_BT`, true for those of an answer."""
        return self.trace.finish(mask_BT)


def _in_window(columns_BN: Tensor, dropped: int) -> Tensor:
    """Columns among the keys of a window that has dropped some positions; -1 for those dropped.

    >>> _in_window(torch.tensor([[1, 2, 3, -1]]), 2)
    tensor([[-1,  0,  1, -1]])
    """
    return columns_BN if dropped <= 0 else (columns_BN - dropped).clamp_min(-1)


def _reweighted(p_BHN: Tensor, own_BH: Tensor, bias_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over heads of the softmax with `bias_BN` on its logits, from the one without.

    softmax(s + b)_i = p_i e^{b_i} / sum_j p_j e^{b_j}, and the sum is 1 + sum_j p_j (e^{b_j} - 1),
    which needs the image tokens alone. Returns that of the image tokens, [B, N], and the sum of
    that of the answer's own tokens, whose b is 0, [B].
    """
    gain_B1N = bias_BN.expm1()[:, None]
    total_BH1 = 1 + (p_BHN * gain_B1N).sum(-1, keepdim=True)
    after_BN = (p_BHN * (1 + gain_B1N) / total_BH1).mean(1)
    return after_BN, (own_BH / total_BH1[:, :, 0]).mean(1)


def _with_bias(call: Call, columns_BN: Tensor, bias_BN: Tensor) -> Tensor:
    """The step's mask with the bias at the image columns, [B, 1 or H, 1, S] in query's dtype."""
    bias_BS = bias_BN.new_zeros(len(bias_BN), call.key_BKSD.shape[2])
    bias_BS.scatter_add_(1, columns_BN.clamp_min(0), bias_BN * (columns_BN >= 0))
    bias_B11S = bias_BS[:, None, None].to(call.query_BHSD.dtype)
    if call.mask is None:
        return bias_B11S
    mask = call.mask[..., : bias_B11S.shape[3]]
    is_bool = mask.dtype == torch.bool
    return bias_B11S.masked_fill(~mask, -torch.inf) if is_bool else bias_B11S + mask
