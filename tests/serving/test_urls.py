"""Pictures on other machines: only from listed origins, and never from the own network by name."""

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adapt.serving import urls
from adapt.serving.api_errors import ApiError
from adapt.serving.settings import MIB
from tests.support import doors, ports, tiny_world

CONTENT = doors.encoded(tiny_world.picture(1))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        place = {"/out": "http://evil.example/x", "/round": "/round", "/to": "/picture?a=b"}
        if self.path in place:
            self.send_response(302)
            self.send_header("Location", place[self.path])
            self.end_headers()
            return
        self.send_response(200 if self.path.startswith(("/picture", "/large")) else 404)
        self.end_headers()
        content = b"x" * (MIB + 1) if self.path == "/large" else CONTENT
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", ports.free()[0]), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refused(url: str, *origins: str) -> ApiError:
    with pytest.raises(ApiError) as raised:
        urls.fetched(url, "here", origins, 1, 5.0)
    assert raised.value.param == "here"
    return raised.value


def test_a_listed_origin_is_fetched_and_followed_within_the_list():
    with serving() as origin:
        for path in ("/picture", "/to"):
            assert urls.fetched(origin + path, "here", (origin,), 1, 5.0) == CONTENT
        assert "redirects too often" in refused(f"{origin}/round", origin).message
        assert "its origin is not" in refused(f"{origin}/out", origin).message
        assert "answers 404" in refused(f"{origin}/gone", origin).message
        assert refused(f"{origin}/large", origin).status == 413


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/x", "https://pictures.example:444/x", "http://pictures.example/x"),
        *("https://pictures.example.evil.example/x", "https://me:pw@pictures.example/x"),
        *("https://pictures.example@evil.example/x", "file:///etc/passwd", "/etc/passwd", ""),
        *(
            "ftp://pictures.example/x",
            "http://[::1",
            "https://pictures.example:99999/x",
            "gopher:x",
        ),
    ],
)
def test_no_other_origin_is_asked(url, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    assert refused(url, "https://pictures.example").code == "invalid_image_url"
    assert "there is no origin that serve.urls lists" in refused("https://x.example/").message


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%2"]
)
def test_a_name_that_leads_into_the_own_network_is_refused(address, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    assert (
        "own network" in refused("https://pictures.example/x", "https://pictures.example").message
    )


def test_a_server_that_is_too_slow_is_given_up():
    listener = socket.create_server(("127.0.0.1", ports.free()[0]))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener, pytest.raises(ApiError) as raised:
        urls.fetched(f"{origin}/x", "here", (origin,), 1, 0.2)
    assert raised.value.status == 400
