"""Questions about images as a model takes them: the chat prompt, the batch of tensors, the answer.

The sequence is the one that the model was made to see: special tokens as its published processor
sets them, an answer that ends as its template ends an assistant's turn.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from adapt.data.schema import IMAGE_TAG, Turn
from adapt.models.template import prompt_version, rendered, turn
from adapt.params import InputError

__all__ = ["answer_tokens", "chat_prompts", "encode", "end_tokens", "prompt_inputs"]
__all__ += ["located_tokens", "place_of", "prompt_version", "token_ranges"]
Pictures = Sequence[Sequence[Image.Image]]  # those of each prompt
Histories = Sequence[Sequence[Turn]]  # the earlier turns of each
Range = tuple[int, int]  # characters [start, end) of a text

# ---- the prompt --------------------------------------------------------------------------------


def chat_prompts(
    processor: Any,
    questions: Sequence[str],
    pictures: Sequence[int],
    histories: Histories | None = None,
) -> list[str]:
    """Each question and its pictures by the processor's chat template, ready for the answer.

    `pictures`: how many each question has. They stand where it, or a question before it, says
    `<image>`, or else before the first. `histories`: the turns that each question goes on from.
    Raises InputError for a text with a special token of the model's in it.
    """
    befores = histories or [()] * len(questions)
    rows = [
        _dialogue(question, before, count)
        for question, before, count in zip(questions, befores, pictures, strict=True)
    ]
    for what, role in (("question", "user"), ("answer", "assistant")):
        contents = [one["content"] for row in rows for one in row if one["role"] == role]
        texts = [part.get("text", "") for content in contents for part in content]
        _refuse_specials(processor, what, texts)
    return [rendered(processor, row, for_answer=True) for row in rows]


def _dialogue(question: str, history: Sequence[Turn], pictures: int) -> list[dict[str, Any]]:
    """The turns of a prompt; its pictures stand in the questions that say so, or in the first."""
    questions = [*(before.question for before in history), question]
    tags = [one.count(IMAGE_TAG) for one in questions]
    assert sum(tags) in (0, pictures), "a picture for each tag"
    counts = tags if sum(tags) else [pictures] + [0] * len(history)
    turns = []
    for i, one in enumerate(zip(questions, counts, strict=True)):
        turns.append({"role": "user", "content": _content(*one)})
        turns += [turn("assistant", before.answer) for before in history[i : i + 1]]
    return turns


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


def _special_texts(processor: Any) -> Iterator[str]:
    """The texts that become special tokens, the signs of pictures among them."""
    yield from processor.tokenizer.all_special_tokens
    added = getattr(processor.tokenizer, "added_tokens_decoder", {})
    yield from (str(token) for token in added.values() if token.special)
    signs = (getattr(processor, f"{kind}_token", None) for kind in ("image", "video", "boi"))
    yield from (sign for sign in signs if isinstance(sign, str))


def _refuse_specials(processor: Any, what: str, texts: Sequence[str]) -> None:
    """A special token in a text would be read as one, a picture's sign as another picture."""
    specials = {*_special_texts(processor)} - {""}
    for text in texts:
        if found := sorted(special for special in specials if special in text):
            shown = text if len(text) < 80 else f"{text[:80]}..."
            problem = f"{what} {shown!r} contains {found[0]}, a special token of the model's"
            raise InputError(f"{problem}; take it out of the data")


# ---- the batch ---------------------------------------------------------------------------------


def encode(
    processor: Any,
    images: Pictures,
    questions: Sequence[str],
    padding_side: str = "left",
    histories: Histories | None = None,
) -> Any:
    """The prompts as the published processor encodes them, in tensors of one batch, on the CPU."""
    texts = chat_prompts(processor, questions, [len(row) for row in images], histories)
    texts, adds_special = _with_start(processor.tokenizer, texts)
    batch = processor(
        images=[[*row] for row in images],  # a list per prompt: the form that all families take
        text=texts,
        padding=True,
        padding_side=padding_side,
        return_tensors="pt",
        add_special_tokens=adds_special,
    )
    batch.pop("labels", None)  # of PaliGemma, for training: a prompt has none
    return batch


def _with_start(tokenizer: Any, texts: list[str]) -> tuple[list[str], bool]:
    """The prompts, and whether the tokenizer sets its own special tokens around them.

    As in transformers' `apply_chat_template(tokenize=True)` it does unless the template has set the
    token of the beginning. A tokenizer that would also set one at the *end* of a prompt, which the
    answer goes on from, is not asked to: those of the beginning are written before the prompt.
    """
    start = tokenizer.bos_token
    if start and texts[0].startswith(start):
        return texts, False
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    around = tokenizer("a", add_special_tokens=True)["input_ids"]
    at = next((i for i in range(len(around)) if around[i : i + len(plain)] == plain), 0)
    if around[at:] == plain:
        return texts, True
    first = "".join(tokenizer.convert_ids_to_tokens(around[:at]))
    return [first + text for text in texts], False


def prompt_inputs(
    model: nn.Module,
    processor: Any,
    images: Pictures,
    questions: Sequence[str],
    histories: Histories | None = None,
) -> Any:
    """What the model takes for these prompts, left-padded, on its device and in its precision."""
    batch = encode(processor, images, questions, histories=histories)
    return batch.to(*place_of(model))


def place_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device of a model's weights and their precision, for what it is to take."""
    weights = next(weights for weights in model.parameters() if weights.is_floating_point())
    return weights.device, weights.dtype


# ---- the answer --------------------------------------------------------------------------------


def end_tokens(model: Any, processor: Any) -> tuple[int, ...]:
    """All tokens that end an answer, of a model or its configuration.

    Those of its generation config, as `generate` takes them; else of its config, of its decoder's,
    or the tokenizer's. Raises InputError where there is none, or none of the vocabulary.
    """
    model = getattr(model, "module", model)
    config = getattr(model, "config", model)
    text = config.get_text_config(decoder=True)
    for source in (getattr(model, "generation_config", None), config, text, processor.tokenizer):
        ends = getattr(source, "eos_token_id", None)
        if ends is not None and ends != []:
            break
    advice = "set eos_token_id in generation_config.json"
    if ends is None or ends == []:
        raise InputError(f"no token ends an answer of this model: {advice}")
    ids = tuple(dict.fromkeys(ends if isinstance(ends, list | tuple) else (ends,)))
    beyond = [i for i in ids if not (type(i) is int and 0 <= i < text.vocab_size)]
    if beyond:
        size = f"the vocabulary has {text.vocab_size} tokens"
        raise InputError(f"eos_token_id: {beyond[0]!r} is no token, {size}; {advice}")
    return ids


def answer_tokens(processor: Any, answers: Sequence[str], ends: Sequence[int]) -> list[list[int]]:
    """The tokens of each answer and the one that ends it, with nothing behind.

    Raises InputError for an answer with a special token of the model's in it.
    """
    _refuse_specials(processor, "answer", answers)
    end = turn_end(processor, ends)
    return [[*processor.tokenizer(a, add_special_tokens=False)["input_ids"], end] for a in answers]


def located_tokens(
    processor: Any, answers: Sequence[str], ends: Sequence[int]
) -> tuple[list[list[int]], list[list[Range]]]:
    """`answer_tokens`, and the characters of the answer that each of them stands for.

    The end token has none, (n, n) behind an answer of n characters.
    """
    tokens, tokenizer = answer_tokens(processor, answers, ends), processor.tokenizer
    return tokens, [[*token_ranges(tokenizer, a), (len(a), len(a))] for a in answers]


def token_ranges(tokenizer: Any, text: str) -> list[Range]:
    """The characters that each token of a text stands for.

    A token of a word may hold the white space before it, and several tokens may share a character,
    as the bytes of a rare one do. Raises InputError for a tokenizer that does not know.
    """
    if not getattr(tokenizer, "is_fast", False):
        name = type(tokenizer).__name__
        problem = "does not say which characters its tokens stand for; save it as tokenizer.json"
        raise InputError(f"tokenizer {name} {problem}")
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [(start, end) for start, end in made["offset_mapping"]]


def turn_end(processor: Any, ends: Sequence[int]) -> int:
    """The end token that the chat template sets after an answer; the first where it sets none.

    It is looked for behind the answer of a whole turn, because what opens a turn for an answer need
    not open a finished one: templates of thinking models put thoughts into the one and not into the
    other.
    """
    marker = "answered"
    text = rendered(processor, [turn("user", "asked"), turn("assistant", marker)], for_answer=False)
    _, found, behind = text.rpartition(marker)
    ids = processor.tokenizer(behind if found else "", add_special_tokens=False)["input_ids"]
    return next((i for i in ids if i in ends), ends[0])
