"""Questions about images as a model takes them: the chat prompt, and the batch of tensors."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import nn

from adapt.data.schema import IMAGE_TAG


def chat_prompts(processor: Any, questions: Sequence[str], pictures: Sequence[int]) -> list[str]:
    """Each question and its pictures by the processor's chat template, ready for the answer.

    `pictures`: how many each question has. They stand where it says `<image>`, or else before it.
    """
    contents = [_content(text, count) for text, count in zip(questions, pictures, strict=True)]
    turns = [[{"role": "user", "content": content}] for content in contents]
    options = {"add_generation_prompt": True, "tokenize": False}
    return [processor.apply_chat_template(turn, **options) for turn in turns]


def _content(question: str, pictures: int) -> list[dict[str, str]]:
    """A turn's content, pictures and texts in order.

    >>> [part.get("text", "picture") for part in _content("Is <image> like <image> ?", 2)]
    ['Is', 'picture', 'like', 'picture', '?']
    """
    texts = [text.strip() for text in question.split(IMAGE_TAG)]
    if len(texts) == 1:
        texts = [""] * pictures + texts
    assert len(texts) == pictures + 1, "a picture for each tag"
    text, *others = [{"type": "text", "text": text} for text in texts]
    parts = [text, *(part for other in others for part in ({"type": "image"}, other))]
    return [part for part in parts if part.get("text") != ""]


def prompt_inputs(
    model: nn.Module,
    processor: Any,
    images: Sequence[Sequence[Image.Image]],
    questions: Sequence[str],
) -> Any:
    """What the model takes for these pairs, left-padded, on its device."""
    return processor(
        images=[[*row] for row in images],  # a list per prompt: the form that all families take
        text=chat_prompts(processor, questions, [len(row) for row in images]),
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=False,  # the chat template has placed them
    ).to(next(model.parameters()).device)
