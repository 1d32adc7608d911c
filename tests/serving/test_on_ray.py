"""The server as it is started by hand, on Ray Serve, asked by OpenAI's own client."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from openai import APIStatusError, AuthenticationError, BadRequestError, OpenAI

from adapt.cluster.local import MARK
from adapt.serving.answerer import Answerer
from adapt.serving.asked import Asked
from tests.support import doors, limits, ports, tiny_world, tracked
from tests.support.closure import ROOT

KEY = "a-key-of-twenty-signs"
MOVES, CLIENTS = 20, 4
pytestmark = pytest.mark.slow


class Server:
    """A running `python -m adapt.serving start`."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}"

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def health(self) -> dict[str, Any]:
        return httpx.get(f"{self.url}/health", timeout=60).json()

    def meter(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def ask(self, number: int, client: OpenAI | None = None, **options: Any) -> Any:
        content = doors.request(number)
        return (client or self.client()).chat.completions.create(**content, **options)


def mine(port: int) -> list[psutil.Process]:
    """The processes of a Ray that was started by the server at `port`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("ADAPT_TEST_PORT") == str(port):
                found.append(process)
    return found


@contextmanager
def started(root: Path, *options: str, **variables: str):
    port, log = ports.free()[0], root / "server.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ADAPT_TEST_PORT": str(port)}
    command = [sys.executable, "-m", "adapt.serving", "start", "--port", str(port), *options]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=root, env=env | own | variables, stdout=out, stderr=out, text=True
        )
    try:
        limits.until(
            lambda: "Ctrl-C" in log.read_text() or process.poll() is not None,
            "server",
            limits.SERVER_START_S,
        )
        assert process.poll() is None, log.read_text()
        yield Server(process, port, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(limits.ORPHANS_S)
        limits.until(lambda: not mine(port), "end of its processes", limits.ORPHANS_S)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace whose registry has two versions, of which the first is the champion."""
    root = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        store = tracked.workspace(root, patch)
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["serve"] |= {"follow_s": 0.3, "batch": 4, "pace_ms": 0}
    content["serve"]["limits"] |= {"seconds": 5.0, "body_mib": 8}
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    store.client.create_registered_model("adapt")
    for seed in range(2):
        folder = doors.version(root / f"version-{seed}", seed)
        store.client.create_model_version("adapt", str(folder))
    store.client.set_registered_model_alias("adapt", "champion", "1")
    return store


@pytest.fixture(scope="module")
def server(workspace):
    with started(workspace.root) as found:
        yield found


@pytest.fixture(scope="module")
def known(workspace) -> dict[str, list[Any]]:
    """What each version answers, in process."""
    answers = {}
    for seed in range(2):
        answerer = Answerer.open(workspace.root / f"version-{seed}", "cpu")
        questions = [
            Asked(id=str(n), images=[tiny_world.picture(n)], question=tiny_world.QUESTIONS[n % 2])
            for n in range(4)
        ]
        answers[str(seed + 1)] = [answerer.answer([one])[0] for one in questions]
    return answers


def test_openais_client_gets_the_cores_answers_whole_and_streamed(server, known):
    assert [one.id for one in server.client().models.list()] == ["adapt"]
    for number, answer in enumerate(known["1"]):
        whole = server.ask(number, logprobs=True)
        assert whole.choices[0].message.content == answer.text
        assert [one.token for one in whole.choices[0].logprobs.content] == [
            token.text for token in answer.tokens
        ]
        risks = [token["risk"] for token in whole.risk["tokens"]]
        assert risks == pytest.approx([token.risk for token in answer.tokens], abs=1e-6)
        assert whole.risk["version"] == "1" and whole.system_fingerprint == "adapt/1"
        chunks = list(server.ask(number, stream=True))
        assert "".join(one.choices[0].delta.content or "" for one in chunks) == answer.text
        assert len(chunks) > 3 and chunks[-1].risk == whole.risk


def test_batches_of_many_clients_answer_as_alone(server, known):
    client = server.client()
    before = server.meter("adapt_batch_rows_sum") - server.meter("adapt_batch_rows_count")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda n: server.ask(n % 4, client, stream=n % 3 == 0), range(48)))
        for number, reply in enumerate(replies):
            parts = reply if number % 3 == 0 else [reply]
            choices = [one.choices[0] for one in parts]
            texts = [getattr(one, "delta", None) or one.message for one in choices]
            text = "".join(one.content or "" for one in texts)
            assert text == known["1"][number % 4].text
    rows = server.meter("adapt_batch_rows_sum") - server.meter("adapt_batch_rows_count")
    assert rows > before  # some were answered together


def test_a_refusal_is_openais_own_exception(server):
    with pytest.raises(BadRequestError) as raised:
        server.ask(0, n=2)
    assert (raised.value.param, raised.value.code) == ("n", "unsupported_parameter")


def test_the_alias_moves_under_load_and_no_request_fails(server, workspace, known):
    over, failed, seen = threading.Event(), [], []

    def load(number: int) -> None:
        client = server.client()
        while not over.is_set():
            try:
                if number % 2:
                    chunks = list(server.ask(number, client, stream=True))
                    text = "".join(one.choices[0].delta.content or "" for one in chunks)
                    version = {one.risk["version"] for one in chunks if hasattr(one, "risk")}
                else:
                    whole = server.ask(number, client)
                    text, version = whole.choices[0].message.content, {whole.risk["version"]}
            except Exception as error:
                failed.append(repr(error))
                return
            assert len(version) == 1
            seen.append((number, version.pop(), text))

    threads = [threading.Thread(target=load, args=[n]) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for move in range(MOVES):
            to = str(2 - move % 2)
            workspace.client.set_registered_model_alias("adapt", "champion", to)
            limits.until(lambda to=to: server.health()["version"] == to, f"version {to}")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert {version for _, version, _ in seen} == {"1", "2"}
    for number, version, text in seen:
        assert text == known[version][number].text
    assert server.health()["version"] == "1" and server.health()["trouble"] == ""


def connection(server, body: bytes, announced: int | None = None) -> socket.socket:
    """A socket on which a request begins: its head, and `body`."""
    length = len(body) if announced is None else announced
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    opened = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    opened.sendall(head.encode() + body)
    return opened


def test_clients_that_leave_in_mid_stream_hold_nothing(server, known):
    body = json.dumps(doors.request(1, stream=True)).encode()
    for number in range(30):
        with connection(server, body) as opened:
            if number % 3:
                assert b"200" in opened.recv(100)
    limits.until(lambda: server.meter("adapt_held_pixels") == 0, "end of what they asked")
    assert server.ask(0).choices[0].message.content == known["1"][0].text


def test_slow_clients_are_given_up_and_keep_nobody_waiting(server, known):
    body = json.dumps(doors.request(1)).encode()
    slow = [connection(server, body[:50], announced=len(body)) for _ in range(20)]
    assert server.ask(0).choices[0].message.content == known["1"][0].text
    for opened in slow:
        assert b" 408 " in opened.recv(1000)
        opened.close()


def test_a_body_of_50_mb_is_refused_and_the_client_is_told(server):
    with pytest.raises(APIStatusError) as raised:
        server.client().chat.completions.create(**doors.request(user="x" * (50 << 20)))
    assert raised.value.status_code == 413
    with connection(server, b"{", announced=50 << 20) as opened:
        assert b" 413 " in opened.recv(1000)


def test_only_loopback_listens(server):
    found = set()
    for process in mine(server.port):
        with suppress(psutil.Error):
            for one in process.net_connections(kind="inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.add(one.laddr.ip)
    assert found and found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_key_is_asked_for_and_handed_to_no_process(workspace, known):
    with started(workspace.root, ADAPT_API_KEY=KEY) as server:
        with pytest.raises(AuthenticationError):
            server.ask(0, server.client("another-key-of-signs"))
        reply = server.ask(0, server.client(KEY))
        assert reply.choices[0].message.content == known["1"][0].text
        others = [one for one in mine(server.port) if one.pid != server.process.pid]
        assert others and KEY not in str([one.environ() for one in others])
        assert KEY not in server.log.read_text()


def test_it_ends_with_ctrl_c_and_leaves_nothing(workspace):
    with started(workspace.root, "--model", str(workspace.root / "version-0")) as server:
        folders = {one.environ().get(MARK, "") for one in mine(server.port)} - {""}
        assert server.ask(0).risk["version"] == "" and folders
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(limits.ORPHANS_S) == 130
        assert time.monotonic() - began < limits.ORPHANS_S
    assert not [one for one in folders if Path(one).exists()]
    said = server.log.read_text()
    assert not any(word in said for word in ("Traceback", "failed", "retries"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port)).close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "models:/other@champion"], "models:/other@champion: no such model"),
        (["--model", "nowhere"], "no such model folder"),
        (["--host", "0.0.0.0"], "serve.host: 0.0.0.0 is reached from elsewhere; set ADAPT_API_KEY"),
        (["--model", "models:/x"], "expected models:/NAME@ALIAS"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(workspace, options, says):
    port = str(ports.free()[0])
    command = [sys.executable, "-m", "adapt.serving", "start", "--port", port, *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=workspace.root, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
