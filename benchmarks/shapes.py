"""LLaVA-1.5-7B and 13B, Qwen2.5-VL-7B and 32B by their published sizes, with random weights.

Sizes are those of `config.json` of llava-hf/llava-1.5-7b-hf and llava-1.5-13b-hf (Vicuna's text
model, CLIP-ViT-L/14 at 336 pixels) and of Qwen/Qwen2.5-VL-7B-Instruct and 32B-Instruct.

Speed and memory do not depend on the values of weights, so nothing is downloaded: the model is made
on the device, in seconds, and its processor from transformers' own classes with a tokenizer of
words. `tiny` keeps everything but the sizes, for a rehearsal on a CPU.
"""

import dataclasses
import functools
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from trl import DPOConfig

from adapt.attention.support import SIDE
from adapt.models.checkpoint.processor import pictures_only
from adapt.models.tiny import CHAT_TEMPLATE, Shape, build_processor, build_tokenizer

WORDS = [f"word{i}" for i in range(1000)]
QWEN_TYPE = "qwen2_5_vl"
QWEN_SIGNS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")


def shape(width: int, vision: int, text: int, heads: int, patch: int, image: int) -> Shape:
    """A size of the embedded model's classes: layers by part, edges in pixels."""
    return Shape(
        width=width,
        vision_layers=vision,
        text_layers=text,
        heads=heads,
        patch_size=patch,
        image_size=image,
    )


def trl_arguments(folder: Path, pairs: int, device: str, **options: Any) -> DPOConfig:
    """TRL's configuration of a step that is timed: `pairs` of them, bf16 on a GPU."""
    is_cuda = device.startswith("cuda")
    return DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=pairs,
        report_to=[],
        use_cpu=not is_cuda,
        bf16=is_cuda,
        max_length=None,
        remove_unused_columns=False,
        max_steps=10,
        disable_tqdm=True,
        **options,
    )


@dataclasses.dataclass(frozen=True)
class Published:
    """A checkpoint's name, its configuration and processor, and the pictures that it is shown.

    `image` is (width, height) in pixels: 576 image tokens for LLaVA, 432 for Qwen.
    """

    name: str
    config: Callable[[bool], Any]
    processor: Callable[[bool], Any]
    image: tuple[int, int]
    tiny_image: tuple[int, int]

    def pictures(self, count: int, tiny: bool) -> list[Image.Image]:
        """Pictures of noise, each another."""
        width, height = self.tiny_image if tiny else self.image
        rng = np.random.default_rng(0)
        shape = (count, height, width, 3)
        return [Image.fromarray(one) for one in rng.integers(0, 256, shape, dtype=np.uint8)]


def described(case: Published, tiny: bool) -> tuple[Any, Any]:
    """The configuration, with the numbers of the processor's signs, and the processor."""
    processor = case.processor(tiny)
    tokenizer, config = processor.tokenizer, case.config(tiny)
    config.image_token_id = tokenizer.convert_tokens_to_ids(processor.image_token)
    text = config.get_text_config()
    text.bos_token_id, text.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    text.pad_token_id = tokenizer.pad_token_id
    if config.model_type == QWEN_TYPE:
        start, video = tokenizer.convert_tokens_to_ids([QWEN_SIGNS[0], QWEN_SIGNS[3]])
        config.vision_start_token_id, config.video_token_id = start, video
    return config, processor


def build(case: Published, device: str, dtype: torch.dtype, tiny: bool) -> tuple[Any, Any]:
    """The model on its device, in eval mode, and the processor."""
    config, processor = described(case, tiny)
    tokenizer = processor.tokenizer
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    # Every answer is to have the full length.
    model.generation_config.update(**ends, suppress_tokens=tokenizer.all_special_ids)
    return model.eval(), processor


def pair_rows(case: Published, pairs: int, words: int, tokens: int, tiny: bool) -> list[dict]:
    """Preference pairs as our trainer takes them: answers of half of `words` to all of them.

    `tokens` is how many image tokens a prompt has.
    """
    chance, rows = random.Random(0), []
    for number, picture in enumerate(case.pictures(pairs, tiny)):
        file = io.BytesIO()
        picture.save(file, "PNG")
        chosen, rejected = (
            " ".join(chance.choices(WORDS, k=chance.randint(words // 2, words))) for _ in range(2)
        )
        texts = {"question": " ".join(WORDS[:6]), "chosen": chosen, "rejected": rejected}
        places = {"anchor": [chance.random() for _ in range(tokens)]}
        places["support"] = [bytes(chance.choices(range(256), k=SIDE * SIDE))]
        rows.append({"id": str(number), "images": [file.getvalue()], **texts, **places})
    return rows


def trl_rows(case: Published, rows: list[dict], tiny: bool) -> list[dict]:
    """The same pairs as TRL's trainer takes them."""

    def turn(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    return [
        {
            "image": picture,
            "prompt": turn("user", row["question"]),
            "chosen": turn("assistant", row["chosen"]),
            "rejected": turn("assistant", row["rejected"]),
        }
        for row, picture in zip(rows, case.pictures(len(rows), tiny), strict=True)
    ]


# ---- the checkpoints ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoder:
    """Sizes of a published decoder: h, i, L, H, K and V of `adapt/inspect/memory.py`."""

    width: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    words: int


LLAMA_7B = Decoder(width=4096, inner=11008, layers=32, heads=32, key_value_heads=32, words=32064)
LLAMA_13B = Decoder(width=5120, inner=13824, layers=40, heads=40, key_value_heads=40, words=32064)
QWEN_7B = Decoder(width=3584, inner=18944, layers=28, heads=28, key_value_heads=4, words=152064)
QWEN_32B = Decoder(width=5120, inner=27648, layers=64, heads=40, key_value_heads=8, words=152064)
TINY = Decoder(width=64, inner=128, layers=3, heads=4, key_value_heads=4, words=1100)
TINY_QWEN = dataclasses.replace(TINY, key_value_heads=2)


def _text_sizes(sizes: Decoder) -> dict[str, int]:
    return {
        "hidden_size": sizes.width,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "vocab_size": sizes.words,
    }


def _llava_config(sizes: Decoder, tiny: bool) -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=32 if tiny else 1024,
        intermediate_size=64 if tiny else 4096,
        num_hidden_layers=3 if tiny else 24,
        num_attention_heads=2 if tiny else 16,
        image_size=56 if tiny else 336,
        patch_size=14,
    )
    text = transformers.LlamaConfig(
        **_text_sizes(TINY if tiny else sizes),
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    )
    return transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16 if tiny else 576,
        dtype="float16",
    )


def _llava_processor(tiny: bool) -> Any:
    size = 56 if tiny else 336
    unused = {"width": 0, "vision_layers": 0, "text_layers": 0, "heads": 0}
    shape = Shape(**unused, patch_size=14, image_size=size)
    return build_processor(build_tokenizer(WORDS), shape)


def _qwen_config(sizes: Decoder, vision_inner: int, tiny: bool) -> Any:
    sizes = TINY_QWEN if tiny else sizes
    vision = {
        "depth": 2 if tiny else 32,
        "hidden_size": 32 if tiny else 1280,
        "intermediate_size": 64 if tiny else vision_inner,
        "num_heads": 2 if tiny else 16,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1] if tiny else [7, 15, 23, 31],
        "out_hidden_size": sizes.width,
    }
    sections = [4, 2, 2] if tiny else [16, 24, 24]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    ends = {"bos_token_id": None, "eos_token_id": None}  # the tokenizer's, see `described`
    text = transformers.Qwen2_5_VLTextConfig(
        **ends, **_text_sizes(sizes), max_position_embeddings=128000, rope_parameters=rope
    )
    parts = {"vision_config": vision, "text_config": text.to_dict()}
    return transformers.Qwen2_5_VLConfig(**parts, **ends, dtype="bfloat16")


def _qwen_processor(tiny: bool) -> Any:
    tokenizer = build_tokenizer(WORDS)
    tokenizer.add_special_tokens({"extra_special_tokens": [*QWEN_SIGNS, "<user>", "<assistant>"]})
    pictures = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2)
    template = CHAT_TEMPLATE.replace("}<image>{", "}" + "".join(QWEN_SIGNS[:3]) + "{")
    kind = pictures_only(transformers.Qwen2_5_VLProcessor)
    return kind(pictures, tokenizer, chat_template=template)


def _llava(name: str, sizes: Decoder) -> Published:
    config = functools.partial(_llava_config, sizes)
    return Published(name, config, _llava_processor, (336, 336), (56, 56))


def _qwen(name: str, sizes: Decoder, vision_inner: int) -> Published:
    config = functools.partial(_qwen_config, sizes, vision_inner)
    return Published(name, config, _qwen_processor, (672, 504), (112, 84))


LLAVA, LLAVA_13B = _llava("LLaVA-1.5-7B", LLAMA_7B), _llava("LLaVA-1.5-13B", LLAMA_13B)
QWEN, QWEN_LARGE = _qwen("Qwen2.5-VL-7B", QWEN_7B, 3420), _qwen("Qwen2.5-VL-32B", QWEN_32B, 3456)
CASES = {"llava": LLAVA, "qwen": QWEN}  # what is run
PLANNED = CASES | {"llava-13b": LLAVA_13B, "qwen-32b": QWEN_LARGE}  # what is worked out
