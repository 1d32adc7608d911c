"""The embedded default model: transformers' own LLaVA classes, trained from nothing in minutes.

CLIP vision tower, two-layer projector, Llama decoder; a word-level tokenizer built from the
training texts; processor and chat template as any LLaVA has them, so that everything downstream
loads it with `AutoModelForImageTextToText` and `AutoProcessor` like a model of any size.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

FEATURES = {"vision_feature_select_strategy": "default"}
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
    special: dict[str, Any] = dict(zip(names, SPECIAL, strict=False))
    special["additional_special_tokens"] = list(SPECIAL[4:])
    return PreTrainedTokenizerFast(tokenizer_object=raw, **special)


def build_processor(tokenizer: Any, shape: Shape) -> Any:
    """`LlavaProcessor` for square images of the shape's size; pixel values lie in [-1, 1]."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    edge, half = {"height": shape.image_size, "width": shape.image_size}, [0.5] * 3
    options = {"do_center_crop": False, "image_mean": half, "image_std": half}
    images = CLIPImageProcessorPil(size=edge, crop_size=edge, **options)
    layout = {"patch_size": shape.patch_size, "num_additional_image_tokens": 1}
    words = {"image_token": "<image>", "chat_template": CHAT_TEMPLATE}
    return LlavaProcessor(images, tokenizer, **layout, **words, **FEATURES)


def build_model(tokenizer: Any, shape: Shape, seed: int) -> Any:
    """`LlavaForConditionalGeneration` with random weights that depend on `seed` alone."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Llava

    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ENDS}
    widths = {"hidden_size": shape.width, "intermediate_size": 2 * shape.width}
    common = {**widths, "num_attention_heads": shape.heads}
    sizes = {"image_size": shape.image_size, "patch_size": shape.patch_size}
    vision = CLIPVisionConfig(**common, **sizes, num_hidden_layers=shape.vision_layers)
    text = {**common, **ids, "num_key_value_heads": shape.heads, "max_position_embeddings": 512}
    decoder = LlamaConfig(**text, vocab_size=len(tokenizer), num_hidden_layers=shape.text_layers)
    config = LlavaConfig(
        vision_config=vision,
        text_config=decoder,
        **ids,
        **FEATURES,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
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
