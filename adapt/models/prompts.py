"""Questions about images as a model takes them: the chat prompt, and the batch of tensors."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import nn


def chat_prompts(processor: Any, questions: Sequence[str]) -> list[str]:
    """Each question after one image, by the processor's chat template, ready for the answer."""
    contents = [[{"type": "image"}, {"type": "text", "text": text}] for text in questions]
    turns = [[{"role": "user", "content": content}] for content in contents]
    options = {"add_generation_prompt": True, "tokenize": False}
    return [processor.apply_chat_template(turn, **options) for turn in turns]


def prompt_inputs(
    model: nn.Module, processor: Any, images: Sequence[Image.Image], questions: Sequence[str]
) -> Any:
    """What the model takes for these pairs, left-padded, on its device."""
    return processor(
        images=[[image] for image in images],  # a list per prompt: the form that all families take
        text=chat_prompts(processor, questions),
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=False,  # the chat template has placed them
    ).to(next(model.parameters()).device)
