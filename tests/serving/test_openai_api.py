"""Requests of chat completions: what is read, and what is refused in OpenAI's own form."""

import json

import pytest

from adapt.data.schema import Turn
from adapt.serving.api_errors import ApiError
from adapt.serving.openai_api import request_of
from adapt.serving.options import IGNORED, REFUSED
from tests.support import doors

LIMITS = doors.settings(pictures=2, turns=2, question_chars=100, max_new_tokens=50).limits
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ASKED = [PICTURE, {"type": "text", "text": "what is it?"}]
USER, SAID = {"role": "user", "content": ASKED}, {"role": "assistant", "content": "a car."}


def read(messages=None, **changes):
    content = {"model": "adapt", "messages": [USER] if messages is None else messages, **changes}
    return request_of(json.dumps(content).encode(), "adapt", LIMITS)


def refused(**changes) -> ApiError:
    with pytest.raises(ApiError) as raised:
        read(**changes)
    return raised.value


def test_a_question_and_its_options_are_read():
    risk = {"policy": "stop", "threshold": 0.25, "maps": True}
    usage = {"include_usage": True}
    found = read(risk=risk, stream=True, stream_options=usage, logprobs=True, max_tokens=9)
    assert found.dialogue.question == "what is it?" and found.dialogue.history == ()
    assert (found.policy, found.threshold, found.maps) == ("stop", 0.25, True)
    assert found.stream and found.usage and found.logprobs and found.max_new_tokens == 9
    assert found.temperature == 0.0 and found.dialogue.pictures[0].url.endswith("AAAA")


def test_pictures_before_all_words_stay_there_and_others_are_marked():
    second = {"role": "user", "content": [{"type": "text", "text": "and"}, PICTURE]}
    found = read([USER, SAID, second]).dialogue
    assert found.history == (Turn(question="<image>\nwhat is it?", answer="a car."),)
    assert found.question == "and\n<image>" and len(found.pictures) == 2
    plain = read([USER, SAID, {"role": "user", "content": "sure?"}]).dialogue
    assert plain.history == (Turn(question="what is it?", answer="a car."),)
    assert plain.question == "sure?"


def test_the_same_seed_samples_alike_and_none_samples_anew():
    one, other = (read(temperature=1.0, seed=-3) for _ in range(2))
    assert one.seed is not None and one.seed == other.seed >= 0 and one.id != other.id
    one, other = (read(temperature=1.0) for _ in range(2))
    assert one.seed is other.seed is None and one.id != other.id


def test_what_a_client_sends_without_meaning_anything_is_taken():
    neutral = {name: values[0] for name, (values, _) in REFUSED.items() if values}
    ignored = {name: "mine" for name in IGNORED}
    back = SAID | {"refusal": None, "annotations": [], "tool_calls": None, "audio": None}
    user = {"role": "user", "content": "sure?", "name": "me"}
    given = neutral | ignored | {"tools": None}
    assert read([USER, back, user], **given).max_new_tokens is None


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_option_that_is_not_there_is_refused_by_its_name(name):
    values = {"logit_bias": {"5": 100}, "response_format": {"type": "json_object"}, "n": 2}
    error = refused(**{name: values.get(name, "sure")})
    assert (error.status, error.param, error.code) == (400, name, "unsupported_parameter")
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"n": True}, "n", "unsupported_parameter"),
        ({"temperatur": 1}, "temperatur", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": 1e999}, None, "invalid_json"),
        ({"max_tokens": 51}, "max_tokens", "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_type"),
        ({"model": "gpt-4o"}, "model", "model_not_found"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"risk": {"policy": "pray"}}, "risk.policy", "invalid_value"),
        ({"risk": {"polcy": "flag"}}, "risk.polcy", "unknown_parameter"),
        ({"risk": {"threshold": 2}}, "risk.threshold", "invalid_value"),
        ({"risk": []}, "risk", "invalid_type"),
        ({"messages": {}}, "messages", "invalid_value"),
        ({"messages": [USER, SAID]}, "messages", "invalid_value"),
        ({"messages": [USER, SAID] * 2 + [USER]}, "messages", "invalid_value"),
        ({"messages": [SAID]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role", None),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", None),
        ({"messages": [{"role": "user", "content": "no picture"}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "messages[0].content", None),
        ({"messages": [{"role": "user", "content": [PICTURE] * 3 + ASKED}]}, None, None),
        ({"messages": [{"role": "user", "content": [*ASKED, 3]}]}, None, "invalid_value"),
        ({"messages": [{**USER, "tool_calls": [{}]}]}, "messages[0].tool_calls", None),
        ({"messages": [USER | {"weight": 0}]}, "messages[0].weight", "unknown_parameter"),
    ],
)
def test_a_mistake_is_named(changes, param, code):
    error = refused(**changes)
    assert error.status in (400, 404)
    assert param is None or error.param == param
    assert code is None or error.code == code


@pytest.mark.parametrize("text", ["a <image> b", "x" * 101, "\ud800", 5, None])
def test_a_text_that_no_question_has_is_refused(text):
    content = [PICTURE, {"type": "text", "text": text}]
    assert refused(messages=[{"role": "user", "content": content}]).status == 400


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff\xfe", b"[]", b"null", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}'),
        *(b"[" * 100_000, b'{"a":' * 50_000, b'{"a": ' + b"1" * 10_000 + b"}"),
        b'{"a": [' + b"[]," * 200_000 + b"[]]}",
        b'{"a": ' * 40 + b"1" + b"}" * 40,
    ],
)
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(ApiError) as raised:
        request_of(body, "adapt", LIMITS)
    assert (raised.value.status, raised.value.code) == (400, "invalid_json")
