"""Exact capture of text-to-image attention inside SDPA, without attention maps of S x S.

One attention function is registered with transformers' attention interface. Its output is SDPA's;
an observer gets the queries and keys of every call and computes what it needs beside it, or steers
it. No module is patched; leaving the context restores the model, also after an error.

* Two models may be observed at once, one model by one observer: nested use is refused.
* Calls from another thread than the one that entered the block are plain SDPA.
* Gradient checkpointing: what a capture needs stays outside of what is thrown away and computed
  again, so gradients flow and the second computation changes nothing. The reentrant kind runs
  without gradients and is refused.

Shapes: B batch, H query heads, K key/value heads, R observed rows, S source positions, N image
tokens, D head size, L decoder layers. Columns and rows are padded with -1.
"""

import dataclasses
import functools
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from adapt.attention.rows import attention_at
from adapt.attention.settings import Layers, includes
from adapt.params import InputError

NAME = "adapt_sdpa"


@dataclasses.dataclass(slots=True)
class Call:
    """One attention call: the arguments that the attention interface passes.

    Not frozen: one is made for each layer and step, and freezing costs more than all its fields.
    """

    module: nn.Module
    query_BHSD: Tensor
    key_BKSD: Tensor
    value_BKSD: Tensor
    mask: Tensor | None
    scaling: float
    options: Mapping[str, Any]

    @property
    def layer(self) -> int:
        """Index of the decoder layer."""
        return int(self.module.layer_idx)

    def attend(self, mask: Tensor | None = None) -> Tensor:
        """SDPA's output, [B, S, H, D]; a `mask` stands in place of the call's own."""
        tensors = (self.query_BHSD, self.key_BKSD, self.value_BKSD)
        mask = self.mask if mask is None else mask
        return _sdpa()(self.module, *tensors, mask, scaling=self.scaling, **self.options)[0]

    def attended_keys(self) -> Tensor:
        """The keys that SDPA attends to."""
        # Without a mask it is causal on a prompt: the empty rest of a static cache is left out.
        length = self.query_BHSD.shape[2]
        return self.key_BKSD[:, :, :length] if self.mask is None and length > 1 else self.key_BKSD


@functools.cache
def _sdpa() -> Any:
    """The attention of transformers: not imported before a model is observed."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward


class Observer:
    """Sees every attention call of one decoder and returns the output to use."""

    def start(self, model: nn.Module) -> None:
        """Called on entering the block; InputError where `model` cannot be observed this way."""

    def observe(self, call: Call) -> Tensor:
        """`call.attend()`, or what should stand in its place."""
        raise NotImplementedError


_observers: weakref.WeakKeyDictionary[nn.Module, tuple[Observer, int]] = weakref.WeakKeyDictionary()
_entering = threading.Lock()


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = Call(module, query, key, value, attention_mask, scaling, options)
    observer, thread = _observers.get(module, (None, 0))
    if observer is None or thread != threading.get_ident():
        return call.attend(), None
    kind = type(module).__name__
    if options.get("position_bias") is not None:
        raise InputError(f"{kind} adds a position bias to its logits, which capture cannot see")
    if attention_mask is None and query.shape[2] > 1 and not _is_causal(module, options):
        raise InputError(f"{kind} is not a causal decoder: tokens see what comes after them")
    return observer.observe(call), None


def _is_causal(module: nn.Module, options: Mapping[str, Any]) -> bool:
    return options.get("is_causal", getattr(module, "is_causal", True)) is not False


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

    Raises RuntimeError when the model, or one that shares its configuration, is already observed
    (two observers could not both decide the output), InputError when the observer or the attention
    interface refuses the model.
    """
    # 1. The observer and the modules are known before anything is changed.
    decoder = decoder_of(model)
    observer.start(model)
    modules = [m for m in decoder.modules() if isinstance(getattr(m, "layer_idx", None), int)]
    configs = _configs(decoder)
    # 2. Under the lock: no other thread may come in between the check and the entry.
    with _entering:
        _register()
        if any(c._attn_implementation == NAME for c in configs):
            problem = "this model's attention is already observed; leave the other block first"
            raise RuntimeError(problem)
        before = [(c, c._attn_implementation) for c in configs]
        _observers.update({m: (observer, threading.get_ident()) for m in modules})
    try:
        decoder.set_attn_implementation(NAME)
        if decoder.config._attn_implementation != NAME:
            kind = type(decoder).__name__
            raise InputError(f"{kind} does not use transformers' attention interface")
        yield
    # 3. Each part gets its own implementation back: they may differ within one decoder.
    finally:
        with _entering:
            for m in modules:
                _observers.pop(m, None)
            for config, name in before:
                config._attn_implementation_internal = name


def _configs(decoder: nn.Module) -> list[Any]:
    """The decoder's distinct configurations; each holds the name of an attention implementation."""
    configs = [getattr(part, "config", None) for part in decoder.modules()]
    distinct = {id(config): config for config in configs}
    return [config for config in distinct.values() if hasattr(config, "_attn_implementation")]


class RowCapture(Observer):
    """Observer for a pass over whole sequences: keeps `maps[layer]` = [B', R, N], differentiable.

    Args:
        rows_BR: query positions to observe, -1 for padding. A first dimension smaller than the
            batch observes only the first samples (in preference batches: the chosen halves).
        columns_BN: image-token positions of the same samples, -1 for padding.
        layers: decoder layers to observe.
        gradients: whether a pass with gradients is looked at, or one without.

    Maps are 0 at padding. One capture sees one pass; those of the other kind are not looked at.
    """

    def __init__(
        self,
        rows_BR: Tensor,
        columns_BN: Tensor,
        layers: Layers = "all",
        gradients: bool = True,
    ) -> None:
        assert len(rows_BR) == len(columns_BN), "rows and columns belong to the same samples"
        self.rows_BR, self.columns_BN, self.layers = rows_BR, columns_BN, layers
        self.gradients = gradients
        self.maps: dict[int, Tensor] = {}

    def start(self, model: nn.Module) -> None:
        """Refuses reentrant gradient checkpointing, whose forward pass has no gradients to keep."""
        for module in decoder_of(model).modules():
            checkpoint = getattr(module, "_gradient_checkpointing_func", None)
            is_on = getattr(module, "gradient_checkpointing", False) and module.training
            if checkpoint is None or not is_on:
                continue
            if getattr(checkpoint, "keywords", {}).get("use_reentrant", True):
                problem = "reentrant gradient checkpointing hides the attention of the forward pass"
                options = "activation_checkpointing_kwargs={'use_reentrant': False}"
                advice = f"call activation_checkpointing_enable({options})"
                raise InputError(f"{problem}; {advice}")

    def observe(self, call: Call) -> Tensor:
        """SDPA's output; the maps of an observed layer are kept beside it."""
        output, layer = call.attend(), call.layer
        # Without gradients it is the reference pass of an adapter model, which shares its modules
        # with the policy. Inside a backward pass it is a checkpointed layer that is computed again.
        is_wanted = torch.is_grad_enabled() == self.gradients
        is_forward = is_wanted and torch._C._current_graph_task_id() == -1
        if is_forward and includes(self.layers, layer):
            if layer in self.maps:
                problem = "this RowCapture has seen a forward pass; make a new one for each pass"
                raise InputError(problem)
            self.maps[layer] = self._map(call)
        return output

    def _map(self, call: Call) -> Tensor:
        B = len(self.rows_BR)
        q_BHSD, keys, mask = call.query_BHSD[:B], call.attended_keys()[:B], call.mask
        if mask is not None:  # one for all samples, or one for each
            mask = mask.expand(len(call.query_BHSD), -1, -1, -1)[:B]
        index = self.rows_BR.clamp_min(0)[:, None, :, None]
        index_BHRD = index.expand(-1, q_BHSD.shape[1], -1, q_BHSD.shape[3])
        # Hooks that change nothing keep a checkpoint from counting our tensors, which its second
        # pass does not save.
        with saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
            queries = q_BHSD.gather(2, index_BHRD)
            return attention_at(queries, keys, mask, self.rows_BR, self.columns_BN, call.scaling)

    def stacked(self) -> Tensor:
        """Maps of all observed layers in order, [B', L', R, N]; InputError when there are none."""
        if not self.maps:
            advice = "run the model in the block, in the thread that entered it"
            kind = "with" if self.gradients else "without"
            raise InputError(f"no pass {kind} gradients was seen: {advice}")
        return torch.stack([self.maps[layer] for layer in sorted(self.maps)], dim=1)
