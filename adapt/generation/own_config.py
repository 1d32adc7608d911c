"""A generation config of our own: what of the checkpoint's decides an answer, and nothing else.

Checkpoints ship defaults for a chat: sampling at a temperature, a penalty on repeated words, beams.
They would change greedy figures, make all samples alike, or hand back something else than tokens.
So a model answers with its own special tokens, and with what `params.yaml` says.
"""

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adapt.models.prompts import end_tokens
from adapt.names import one_line

# Tokens that a model may never say, or not begin with: they belong to its vocabulary.
KEPT = ("bos_token_id", "suppress_tokens", "begin_suppress_tokens")
# What does not decide which tokens are chosen, or is replaced by `max_new_tokens`.
UNSAID = {*KEPT, "eos_token_id", "pad_token_id", "transformers_version", "use_cache"}
UNSAID |= {"max_length", "max_new_tokens", "cache_implementation"}

_said: weakref.WeakSet[Any] = weakref.WeakSet()


@contextmanager
def own_config(model: Any, processor: Any, max_new_tokens: int) -> Iterator[Any]:
    """A config to pass to `generate` inside the block; the model's own comes back at its end.

    Greedy, with the model's end tokens, those that it may not say, and a pad token in any case.
    """
    from transformers import GenerationConfig

    own, ends = model.generation_config, end_tokens(model, processor)
    _say_dropped(model)
    config = GenerationConfig(
        **{name: getattr(own, name, None) for name in KEPT},
        eos_token_id=list(ends),
        pad_token_id=pad_token(model, processor, ends),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
    )
    # `generate` fills what a passed config leaves open from the model's: that one goes, too.
    model.generation_config = config
    try:
        yield config
    finally:
        model.generation_config = own


def deciding(model: Any, processor: Any) -> tuple[object, ...]:
    """What of a checkpoint's generation config decides an answer, besides its weights."""
    own = model.generation_config
    return end_tokens(model, processor), *(repr(getattr(own, name, None)) for name in KEPT)


def pad_token(model: Any, processor: Any, ends: tuple[int, ...]) -> int:
    """What stands behind an answer in a batch: the model's pad token, or an end token."""
    size = model.config.get_text_config(decoder=True).vocab_size
    named = (source.pad_token_id for source in (model.generation_config, processor.tokenizer))
    real = (token for token in named if token is not None and 0 <= token < size)
    return next(real, ends[0])


def dropped(config: Any) -> dict[str, Any]:
    """What a generation config asks for that is not asked of the model here.

    >>> from transformers import GenerationConfig
    >>> dropped(GenerationConfig(top_p=0.001, eos_token_id=3, num_beams=1))
    {'top_p': 0.001}
    """
    plain = config._get_default_generation_params()
    asked = config.to_diff_dict().items()
    public = {name: value for name, value in asked if not name.startswith("_")}
    unsaid = (None, False)
    return {
        name: value
        for name, value in sorted(public.items())
        if name not in UNSAID and value not in unsaid and value != plain.get(name)
    }


def _say_dropped(model: Any) -> None:
    """One line on stderr, once for each model."""
    if model in _said:
        return
    _said.add(model)
    if values := dropped(model.generation_config):
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        why = "answers are greedy, or sampled at the temperature of params.yaml"
        print(
            one_line(f"the model's generation_config has no effect here ({shown}): {why}"),
            file=sys.stderr,
        )
