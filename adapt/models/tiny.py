"""The embedded default model: transformers' own LLaVA classes, trained from nothing in minutes.

CLIP vision tower, two-layer projector, Llama decoder; a word-level tokenizer built from the
training texts; processor and chat template as any LLaVA has them, so that everything downstream
loads it with `AutoModelForImageTextToText` and `AutoProcessor` like a model of any size.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

ENDS = ("pad", "bos", "eos")
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "<s>{% for message in messages %}"
    "{% if message['role'] == 'user' %}<user>{% else %}<assistant>{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of the tiny model; `patch_size` and `image_size` are edges in pixels."""

    width: int
    vision_layers: int
    text_layers: int
    heads: int
    patch_size: int
    image_size: int


def build_tokenizer(texts: Iterable[str]) -> Any:
    """Word-level tokenizer over the words and punctuation of `texts`, in sorted order."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Whitespace()
    words = {word for text in set(texts) for word, _ in splitter.pre_tokenize_str(text)}
    ordered = (*SPECIAL, *sorted(words - {*SPECIAL}))
    vocabulary = {word: index for index, word in enumerate(ordered)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = splitter
    # Spaces between words, none before punctuation.
    raw.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    names = ("pad_token", "unk_token", "bos_token", "eos_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        **dict(zip(names, SPECIAL, strict=False)),
        additional_special_tokens=list(SPECIAL[4:]),
    )


def build_processor(tokenizer: Any, shape: Shape) -> Any:
    """`LlavaProcessor` for square images of the shape's size; pixel values lie in [-1, 1]."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    edge = {"height": shape.image_size, "width": shape.image_size}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size=edge,
            crop_size=edge,
            do_center_crop=False,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=tokenizer,
        patch_size=shape.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: Any, shape: Shape, seed: int) -> Any:
    """`LlavaForConditionalGeneration` with random weights that depend on `seed` alone."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Llava

    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ENDS}
    widths = {"hidden_size": shape.width, "intermediate_size": 2 * shape.width}
    common = {**widths, "num_attention_heads": shape.heads}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **common,
            num_hidden_layers=shape.vision_layers,
            image_size=shape.image_size,
            patch_size=shape.patch_size,
        ),
        text_config=LlamaConfig(
            **common,
            **ids,
            vocab_size=len(tokenizer),
            num_hidden_layers=shape.text_layers,
            num_key_value_heads=shape.heads,
            max_position_embeddings=512,
        ),
        **ids,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        # With tied weights, copying a word of the question into the answer is learnt much sooner.
        tie_word_embeddings=True,
        image_seq_length=(shape.image_size // shape.patch_size) ** 2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Llava(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model
