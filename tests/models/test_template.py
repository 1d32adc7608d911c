"""A template and a system prompt of the user's own come out of the saved chat template."""

import pytest
from transformers import AutoTokenizer, LlavaProcessor

from adapt.models.prompts import chat_prompts
from adapt.models.settings import PromptConfig
from adapt.models.template import prompt_version, set_prompt
from adapt.params import InputError
from tests.support import templates

SYSTEM = "Say \"only\" what you see: {{ no }} {% more %}, 'façade' 😀.\nNothing else."


def with_prompt(template, system="", path=""):
    processor = templates.processor(template)
    set_prompt(processor, PromptConfig(template=str(path), system=system))
    return processor


@pytest.mark.parametrize("style", templates.STYLES)
def test_a_system_prompt_comes_out_once_and_in_place_of_the_default(style):
    template, _ = templates.STYLES[style]
    (plain,) = chat_prompts(templates.processor(template), ["what is it?"], [1])
    (text,) = chat_prompts(with_prompt(template, SYSTEM), ["what is it?"], [1])
    assert text.count(SYSTEM) == 1 and text.index(SYSTEM) < text.index("what is it?")
    assert "You help." not in text and text.count("<image>") == 1
    # The rest is what the template says without it.
    rest = plain.partition("what is it?")[2]
    assert text.endswith(rest) and text.startswith("<s>") == plain.startswith("<s>")


def test_nothing_added_changes_nothing():
    template, _ = templates.STYLES["qwen"]
    assert with_prompt(template).chat_template == template


def test_a_model_that_comes_back_is_asked_as_before():
    processor = with_prompt(templates.QWEN, SYSTEM)
    once, other = processor.chat_template, with_prompt(templates.QWEN, "other").chat_template
    assert with_prompt(once, SYSTEM).chat_template == once
    assert with_prompt(once, "other").chat_template == other
    assert with_prompt(once).chat_template == once


def test_a_system_turn_of_the_caller_is_kept():
    processor = with_prompt(templates.INTERNVL, "ours")
    turns = [{"role": "system", "content": "theirs"}, {"role": "user", "content": "what?"}]
    text = processor.apply_chat_template(turns, tokenize=False)
    assert "theirs" in text and "ours" not in text


def test_the_saved_folder_has_it_for_every_reader(tmp_path):
    processor = with_prompt(templates.QWEN, SYSTEM)
    processor.save_pretrained(tmp_path)
    (asked,) = chat_prompts(processor, ["what is it?"], [1])
    again = LlavaProcessor.from_pretrained(tmp_path, backend="pil")
    assert chat_prompts(again, ["what is it?"], [1]) == [asked]
    assert prompt_version(again) == prompt_version(processor)
    turns = [{"role": "user", "content": "what is it?"}]
    text = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(turns, tokenize=False)
    assert SYSTEM in text


def test_a_version_is_of_the_template_alone():
    plain, system = with_prompt(templates.QWEN), with_prompt(templates.QWEN, "other")
    assert prompt_version(plain) == prompt_version(with_prompt(templates.QWEN))
    assert prompt_version(plain) != prompt_version(system)
    assert len(prompt_version(plain)) == 12


def test_a_file_replaces_the_template(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(templates.IDEFICS, encoding="utf-8")
    for own in (templates.QWEN, None):
        text = chat_prompts(with_prompt(own, path=path), ["what?"], [2])[0]
        assert text == "<s>User:<image><image>what?<end_of_utterance>\nAssistant:"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("  \n", "the file is empty"),
        ("{% for m in messages %}{{ m.role }}", "its chat template is no jinja"),
        ("{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "characters of one question"),
        ("{{ raise_exception('no pictures') }}", "does not take a question: no pictures"),
        ("{{ messages[7].content }}", "chat template does not take a question"),
        ("<image> go:", "the question does not come out of it"),
        (
            "{% for p in messages[0].content if p.type == 'text' %}{{ p.text }}{% endfor %}",
            "it has no place for a picture",
        ),
    ],
)
def test_a_file_that_does_not_serve_is_one_line(tmp_path, text, says):
    path = tmp_path / "own.jinja"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says) as caught:
        with_prompt(templates.QWEN, path=path)
    assert "\n" not in str(caught.value)


def test_a_template_that_ignores_system_turns_is_named():
    deaf = (
        "{% for message in messages if message.role != 'system' %}" + templates.PARTS
    ) + "{% endfor %}"
    with pytest.raises(InputError, match=r"prompt\.system: the model's template ignores system"):
        with_prompt(deaf, "ours")


def test_no_template_says_what_to_set():
    processor = templates.processor(None)
    for call in (lambda: chat_prompts(processor, ["what?"], [1]), lambda: with_prompt(None)):
        with pytest.raises(InputError, match=r"no chat template.*prompt\.template"):
            call()
