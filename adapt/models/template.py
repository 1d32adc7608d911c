"""The chat template: the words around a question, kept with the model's own processor.

Whoever answers, trains or serves a model renders the template in its folder. So what a user adds to
it, a template or a system prompt of their own (section `prompt`), is written into the template
itself, and its version names every prompt that was made with it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from adapt.models.checkpoint.render import check_template
from adapt.models.settings import PromptConfig
from adapt.params import InputError

Turn = Mapping[str, Any]  # role, and content: a list of texts and pictures

# A system turn where there is none. The empty text at the end keeps what follows as it is: jinja
# drops a line break after a block.
SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{% set messages = [{'role': 'system', "
    "'content': [{'type': 'text', 'text': TEXT}]}] + messages %}{% endif %}{{ '' }}"
)
# One that was written here before, with any text.
WRITTEN = re.compile(re.escape(SYSTEM).replace("TEXT", r'"(?:[^"\\]|\\.)*"'))
# What a template can raise, which is a program of its author's.
FAILURES = (
    *(TemplateError, TypeError, ValueError, ArithmeticError, LookupError),
    *(AttributeError, RecursionError),
)


def template_of(processor: Any) -> str:
    """The processor's chat template; InputError where it has none."""
    template = getattr(processor, "chat_template", None)
    if isinstance(template, Mapping):  # several by name: the one that is used unasked
        template = template.get("default")
    if not template:
        problem = "the model's processor has no chat template, through which questions are asked"
        raise InputError(f"{problem}; set prompt.template to a file that holds one")
    return str(template)


def prompt_version(processor: Any) -> str:
    """A name for the chat template, 12 hex digits; it changes with any character of it."""
    return hashlib.sha256(template_of(processor).encode()).hexdigest()[:12]


def rendered(processor: Any, turns: Sequence[Turn], *, for_answer: bool) -> str:
    """The turns as a text; `for_answer` opens the turn of the answer. InputError where it fails."""
    template = template_of(processor)
    options = {"add_generation_prompt": for_answer, "tokenize": False}
    try:
        return str(processor.apply_chat_template([*turns], chat_template=template, **options))
    except FAILURES as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the model's chat template does not take a question: {reason}") from None


def turn(role: str, text: str) -> dict[str, Any]:
    """A turn that is one text."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def set_prompt(processor: Any, config: PromptConfig) -> None:
    """Write a template and a system prompt of the user's own into the processor's chat template.

    Raises InputError where the file cannot be read, or the template ignores what it is given.
    """
    template = _read(config.template) if config.template else template_of(processor)
    if config.system:
        # Jinja reads the escapes of JSON but not its pairs of surrogates, and any other character.
        text = json.dumps(config.system, ensure_ascii=False)
        # A model that comes back for another round has it already: one prompt has one version.
        written = WRITTEN.match(template)
        template = SYSTEM.replace("TEXT", text) + template[written.end() if written else 0 :]
    # The tokenizer's own copy is what a server may read that asks for text alone.
    processor.chat_template = processor.tokenizer.chat_template = template
    _check(processor, config)


def _read(path: str) -> str:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"prompt.template: {path}: {reason}") from None
    if not text.strip():
        raise InputError(f"prompt.template: {path}: the file is empty")
    check_template(text, f"prompt.template: {path}")
    return text


def _check(processor: Any, config: PromptConfig) -> None:
    """That question, picture and system prompt come out of the template."""
    question = turn("user", "a question")
    seen = {**question, "content": [{"type": "image"}, *question["content"]]}
    text = rendered(processor, [seen], for_answer=True)
    name = f"prompt.template: {config.template or 'the template of the model'}"
    if "a question" not in text:
        raise InputError(f"{name}: the question does not come out of it")
    if text == rendered(processor, [question], for_answer=True):
        raise InputError(f"{name}: it has no place for a picture")
    if config.system.strip() not in text:
        problem = "the model's template ignores system turns"
        raise InputError(f"prompt.system: {problem}; give it a template with prompt.template")
