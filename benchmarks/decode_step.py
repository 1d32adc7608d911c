"""What capture and steering cost per generated token, against plain `generate`.

    python -m benchmarks.decode_step [--sizes small medium] [--batch 1 4] [--tokens 24]
                                     [--dtype float32]

LLaVA's own classes with random weights at the layout of LLaVA-1.5: one image of 336 x 336 pixels in
patches of 14, so 576 image tokens. The vision tower is thin: it runs once, before the steps that
are measured. Sides, by turns:

* plain: `model.generate`;
* capture: the same with a `DecodeObserver` that only watches;
* similarity: capture, and each hidden state compared with those of the picture, at two places;
* steer: with steering at alpha 0.5 and tau 1, where it fires often; the work is the same whether or
  not it does.

Each side generates in a thread of its own, on a model of its own that shares the weights, and only
one runs at a time: they take turns after every token, so that each step of a side is compared with
the same step of the plain side, some milliseconds before or after it. Steps count once the anchor
is fixed.
"""

import argparse
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapt.attention.capture import observed
from adapt.attention.layout import layout_of
from adapt.attention.similarity import PatchSimilarity
from adapt.generation.settings import SteerConfig
from adapt.generation.steer import DecodeObserver
from benchmarks.sides import arguments, progress, ratios, spread, table, write

ANCHOR_TOKENS = 5  # K
SIDES = {
    "plain": None,
    "capture": None,
    "similarity": None,
    "steer": SteerConfig(alpha=0.5, tau=1.0, trigger="mass", anchor_share=0.1, layers="all"),
}


class Size(NamedTuple):
    """A decoder: width, layers, query and key/value heads, width of the feed-forward part."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int


SIZES = {
    "tiny": Size(256, 4, 4, 4, 688),
    "small": Size(1024, 12, 16, 16, 2752),  # 170 M weights
    "medium": Size(2048, 8, 16, 16, 5504),  # 400 M
    "grouped": Size(2048, 8, 32, 8, 5504),  # query heads in groups of four
    "7b": Size(4096, 32, 32, 32, 11008),  # LLaVA-1.5-7B
}


def build(size: Size, options: argparse.Namespace) -> Any:
    """A LLaVA of this size in the chosen precision."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        vocab_size=4000,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=3999, vision_feature_layer=-1
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        model = LlavaForConditionalGeneration(config).to(getattr(torch, options.dtype)).eval()
    model.generation_config.pad_token_id = 0
    return model


def twin(model: Any, options: argparse.Namespace) -> Any:
    """Another model with the same tensors."""
    import copy

    with torch.device("meta"):
        other = type(model)(copy.deepcopy(model.config))
    other.load_state_dict(model.state_dict(), assign=True)
    for one, part in zip(model.modules(), other.modules(), strict=True):
        part._buffers = one._buffers  # those that are not in the state, as rotary frequencies
    other.generation_config = model.generation_config
    return other.eval()


def inputs_of(model: Any, batch: int, options: argparse.Namespace) -> dict[str, Tensor]:
    """Prompts of 640 tokens, one image each."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    ids_BS = torch.randint(1, 3000, (batch, 640), generator=generator)
    ids_BS[:, 20:596] = config.image_token_id
    pixels = torch.randn(batch, 3, 336, 336, generator=generator).to(getattr(torch, options.dtype))
    ids = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}
    inputs = {**ids, "pixel_values": pixels}
    return {key: value.to(options.device) for key, value in inputs.items()}


class Side(threading.Thread):
    """One generation that halts after every token until `step` lets it go on."""

    def __init__(
        self, name: str, model: Any, inputs: dict[str, Tensor], options: argparse.Namespace
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.model, self.inputs, self.options = model, inputs, options
        self._go, self._halted, self._failed = threading.Semaphore(0), threading.Semaphore(0), False
        self.start()
        self._wait()  # the prompt has been read

    def step(self) -> float:
        """Seconds of one step of the decoder."""
        start = time.perf_counter()
        self._go.release()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        self._halted.acquire()
        assert not self._failed, f"{self.name} has failed; its traceback is above"

    def _halt(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """A logits processor that rules out nothing."""
        if scores.is_cuda:
            torch.cuda.synchronize()
        self._halted.release()
        self._go.acquire()
        return scores

    def run(self) -> None:
        """Generate; in the thread."""
        from transformers import LogitsProcessorList

        torch.set_num_threads(self.options.threads)
        watch: AbstractContextManager[None] = nullcontext()
        compare: AbstractContextManager[None] = nullcontext()
        if self.name != "plain":
            layout = layout_of(self.model, self.inputs)
            observer = DecodeObserver(layout, ANCHOR_TOKENS, steer=SIDES[self.name])
            watch = observed(self.model, observer)
            if self.name == "similarity":
                compare = PatchSimilarity(layout).watching(self.model)
        try:
            with watch, compare, torch.inference_mode():
                self.model.generate(
                    **self.inputs,
                    max_new_tokens=self.options.tokens,
                    do_sample=False,
                    eos_token_id=None,
                    logits_processor=LogitsProcessorList([self._halt]),
                )
        except BaseException:
            self._failed = True
            raise
        finally:
            self._halted.release()


def generation(
    models: dict[str, Any], inputs: dict[str, Tensor], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Milliseconds of each step of each side, in lockstep."""
    sides = [Side(name, model, inputs, options) for name, model in models.items()]
    times: dict[str, list[float]] = {name: [] for name in models}
    for token in range(1, options.tokens):
        shift = token % len(sides)
        for one in sides[shift:] + sides[:shift]:
            took = one.step()
            if token > ANCHOR_TOKENS:
                times[one.name].append(1000 * took)
    for one in sides:
        one.step()  # after the last token it ends
        one.join()
    return times


def main() -> None:
    """Measure, print and write."""
    parser = arguments(
        __doc__.splitlines()[0], list(SIZES), ["small", "medium", "grouped"], repeats=5
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--tokens", type=int, default=24, help="per generation")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for size in options.sizes:
        model = build(SIZES[size], options)
        models = {name: twin(model, options) for name in SIDES}
        weights = sum(p.numel() for p in model.parameters()) / 1e6
        for batch in options.batch:
            inputs = inputs_of(model, batch, options)
            times: dict[str, list[float]] = {name: [] for name in SIDES}
            for turn in range(options.repeats):
                for name, steps in generation(models, inputs, options).items():
                    times[name] += steps
                progress(f"{size}, batch {batch}: generation {turn + 1} of {options.repeats}")
            for name in SIDES:
                rows.append(
                    {
                        "size": f"{size} ({weights:.0f} M)",
                        "batch": str(batch),
                        "side": name,
                        "ms per step": spread(times[name], 1),
                        "/ plain": spread(ratios(times, name, "plain")),
                    }
                )
            print(table(rows[-len(SIDES) :]), flush=True)
        del model, models
    notes = [
        f"{options.dtype}, prompt of 640 tokens with 576 image tokens, {options.repeats}"
        f" generations of {options.tokens} tokens; median (quartiles) of {len(times['plain'])}"
        " steps, the sides by turns after every token."
    ]
    write("decode_step", "A decode step with capture and steering", notes, rows, options)


if __name__ == "__main__":
    main()
