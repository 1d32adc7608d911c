"""The HTTP door in process, with a real tiny model behind it."""

import pytest

from adapt.serving import bundle
from adapt.serving.answerer import Answerer
from adapt.serving.asked import Asked
from tests.support import doors, tiny_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return doors.version(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def http(folder):
    with doors.door(folder) as made, doors.client(made) as client:
        yield client


def alone(folder, number: int, **options):
    """The same question to the core."""
    answerer = Answerer.open(folder, "cpu")
    images, question = [tiny_world.picture(number)], tiny_world.QUESTIONS[number % 2]
    return answerer.answer([Asked(id="1", images=images, question=question, **options)])[0]


def ask(http, number: int = 0, **changes):
    return http.post("/v1/chat/completions", json=doors.request(number, **changes))


@pytest.mark.parametrize("policy", ["flag", "steer", "retry", "stop"])
def test_an_answer_is_the_cores_token_for_token(http, folder, policy):
    known = alone(folder, 1, policy=policy)
    options = {"policy": policy, "maps": True}
    reply = ask(http, 1, risk=options, logprobs=True)
    content = reply.json()
    choice, risk = content["choices"][0], content["risk"]
    assert reply.status_code == 200 and choice["message"]["content"] == known.text
    finish = {"risk": "content_filter"}.get(known.finish, known.finish)
    assert choice["finish_reason"] == finish and risk["policy"] == policy
    said = [one["token"] for one in choice["logprobs"]["content"]]
    assert said == [token.text for token in known.tokens]
    for name in ("risk", "mass", "focus", "steered"):
        theirs = [getattr(token, name) for token in known.tokens]
        assert [token[name] for token in risk["tokens"]] == pytest.approx(theirs, abs=1e-6)
    assert risk["answer"] == pytest.approx(known.risk, abs=1e-6)
    assert [(one["name"], one["start"]) for one in risk["named"]] == [
        (one.name, one.start) for one in known.named
    ]
    assert len(risk["maps"]) == len(known.tokens) and risk["grids"] == [[4, 4]]
    assert all(len(row[0]) == 16 for row in risk["maps"])
    assert content["usage"]["completion_tokens"] == len(known.tokens)


@pytest.mark.parametrize("policy", ["flag", "steer", "retry", "stop"])
def test_a_stream_is_the_same_answer_in_pieces(http, policy):
    options = {"risk": {"policy": policy}, "logprobs": True}
    whole = ask(http, 0, **options).json()
    reply = ask(http, 0, **options, stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, last, usage = doors.events(reply.text)
    deltas = [one["choices"][0]["delta"].get("content", "") for one in chunks]
    assert "".join(deltas) == whole["choices"][0]["message"]["content"]
    tokens = [token for one in chunks for token in one.get("risk", {}).get("tokens", [])]
    assert tokens == last["risk"]["tokens"] and last["risk"] == whole["risk"]
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert usage["usage"] == whole["usage"] and usage["choices"] == []
    assert all(one["usage"] is None for one in (*chunks, last))
    said = [
        part
        for one in chunks
        for part in (one["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert [one["token"] for one in said] == [
        one["token"] for one in whole["choices"][0]["logprobs"]["content"]
    ]


def test_a_seed_is_kept_to(http):
    options = {"temperature": 1.5, "seed": 11}
    texts = {ask(http, **options).json()["choices"][0]["message"]["content"] for _ in range(3)}
    other = ask(http, temperature=1.5, seed=12).json()["choices"][0]["message"]["content"]
    assert len(texts) == 1 and other not in texts


def test_an_answer_ends_where_the_request_says(http):
    content = ask(http, max_tokens=2).json()
    assert content["usage"]["completion_tokens"] == 2
    assert content["choices"][0]["finish_reason"] == "length"


def test_models_and_health_say_what_is_served(http, folder):
    assert [one["id"] for one in http.get("/v1/models").json()["data"]] == ["adapt"]
    assert http.get("/v1/models/adapt").json()["id"] == "adapt"
    assert http.get("/v1/models/a/b").json()["error"]["code"] == "model_not_found"
    assert http.get("/health").json()["status"] == "ok"
    # What it is made of, as its folder says.
    said, served = http.get("/v1/models/adapt").json()["served"], bundle.read(folder).served
    assert (said["weights"], said["data"], said["warned_by"]) == (
        served.weights,
        served.data,
        served.warned_by,
    )
    assert said["steering"] == served.steer.told


def test_meters_count(http):
    before = meter(http, "adapt_answer_tokens_total")
    said = ask(http).json()["usage"]["completion_tokens"]
    assert meter(http, "adapt_answer_tokens_total") == before + said
    assert meter(http, "adapt_held_pixels") == 0 and 'adapt_model{version=""} 1' in metrics(http)


def metrics(http) -> str:
    return http.get("/metrics").text


def meter(http, name: str) -> float:
    return next(
        float(line.split()[1]) for line in metrics(http).splitlines() if line.startswith(name)
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("GET", "/nowhere", 404), ("GET", "/-/routes", 404)],
)
def test_what_is_not_there_is_said_in_the_same_form(http, method, path, status):
    reply = http.request(method, path)
    assert reply.status_code == status and set(reply.json()["error"]) >= {"message", "code"}


def test_a_body_of_another_kind_is_refused(http):
    form = {"Content-Type": "text/plain"}
    reply = http.post("/v1/chat/completions", content=b"{}", headers=form)
    assert reply.status_code == 415


def test_a_question_that_the_model_cannot_be_asked_is_refused_also_in_a_stream(http):
    text = {"type": "text", "text": "is there </s> ?"}
    messages = [{"role": "user", "content": [doors.part(), text]}]
    for stream in (False, True):
        reply = ask(http, messages=messages, stream=stream)
        assert reply.status_code == 400 and "special token" in reply.json()["error"]["message"]


def test_pixels_that_wait_are_bounded_and_given_back(folder):
    with doors.door(folder, doors.settings(held_pixels=1024)) as made:
        made.admission.take(1024)
        with doors.client(made) as http:
            reply = ask(http)
            assert (reply.status_code, reply.json()["error"]["type"]) == (429, "rate_limit_error")
            made.admission.give_back(1024)
            assert ask(http).status_code == 200 and made.admission.held == 0


def test_an_answer_that_takes_too_long_is_given_up(folder):
    hasty = doors.settings(seconds=0.001)
    with doors.door(folder, hasty) as made, doors.client(made, seconds=5.0) as http:
        assert ask(http).status_code == 408
        assert ask(http, stream=True).status_code == 408
