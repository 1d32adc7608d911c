"""An OpenAI-compatible endpoint on this machine: what it is sent, how often, and what is kept."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from adapt.benchmarks import registry
from adapt.generation import verdicts as judging
from adapt.params import InputError
from tests.support import benchmark_folders as made
from tests.support.benchmark_folders import benchmark

Reply = tuple[int, bytes]
ANSWERS = {"0": "A dog.", "1": "A {question} cat."}


def said(text: Any) -> Reply:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


class Endpoint:
    """Answers what `replies` says, the last one for good; remembers what it was sent."""

    def __init__(self) -> None:
        self.replies = [said("Rating: 4")]
        self.asked: list[tuple[str, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.headers.get("Authorization", ""), json.loads(content)))
                assert self.path == "/v1/chat/completions"
                status, body = outer.replies.pop(0) if outer.replies[1:] else outer.replies[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint(monkeypatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(judging, "WAIT", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    one = Endpoint()
    thread = threading.Thread(target=one.server.serve_forever, daemon=True)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def judged(endpoint, tmp_path) -> Callable[..., dict[str, str]]:
    path = made.mmhal(tmp_path)

    def run(**options: Any) -> dict[str, str]:
        of = {"url": endpoint.url, "model": "some-judge", **options}
        settings = benchmark("mmhal", path, judge=of)
        suite = registry.read(settings)
        return judging.verdicts(settings, suite, ANSWERS, "base", tmp_path / "kept")

    return run


def test_each_answer_is_sent_once_with_what_the_judge_needs(endpoint, judged):
    endpoint.replies = [said("Rating: 6"), said("Rating: 1")]
    assert judged() == {"0": "Rating: 6", "1": "Rating: 1"}
    key, body = endpoint.asked[1]
    assert (key, body["model"], body["temperature"]) == ("", "some-judge", 0)
    (message,) = body["messages"]
    for part in ("dog, grass", "What is in picture 1?", "A dog.", "A {question} cat."):
        assert part in message["content"]
    assert judged() == {"0": "Rating: 6", "1": "Rating: 1"} and len(endpoint.asked) == 2
    judged(model="another")
    assert len(endpoint.asked) == 4, "another judge is asked anew"


def test_the_key_comes_from_the_environment_and_stands_in_no_message(endpoint, judged, monkeypatch):
    with pytest.raises(InputError, match=r"judge\.key: JUDGE_KEY: this environment"):
        judged(key="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", "secret-1")
    endpoint.replies = [(401, b"{}")]
    with pytest.raises(InputError, match="/v1/chat/completions: answers 401") as problem:
        judged(key="JUDGE_KEY")
    assert endpoint.asked[0][0] == "Bearer secret-1" and "secret" not in str(problem.value)
    assert len(endpoint.asked) == 1, "a refusal is not repeated"


def test_a_busy_endpoint_is_asked_again(endpoint, judged):
    endpoint.replies = [(503, b"busy"), (429, b"slow down"), said("Rating: 5")]
    assert judged()["0"] == "Rating: 5" and len(endpoint.asked) == 4
    endpoint.replies = [(500, b"")]
    with pytest.raises(InputError, match="answers 500"):
        judged(model="another")
    assert len(endpoint.asked) == 4 + judging.ATTEMPTS


def test_what_was_judged_before_a_fault_is_kept(endpoint, judged):
    endpoint.replies = [said("Rating: 3"), (400, b"")]
    with pytest.raises(InputError, match="answers 400"):
        judged()
    endpoint.replies = [said("Rating: 2")]
    assert judged() == {"0": "Rating: 3", "1": "Rating: 2"} and len(endpoint.asked) == 3


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>", "does not answer in JSON"),
        (b"[]", "the reply has no choices"),
        (b'{"choices": []}', "the reply has no choices"),
        (said(None)[1], "the judge's reply is no text"),
    ],
)
def test_a_strange_reply_is_one_line(endpoint, judged, body, says):
    endpoint.replies = [(200, body)]
    with pytest.raises(InputError, match=says) as problem:
        judged()
    assert "\n" not in str(problem.value)


def test_an_endpoint_that_is_not_there(endpoint, judged):
    endpoint.server.server_close()
    with pytest.raises(InputError, match="cannot be reached"):
        judged(url="http://127.0.0.1:1/v1")


def test_a_prompt_of_ones_own(endpoint, judged, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("Objects: {}\nQ: {}\nTrue: {}\nSaid: {}")
    judged(prompt=str(file))
    content = endpoint.asked[0][1]["messages"][0]["content"]
    assert content == "Objects: dog, grass\nQ: What is in picture 0?\nTrue: A dog.\nSaid: A dog."
    file.write_text("Rate {model_answer}")
    with pytest.raises(InputError, match=r"prompt\.txt: has not .image_content"):
        judged(prompt=str(file))
