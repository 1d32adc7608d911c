"""Chat templates of the structure that published families have, and a processor that takes them."""

from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from adapt.models.tiny import Shape, build_processor

SHAPE = Shape(width=32, vision_layers=1, text_layers=2, heads=4, patch_size=8, image_size=16)
SPECIALS = ("<pad>", "<s>", "</s>", "<image>", "<|im_start|>", "<|im_end|>", "<start_of_turn>")
SPECIALS += ("<end_of_turn>", "<end_of_utterance>")

PARTS = (
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}"
)

# No token of a beginning, none of an end, pictures before the texts, a space after an answer.
LLAVA = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content[0].text }} "
    "{% else %}{{ message.role.upper() }}: "
    "{% for part in message.content if part.type == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text + ' ' }}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# A system prompt by default.
QWEN = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
    "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\\n' }}" + PARTS + "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# An answer is opened with a thought; a finished turn has an empty one before it.
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.role == 'assistant' %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    + PARTS
    + "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)
# The token of the beginning first; a system turn goes into the first question.
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content[0].text + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% set role = 'model' if message.role == 'assistant' else message.role %}"
    "{{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}"
    + PARTS
    + "{{ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
IDEFICS = (
    "<s>{% for message in messages %}{{ message.role.capitalize() }}"
    "{% if message.content[0].type == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    + PARTS
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
INTERNVL = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    + PARTS
    + "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# By name: the template, and the tokens that end an answer in the family's generation config.
STYLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "llava": (LLAVA, ("</s>",)),
    "qwen": (QWEN, ("<|im_end|>", "</s>")),
    "thinking": (THINKING, ("<|im_end|>", "</s>")),
    "gemma": (GEMMA, ("</s>", "<end_of_turn>")),
    "idefics": (IDEFICS, ("<end_of_utterance>", "</s>")),
    "internvl": (INTERNVL, ("<|im_end|>",)),
}


def tokenizer(around: str = "<s> $A") -> Any:
    """A tokenizer of single bytes; `around`: which special tokens it sets when it is asked to."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: i for i, text in enumerate([*SPECIALS, *letters])}
    raw = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    ids = [(name, vocabulary[name]) for name in ("<s>", "</s>")]
    raw.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(SPECIALS[3:]),
    )


def processor(template: str | None, around: str = "<s> $A") -> Any:
    """LLaVA's processor for pictures of 2 x 2 patches, with this chat template."""
    built = build_processor(tokenizer(around), SHAPE)
    built.chat_template = template
    return built
