"""The sequence as the published processor makes it, the answer as the template ends a turn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from adapt.data.schema import Turn
from adapt.models import prompts
from adapt.models.prompts import (
    answer_tokens,
    chat_prompts,
    encode,
    end_tokens,
    located_tokens,
    prompt_inputs,
    token_ranges,
)
from adapt.params import InputError
from tests.support import families, templates, tiny_world

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PICTURE = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
QUESTIONS = ["what is it?", "is there a dog?"]
HISTORY = (
    Turn(question="is there a car?", answer="no"),
    Turn(question="is it red?", answer="a red house."),
)


def published(processor, question, pictures, history=()):
    """One prompt by the processor's own way from turns to tensors."""
    images = [{"type": "image", "image": picture} for picture in pictures]
    turns = []
    for before in history:
        turns += [said("user", before.question), said("assistant", before.answer)]
    turns.append(said("user", question))
    turns[0]["content"] = [*images, *turns[0]["content"]]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return processor.apply_chat_template(turns, add_generation_prompt=True, **options)


def said(role, text):
    return {"role": role, "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize("style", templates.STYLES)
def test_a_prompt_is_what_the_published_processor_makes(style):
    processor = templates.processor(templates.STYLES[style][0])
    batch = encode(processor, [[PICTURE], [PICTURE]], QUESTIONS)
    later = encode(processor, [[PICTURE], [PICTURE]], QUESTIONS, histories=[HISTORY, ()])
    want = published(processor, QUESTIONS[0], [PICTURE], HISTORY)["input_ids"][0]
    assert torch.equal(later["input_ids"][0][later["attention_mask"][0].bool()], want)
    for b, question in enumerate(QUESTIONS):
        want = published(processor, question, [PICTURE])["input_ids"][0]
        ours = batch["input_ids"][b][batch["attention_mask"][b].bool()]
        assert torch.equal(ours, want)
        assert ours.tolist().count(processor.tokenizer.bos_token_id) == 1, "the beginning, once"


@pytest.mark.parametrize("name", families.CASES)
def test_every_family_gets_the_tensors_of_its_own_processor(name):
    model, processor = families.built(name)
    size = next(iter(families.CASES[name].views))
    picture = families.picture(size)
    ours = prompt_inputs(model, processor, [[picture]], [families.QUESTIONS[0]])
    want = published(processor, families.QUESTIONS[0], [picture])
    assert set(ours) == set(want) - {"labels"}
    for key in ours:
        assert torch.equal(ours[key], want[key]), key


@pytest.mark.parametrize("name", families.CASES)
def test_every_family_gets_earlier_turns_as_its_own_processor_writes_them(name):
    model, processor = families.built(name)
    picture = families.picture(next(iter(families.CASES[name].views)))
    question = families.QUESTIONS[0]
    ours = prompt_inputs(model, processor, [[picture]], [question], [HISTORY])
    want = published(processor, question, [picture], HISTORY)
    assert set(ours) == set(want) - {"labels"}
    assert (
        ours["input_ids"].shape[1]
        > prompt_inputs(model, processor, [[picture]], [question])["input_ids"].shape[1]
    )
    for key in ours:
        assert torch.equal(ours[key], want[key]), key


def test_a_tokenizer_that_ends_what_it_reads_does_not_end_a_prompt():
    ends = templates.processor(templates.LLAVA, around="<s> $A </s>")
    plain = templates.processor(templates.LLAVA)
    for question in QUESTIONS:
        ours = encode(ends, [[PICTURE]], [question])["input_ids"]
        assert torch.equal(ours, encode(plain, [[PICTURE]], [question])["input_ids"])


@pytest.mark.parametrize("style", templates.STYLES)
def test_an_answer_ends_as_the_template_ends_a_turn(style):
    template, names = templates.STYLES[style]
    processor = templates.processor(template)
    tokenizer = processor.tokenizer
    ends = tokenizer.convert_tokens_to_ids(list(names))
    first, second = answer_tokens(processor, ["a dog.", "no"], ends)
    want = {"gemma": "<end_of_turn>"}.get(style, names[0])
    assert tokenizer.decode(first) == "a dog." + want and tokenizer.decode(second) == "no" + want


ANSWERS = ["A red car, naïve 🚗 and\n  “two” red cars.", "", " é"]


def published_tokenizer(kind):
    """How the published tokenizers cut texts: bytes (Qwen, Llama 3), or pieces (Llama 2, Gemma)."""
    made = Tokenizer(models.BPE(byte_fallback=kind == "pieces", unk_token="<unk>"))
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    if kind == "bytes":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.post_processor = processors.ByteLevel(trim_offsets=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    specials = ["<unk>", "</s>", *(alphabet if kind == "pieces" else ())]
    letters = alphabet if kind == "bytes" else []
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(["a", "red", "car", "and", "cars"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("kind", ["words", "bytes", "pieces"])
def test_tokens_know_the_characters_that_they_stand_for(kind, monkeypatch):
    processor = SimpleNamespace(
        tokenizer=tiny_world.processor().tokenizer if kind == "words" else published_tokenizer(kind)
    )
    monkeypatch.setattr(prompts, "turn_end", lambda *_: 1)
    tokens, ranges = located_tokens(processor, ANSWERS, [1])
    assert tokens == answer_tokens(processor, ANSWERS, [1])
    for text, ids, places in zip(ANSWERS, tokens, ranges, strict=True):
        assert len(ids) == len(places) and places[-1] == (len(text), len(text))
        covered = {at for start, end in places for at in range(start, end)}
        assert {at for at in range(len(text)) if not text[at].isspace()} <= covered
    words = [ANSWERS[0][start:end].strip() for start, end in ranges[0]]
    for word in ("red", "car") if kind == "words" else ("red", "car", "🚗"):
        assert word in words, words


def test_a_tokenizer_that_cannot_say_where_is_named():
    tokenizer = SimpleNamespace(is_fast=False)
    with pytest.raises(
        InputError, match=r"tokenizer SimpleNamespace does not say .*tokenizer.json"
    ):
        token_ranges(tokenizer, "a dog.")


def test_end_tokens_are_those_that_generate_takes():
    model, processor = tiny_world.model(), tiny_world.processor()
    model.generation_config.eos_token_id = [3, 8, 3]
    assert end_tokens(model, processor) == (3, 8)
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = 5
    assert end_tokens(model, processor) == (5,)
    model.config.eos_token_id, model.config.text_config.eos_token_id = None, [6]
    assert end_tokens(model, processor) == (6,) == end_tokens(model.config, processor)
    model.config.text_config.eos_token_id = None
    assert end_tokens(model, processor) == (processor.tokenizer.eos_token_id,)


@pytest.mark.parametrize("wrong", [[], [3, 10**9], -1, ["</s>"], True])
def test_end_tokens_that_are_none_are_named(wrong):
    config = LlamaConfig(vocab_size=20, eos_token_id=None)
    generation = GenerationConfig(eos_token_id=None)
    generation.eos_token_id = wrong
    tokenizer = SimpleNamespace(eos_token_id=None)
    with pytest.raises(InputError, match=r"eos_token_id in generation_config\.json"):
        model = SimpleNamespace(config=config, generation_config=generation)
        end_tokens(model, SimpleNamespace(tokenizer=tokenizer))


def test_a_special_token_in_a_text_is_named():
    processor = templates.processor(templates.QWEN)
    with pytest.raises(InputError, match=r"question 'is <\|im_end\|> it\?' contains <\|im_end\|>"):
        chat_prompts(processor, ["is <|im_end|> it?"], [1])
    with pytest.raises(InputError, match="answer 'see <image>' contains <image>"):
        answer_tokens(processor, ["see <image>"], [2])
    name, model = "qwen2_vl", families.built("qwen2_vl")
    picture = families.picture(next(iter(families.CASES[name].views)))
    with pytest.raises(InputError, match=r"contains <\|image_pad\|>, a special token"):
        prompt_inputs(*model, [[picture]], ["is <|image_pad|> there?"])


def test_pictures_stand_where_the_question_says():
    processor = templates.processor(templates.INTERNVL)
    (text,) = chat_prompts(processor, ["is <image> like <image>?"], [2])
    assert "\nis<image>like<image>?<|im_end|>" in text
    history = (Turn(question="this is <image>.", answer="yes"), *HISTORY[1:])
    (text,) = chat_prompts(processor, ["and <image> ?"], [2], [history])
    assert text.index("this is<image>.") < text.index("a red house.") < text.index("and<image>?")
    assert text.count("<image>") == 2
    with pytest.raises(InputError, match="answer 'a <image>' contains <image>"):
        chat_prompts(processor, ["and?"], [1], [[Turn(question="what?", answer="a <image>")]])
