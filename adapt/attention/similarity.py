"""How like its picture a token is: cosines of its hidden state with those of the image tokens.

An object that is there has a place in the picture, and the state from which its word is chosen
resembles the states of the patches that show it. "Cross-modal grounding consistency" takes the mean
of the k largest cosines, k = 5 (arXiv 2604.04863, CVPR 2026, and its release). Beside it stands the
mean over all patches, which a thing in one corner hardly moves.

The release takes all layers, from a further pass for each word. Here it is two places, and the pass
is generation's own:

* `middle`: behind the middle layer, `hidden_states[(L + 1) // 2]` in transformers' count, which for
  L = 2 is the first layer's output. Published: middle layers tell most;
* `last`: what the vocabulary's head reads, `hidden_states[L]`.

All layers would keep at least half as much again as the cache of keys and values; two keep N states
each. A step adds one product of N x D a place. Tokens that stand for no patch (row ends) are left
out, as in the anchor.

Shapes: B answers, T generated tokens, N image tokens, D hidden size, P places, M measures.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adapt.attention.anchor import by_grid, inside
from adapt.attention.capture import decoder_of
from adapt.attention.layout import Layout
from adapt.attention.rows import products
from adapt.attention.settings import MEASURES, PLACES
from adapt.attention.signals import EPS
from adapt.attention.trace import Series

NEAREST = 5  # k


class PatchSimilarity:
    """Recorder of one generation; `places`: those of `PLACES` to look at, in that order, or none.

    `layout` is that of the (left-padded) prompts, one for each answer.
    """

    def __init__(self, layout: Layout, places: Sequence[str] = PLACES) -> None:
        self.columns_BN, self.places = layout.columns_BN, tuple(places)
        if places:
            self._is_patch_BN = inside(by_grid(layout), self.columns_BN.shape)
        shape = (len(self.columns_BN), len(self.places), len(MEASURES))
        self._series = Series(shape, torch.float32, self.columns_BN.device)
        self._patches: dict[int, _Patches] = {}
        self._cosines: list[Tensor] = []  # of the step that is under way, each [B, N]
        self._step = 0

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """See the hidden states of the model's decoder in this thread, inside the block."""
        decoder, thread = decoder_of(model), threading.get_ident()
        layers: Any = decoder.layers
        modules = {"middle": layers[(len(layers) - 1) // 2], "last": decoder}
        with ExitStack() as hooks:
            for n, place in enumerate(self.places):

                def see(_: nn.Module, __: Any, output: Any, n: int = n) -> None:
                    if threading.get_ident() == thread:
                        self._see(n, output if isinstance(output, Tensor) else output[0])

                hooks.callback(modules[place].register_forward_hook(see).remove)
            yield

    def _see(self, n: int, states_BSD: Tensor) -> None:
        """One step at a place; the first is the prompt, and its last state chooses a token, too."""
        if n not in self._patches:
            self._patches[n] = _Patches(states_BSD, self.columns_BN)
        self._cosines.append(self._patches[n].cosines(states_BSD[:, -1]))
        # Behind the last place the step is over: all places are measured at once.
        if len(self._cosines) == len(self.places):
            self._series.reach(self._step)
            cosine_BPN = torch.stack(self._cosines, 1)
            self._series.at(self._step).copy_(measures(cosine_BPN, self._is_patch_BN))
            self._cosines.clear()
            self._step += 1

    def of(self, steps: int) -> Tensor:
        """What was seen of the first `steps` tokens, [B, T, P, M]; void after an answer ends."""
        if not self.places:
            shape = (len(self.columns_BN), steps, 0, len(MEASURES))
            return torch.zeros(shape, device=self.columns_BN.device)
        # A device may run a step ahead of the check that an answer has ended.
        assert self._step in (steps, steps + 1), "a step for each token"
        return self._series.stacked(steps)


class _Patches:
    """States of the image tokens at one place, as the model has them, and their lengths."""

    def __init__(self, states_BSD: Tensor, columns_BN: Tensor) -> None:
        index_BN1 = columns_BN.clamp_min(0)[:, :, None]
        states_BND = states_BSD.gather(1, index_BN1.expand(-1, -1, states_BSD.shape[2]))
        # Where halves cannot be multiplied as they are, they are converted once, not every step.
        self._states_BND = states_BND if states_BND.is_cuda else states_BND.float()
        self._length_BN = length(states_BND)

    def cosines(self, state_BD: Tensor) -> Tensor:
        """Cosine of one state a row with each image token's, [B, N] fp32; any value at padding."""
        dot_BN = products(self._states_BND, state_BD[:, :, None])[:, :, 0]
        return dot_BN / self._length_BN / length(state_BD)[:, None]


def length(states: Tensor) -> Tensor:
    """Euclidean length over the last dimension, in fp32 also of halves."""
    return torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32).clamp_min(EPS)


def measures(cosine_BPN: Tensor, is_patch_BN: Tensor) -> Tensor:
    """Mean of the `NEAREST` largest cosines and mean of all, of patches alone: [B, P, M].

    With fewer patches both are the mean.

    >>> cosines = torch.tensor([[[0.9, 0.5, 0.5, 0.5, 0.1, -0.1, 1.0]]])
    >>> is_patch = torch.tensor([[True] * 6 + [False]])
    >>> measures(cosines, is_patch)
    tensor([[[0.5000, 0.4000]]])
    """
    is_other_B1N, count_B1 = ~is_patch_BN[:, None], is_patch_BN.sum(1, keepdim=True)
    k = min(NEAREST, cosine_BPN.shape[2])
    top_BPk = cosine_BPN.masked_fill(is_other_B1N, -torch.inf).topk(k).values
    # Behind the patches of a picture that has fewer than k of them, nothing is added.
    top_BP = top_BPk.masked_fill(top_BPk == -torch.inf, 0).sum(2) / count_B1.clamp(1, k)
    mean_BP = cosine_BPN.masked_fill(is_other_B1N, 0).sum(2) / count_B1.clamp_min(1)
    return torch.stack([top_BP, mean_BP], 2)
