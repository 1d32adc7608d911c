"""A chat template is a program of its author's: whether it is one, and whether it comes to an end.

Rendered once when a processor is loaded, with limits, on a conversation of one question.
"""

from itertools import accumulate
from pathlib import Path
from typing import Any

from adapt.models.checkpoint.limits import within
from adapt.params import InputError

SECONDS = 10.0
LONGEST = 2**20  # characters: a prompt of one question has some hundreds, a system prompt thousands
CONVERSATION = (
    {
        "role": "user",
        "content": ({"type": "image"}, {"type": "text", "text": "Describe the picture."}),
    },
)


def check_template(template: Any, source: str | Path) -> None:
    """Raises InputError for a template that is no jinja, does not end, or grows without bound.

    A template that raises on the question is left to whoever asks: it may yet be replaced.
    """
    if isinstance(template, dict):  # several by name: the one that is used unasked
        template = template.get("default")
    if template is None:
        return
    where = f"{source}: its chat template"
    if not isinstance(template, str):
        raise InputError(f"{where} is not a text")
    within(SECONDS, f"{where} does not come to an end", lambda: _render(template, where))


def _render(template: str, where: str) -> None:
    from jinja2 import TemplateError, TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        # The sandbox in which transformers renders it, piece by piece, so that an endless text
        # is seen before it is whole.
        pieces = _compile_jinja_template(template).generate(
            messages=[dict(turn) for turn in CONVERSATION], add_generation_prompt=True
        )
        is_longer = any(length > LONGEST for length in accumulate(map(len, pieces)))
    except TemplateSyntaxError as error:
        raise InputError(f"{where} is no jinja (line {error.lineno}): {error.message}") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise InputError(f"{where} does not come to an end ({type(error).__name__})") from None
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
        return
    if is_longer:
        raise InputError(f"{where} makes more than {LONGEST} characters of one question")
