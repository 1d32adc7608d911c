"""Tiny models of every family and their processors: transformers' own classes, random weights.

Processors of families that also read video are built without that part, as they are loaded.
"""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from adapt.models.checkpoint.pil import on_pil
from adapt.models.checkpoint.processor import pictures_only
from adapt.models.tiny import CHAT_TEMPLATE, build_tokenizer

WORDS = (
    "describe the picture. is there a red car? a red car, a blue house and a green tree."
    " no, there is no car in it. global img "
    + " ".join(f"row_{r}_col_{c}" for r in range(1, 4) for c in range(1, 4))
)
WIDTH, HEADS, LAYERS = 32, 4, 2
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def tokenizer(specials: Sequence[str] = (), **named: str) -> Any:
    """Word-level tokenizer with special tokens, some under names that a processor asks for."""
    words = build_tokenizer([WORDS])
    words.add_special_tokens(
        {"extra_special_tokens": ["<image>", "<user>", "<assistant>", *specials, *named.values()]}
    )
    words._set_model_specific_special_tokens(named)
    return words


def template(placeholder: str) -> str:
    """The tiny model's chat template with a family's own sign for an image."""
    return CHAT_TEMPLATE.replace("}<image>{", "}" + placeholder + "{")


def text_config(kind: type, words: Any, **extra: Any) -> Any:
    """A decoder's configuration: two layers, grouped-query attention."""
    return kind(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        **extra,
    )


def tower_config(kind: type, image_size: int, patch_size: int, **extra: Any) -> Any:
    """A vision tower's configuration: one layer."""
    return kind(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        image_size=image_size,
        patch_size=patch_size,
        **extra,
    )


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def llava() -> tuple[Any, Any]:
    words = tokenizer()
    config = transformers.LlavaConfig(
        vision_config=tower_config(transformers.CLIPVisionConfig, 32, 8),
        text_config=text_config(transformers.LlamaConfig, words),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    pictures = CLIPImageProcessorPil(
        size=square(32), crop_size=square(32), do_center_crop=False, **HALF
    )
    processor = transformers.LlavaProcessor(
        pictures,
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    return transformers.LlavaForConditionalGeneration(config), processor


PINPOINTS = [[16, 32], [32, 16], [32, 32]]


def llava_next() -> tuple[Any, Any]:
    words = tokenizer()
    config = transformers.LlavaNextConfig(
        vision_config=tower_config(transformers.CLIPVisionConfig, 16, 4),
        text_config=text_config(transformers.MistralConfig, words),
        vision_feature_layer=-1,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
    )
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=square(16), image_grid_pinpoints=PINPOINTS, **HALF
    )
    processor = transformers.LlavaNextProcessor(
        pictures,
        words,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    return transformers.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> tuple[Any, Any]:
    words = tokenizer(["<video>"])
    config = transformers.LlavaOnevisionConfig(
        vision_config=tower_config(transformers.SiglipVisionConfig, 16, 4, vision_use_head=False),
        text_config=text_config(transformers.Qwen2Config, words),
        vision_aspect_ratio="anyres_max_2",
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    pictures = LlavaOnevisionImageProcessorPil(
        size=square(16), image_grid_pinpoints=PINPOINTS, **HALF
    )
    processor = pictures_only(transformers.LlavaOnevisionProcessor)(
        pictures,
        words,
        None,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
        chat_template=template("<image>"),
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


QWEN = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")


def qwen(
    config: type, text: type, vision: Any, model: type, processor: type, patch: int, **mrope: Any
) -> tuple[Any, Any]:
    words = tokenizer(QWEN)
    start, image, end, video = words.convert_tokens_to_ids(list(QWEN))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], **mrope}
    built = model(
        config(
            vision_config=vision,
            text_config=text_config(text, words, rope_parameters=rope).to_dict(),
            image_token_id=image,
            video_token_id=video,
            vision_start_token_id=start,
            vision_end_token_id=end,
        )
    )
    pictures = Qwen2VLImageProcessorPil(
        patch_size=patch, merge_size=2, size={"shortest_edge": 64, "longest_edge": 64 * 64}, **HALF
    )
    return built, pictures_only(processor)(
        pictures, words, None, chat_template=template("".join(QWEN[:3]))
    )


def qwen2_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 1,
        "embed_dim": WIDTH,
        "hidden_size": WIDTH,
        "num_heads": HEADS,
        "patch_size": 4,
        "mlp_ratio": 2,
    }
    return qwen(
        transformers.Qwen2VLConfig,
        transformers.Qwen2VLTextConfig,
        vision,
        transformers.Qwen2VLForConditionalGeneration,
        transformers.Qwen2VLProcessor,
        4,
    )


def qwen2_5_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 2,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_heads": HEADS,
        "patch_size": 4,
        "window_size": 16,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [1],
    }
    return qwen(
        transformers.Qwen2_5_VLConfig,
        transformers.Qwen2_5_VLTextConfig,
        vision,
        transformers.Qwen2_5_VLForConditionalGeneration,
        transformers.Qwen2_5_VLProcessor,
        4,
    )


def qwen3_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 2,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_heads": HEADS,
        "patch_size": 4,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    built, processor = qwen(
        transformers.Qwen3VLConfig,
        transformers.Qwen3VLTextConfig,
        vision,
        transformers.Qwen3VLForConditionalGeneration,
        transformers.Qwen3VLProcessor,
        4,
        mrope_interleaved=True,
    )
    return built, processor


GLM = ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>")
GLM_VIDEO = ("<|begin_of_video|>", "<|video|>", "<|end_of_video|>")


def glm4v() -> tuple[Any, Any]:
    words = tokenizer([*GLM, *GLM_VIDEO])
    start, image, end = words.convert_tokens_to_ids(list(GLM))
    first, video, last = words.convert_tokens_to_ids(list(GLM_VIDEO))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_heads": HEADS,
        "image_size": 16,
        "patch_size": 4,
        "out_hidden_size": WIDTH,
    }
    config = transformers.Glm4vConfig(
        vision_config=vision,
        text_config=text_config(
            transformers.Glm4vTextConfig, words, rope_parameters=rope
        ).to_dict(),
        image_token_id=image,
        video_token_id=video,
        image_start_token_id=start,
        image_end_token_id=end,
        video_start_token_id=first,
        video_end_token_id=last,
    )
    pictures = Glm4vImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 64 * 64}, **HALF
    )
    processor = pictures_only(transformers.Glm4vProcessor)(
        pictures, words, None, chat_template=template("".join(GLM))
    )
    return transformers.Glm4vForConditionalGeneration(config), processor


def mistral3() -> tuple[Any, Any]:
    words = tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    config = transformers.Mistral3Config(
        vision_config=tower_config(transformers.PixtralVisionConfig, 64, 4),
        text_config=text_config(transformers.MistralConfig, words, head_dim=8),
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        tie_word_embeddings=False,
    )
    pictures = PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size=square(4), **HALF)
    processor = on_pil("PixtralProcessor")(
        pictures, words, patch_size=4, spatial_merge_size=2, chat_template=template("[IMG]")
    )
    return transformers.Mistral3ForConditionalGeneration(config), processor


def pixtral() -> tuple[Any, Any]:
    """A LLaVA by its type, with the tower and the processor of Mistral Small 3."""
    words = tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    config = transformers.LlavaConfig(
        vision_config=tower_config(transformers.PixtralVisionConfig, 64, 8),
        text_config=text_config(transformers.MistralConfig, words, head_dim=8),
        image_token_id=words.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    pictures = PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size=square(8), **HALF)
    processor = on_pil("PixtralProcessor")(
        pictures, words, patch_size=8, chat_template=template("[IMG]")
    )
    return transformers.LlavaForConditionalGeneration(config), processor


IDEFICS = ("<fake_token_around_image>", "<end_of_utterance>")


def idefics3() -> tuple[Any, Any]:
    words = tokenizer(IDEFICS)  # the tags between tiles are ordinary text, of several tokens each
    config = transformers.Idefics3Config(
        vision_config=tower_config(transformers.Idefics3VisionConfig, 16, 2),
        text_config=text_config(transformers.LlamaConfig, words),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}, **HALF
    )
    processor = transformers.Idefics3Processor(
        pictures, words, image_seq_len=16, chat_template=template("<image>")
    )
    return transformers.Idefics3ForConditionalGeneration(config), processor


def smolvlm() -> tuple[Any, Any]:
    tags = [f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)]
    words = tokenizer([*IDEFICS, *tags, "<global-img>", "<video>"])
    config = transformers.SmolVLMConfig(
        vision_config=tower_config(transformers.SmolVLMVisionConfig, 16, 2),
        text_config=text_config(transformers.LlamaConfig, words),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    pictures = SmolVLMImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}, **HALF
    )
    processor = pictures_only(transformers.SmolVLMProcessor)(
        pictures, words, None, image_seq_len=16, chat_template=template("<image>")
    )
    return transformers.SmolVLMForConditionalGeneration(config), processor


def internvl() -> tuple[Any, Any]:
    words = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = transformers.InternVLConfig(
        vision_config=tower_config(transformers.InternVLVisionConfig, 16, 2),
        text_config=text_config(
            transformers.Qwen3Config, words, head_dim=8, tie_word_embeddings=False
        ),
        image_token_id=words.context_image_token_id,
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    pictures = GotOcr2ImageProcessorPil(
        size=square(16), crop_to_patches=True, max_patches=4, **HALF
    )
    processor = pictures_only(transformers.InternVLProcessor)(
        pictures, words, None, image_seq_length=16, chat_template=template("<IMG_CONTEXT>")
    )
    return transformers.InternVLForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    words = tokenizer(
        boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>"
    )
    config = transformers.Gemma3Config(
        vision_config=tower_config(transformers.SiglipVisionConfig, 32, 4, vision_use_head=False),
        text_config=text_config(
            transformers.Gemma3TextConfig,
            words,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=12,
            layer_types=["sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=16,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        image_token_index=words.image_token_id,
    )
    processor = transformers.Gemma3Processor(
        Gemma3ImageProcessorPil(size=square(32), **HALF),
        words,
        chat_template=template("<start_of_image>"),
        image_seq_length=16,
    )
    return transformers.Gemma3ForConditionalGeneration(config), processor


def paligemma() -> tuple[Any, Any]:
    words = tokenizer()
    pictures = SiglipImageProcessorPil(size=square(16), **HALF)
    pictures.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(pictures, words, chat_template=template("<image>"))
    config = transformers.PaliGemmaConfig(
        vision_config=tower_config(transformers.SiglipVisionConfig, 16, 4, vision_use_head=False),
        text_config=text_config(transformers.GemmaConfig, words, head_dim=8),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    return transformers.PaliGemmaForConditionalGeneration(config), processor


def refused() -> list[Any]:
    """Models that cannot be aligned, built from small configs without weights."""
    words = tokenizer()
    vision = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "intermediate_size": 64,
    }
    text = text_config(transformers.LlamaConfig, words).to_dict()
    query = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "encoder_hidden_size": WIDTH,
    }
    cross = {
        **text,
        "cross_attention_layers": [1],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }
    del cross["model_type"]
    parts = {"text_config": text, "vision_config": vision}
    named = {
        "Mllama": {**parts, "text_config": cross},
        "Blip2": {**parts, "qformer_config": query},
        "InstructBlip": {**parts, "qformer_config": query},
        "Idefics2": {
            **parts,
            "perceiver_config": {"hidden_size": WIDTH, "rms_norm_eps": text["rms_norm_eps"]},
        },
        "AyaVision": parts,
    }
    with torch.device("meta"):
        return [
            getattr(transformers, f"{name}ForConditionalGeneration")(
                getattr(transformers, f"{name}Config")(**settings)
            )
            for name, settings in named.items()
        ]
