"""A thousand hostile requests to the guarded door: refused, and without a trace in what follows.

Slow clients and clients that leave are in tests/serving/test_on_ray.py, where there are sockets.
"""

import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from tests.support import attacks, doors
from tests.support.closure import ROOT

COUNT = 1000
# Modules that Python or Pillow reads late.
OWN = (str(ROOT), sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), "/usr/share/mime")
_heard: list[str] | None = None


def _audit(event: str, arguments: tuple) -> None:
    """What opens files and connections; a hook cannot be taken away, so it hears on demand."""
    if _heard is not None and event in ("open", "socket.connect", "subprocess.Popen", "os.system"):
        _heard.append(f"{event} {arguments[0]}")


@pytest.fixture
def heard():
    """What this process opens while the test lasts."""
    global _heard
    if not getattr(sys, "_adapt_audit", False):
        sys.addaudithook(_audit)
        sys._adapt_audit = True
    _heard = []
    yield _heard
    _heard = None


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    folder = doors.version(tmp_path_factory.mktemp("model"))
    with doors.door(folder) as made, doors.client(made) as client:
        yield client


def test_a_thousand_hostile_requests_change_nothing(http, heard):
    form = {"Content-Type": "application/json"}
    known = http.post("/v1/chat/completions", json=doors.request(2)).json()
    heard.clear()
    seen: Counter[tuple[str, int]] = Counter()
    for number, (kind, body) in enumerate(attacks.attacks(COUNT)):
        reply = http.post("/v1/chat/completions", content=body, headers=form)
        assert reply.status_code < 500, (number, kind, reply.text[:300])
        seen[kind, reply.status_code] += 1
        if reply.status_code != 200:
            error = reply.json()["error"]
            assert error["message"] and error["message"].isprintable() and error["code"]
            assert "root:" not in reply.text
        if number % 50 == 0:
            again = http.post("/v1/chat/completions", json=doors.request(2)).json()
            assert again["choices"] == known["choices"] and again["risk"] == known["risk"]
    # What is changed at random may still be a good request; all else is refused.
    answered = {kind for kind, status in seen if status == 200}
    assert answered <= {"fuzzed", "types"}, seen
    assert sum(seen.values()) == COUNT and {kind for kind, _ in seen} == {*attacks.KINDS}
    paths = [line for line in heard if not line.startswith("open ") or not _is_own(line[5:])]
    assert not paths, paths[:5]
    assert "adapt_held_pixels 0.0" in http.get("/metrics").text


def _is_own(path: str) -> bool:
    return path.isdecimal() or Path(path).name == "null" or path.startswith(OWN)
