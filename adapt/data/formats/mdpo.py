"""mDPO and SymMPO: pairs whose prompt is in LLaVA's template already, which is stripped.

A second picture (SymMPO) is the one that the rejected answer is about; a degraded one that mDPO
makes while training is not stored.
"""

import re
from collections.abc import Iterator, Sequence

from adapt.data.formats.raw import (
    Raw,
    Record,
    RowProblem,
    example,
    has,
    pictures,
    pictures_of,
    present,
    text,
)

NAME = "mdpo"
KIND = "preference"
ABOUT = "mDPO, SymMPO: prompt as `USER: <image> ... ASSISTANT:`, chosen, rejected, image"

USER, ASSISTANT = re.compile(r"\bUSER:"), "ASSISTANT:"
PROMPTS = ("prompt", "question")
REJECTED_PICTURES = ("rejected_image", "rejected_images", "image_rejected")


def recognised(head: Sequence[Record]) -> str:
    """A prompt in the template."""
    for name in PROMPTS:
        first = example(head, name)
        is_template = isinstance(first, str) and _stripped(first) is not None
        if is_template and has(head, "chosen", "rejected"):
            return f"column {name} in the template USER: ... ASSISTANT:"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row."""
    name = present(record, *PROMPTS)
    found = _stripped(prompt := text(record, name or "prompt"))
    if found is None and "USER:" in prompt:
        raise RowProblem(f"{name}: USER: without ASSISTANT: at the end")
    question = prompt if found is None else found
    if ASSISTANT in question:
        raise RowProblem(f"{name}: several turns in one template; bring them as messages")
    other = present(record, *REJECTED_PICTURES)
    yield {
        "images": pictures_of(record, "image", "images", "img_path"),
        "rejected_images": pictures(record.get(other), other),
        "question": question,
        "chosen": text(record, "chosen"),
        "rejected": text(record, "rejected"),
    }


def _stripped(prompt: str) -> str | None:
    """The question in the template, None where a prompt is not in it; in time linear in its length.

    >>> _stripped("A chat. USER: <image>\\nIs it red? ASSISTANT: ")
    '<image>\\nIs it red?'
    """
    begun, whole = USER.search(prompt), prompt.rstrip()
    end = len(whole) - len(ASSISTANT)
    if begun is None or not whole.endswith(ASSISTANT) or begun.end() > end:
        return None
    return whole[begun.end() : end].strip()
