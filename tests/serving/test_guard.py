"""What stands before Ray: names, keys, bodies and how many wait."""

import asyncio

import pytest

from tests.support import doors

KEY = "a-key-of-twenty-signs"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with doors.door(doors.version(tmp_path_factory.mktemp("model"))) as found:
        yield found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:8000", "127.8.9.1:1"])
def test_loopback_names_are_answered(made, host):
    with doors.client(made) as http:
        assert http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "[", "10.0.0.1"])
def test_others_are_not_without_a_key(made, host):
    with doors.client(made) as http:
        reply = http.get("/v1/models", headers={"Host": host})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "host_not_allowed")


def test_another_sites_page_is_refused(made):
    with doors.client(made) as http:
        for origin in ("http://evil.example", "null", "http://127.0.0.1:81"):
            reply = http.post("/v1/chat/completions", json={}, headers={"Origin": origin})
            assert reply.status_code == 403
        own = http.get("/v1/models", headers={"Origin": "http://127.0.0.1"})
        assert own.status_code == 200


def test_a_key_is_asked_for_but_for_the_page(made):
    with doors.client(made, key=KEY) as http:
        for given in ("", f"Basic {KEY}", "Bearer other", f"Bearer {KEY}x", "Bearer"):
            reply = http.get("/v1/models", headers={"Authorization": given})
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        good = {"Authorization": f"Bearer {KEY}", "Host": "any.example"}
        assert http.get("/v1/models", headers=good).status_code == 200
        assert http.get("/health").status_code == 200
        assert http.get("/metrics").status_code == 401


def test_headers_that_mean_something_twice_are_refused(made):
    with doors.client(made) as http:
        twice = [("Host", "127.0.0.1"), ("Host", "evil.example")]
        assert http.get("/v1/models", headers=twice).status_code == 400


def test_a_body_is_bounded_by_what_is_announced_and_by_what_comes(made):
    with doors.client(made, body=1000) as http:
        form = {"Content-Type": "application/json"}
        for content in (b"x" * 1001, (b"x" * 100 for _ in range(11))):
            reply = http.post("/v1/chat/completions", content=content, headers=form)
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
        assert http.request("GET", "/v1/models", content=b"x").status_code == 413


def run(made, messages, **rules):
    """Statuses and bodies that one connection gets, of which `messages` come."""
    sent = []

    async def receive():
        one = messages.pop(0) if messages else None
        if one is None:
            await asyncio.sleep(60)
        return one

    async def send(message):
        sent.append(message)

    head = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": head}
    asyncio.run(doors.guarded(made, **rules)(scope, receive, send))
    return [one["status"] for one in sent if "status" in one]


def test_a_slow_body_is_given_up(made, monkeypatch):
    monkeypatch.setattr("adapt.serving.guard.LINGER_S", 0.1)
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert run(made, [part], seconds=0.1) == [408]


def test_who_leaves_before_the_end_is_not_answered(made):
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert run(made, [part, {"type": "http.disconnect"}]) == []


def test_bodies_together_are_bounded(made, monkeypatch):
    monkeypatch.setattr("adapt.serving.guard.LINGER_S", 0.1)
    part = {"type": "http.request", "body": b"x" * 600, "more_body": True}
    assert run(made, [dict(part), dict(part)], bodies=1000) == [429]


def test_questions_on_their_way_are_bounded(made):
    with doors.client(made, waiting=0) as http:
        reply = http.post("/v1/chat/completions", json=doors.request())
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert http.get("/health").status_code == 200


def test_headers_of_rays_own_do_not_go_on(made):
    seen = []

    async def app(scope, receive, send):
        seen.extend(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guarded = doors.guarded(made, key=KEY)
    guarded._app = app
    from starlette.testclient import TestClient

    names = ("X-Request-Timeout-Seconds", "X-Request-Disconnect-Disabled", "X-Session-Id")
    headers = {name: "1" for name in names} | {"Authorization": f"Bearer {KEY}"}
    assert TestClient(guarded).get("/v1/models", headers=headers).status_code == 200
    assert b"host" in seen and not {b"authorization", *(one.lower().encode() for one in names)} & {
        *seen
    }
