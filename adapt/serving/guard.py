"""Before Ray: who may ask, how large a body may be, how long it may take, how many wait.

Runs in Ray's HTTP proxy, as the outermost layer. Bodies are read here, so that a slow client holds
no place in a replica's queue, and bounded by what has come, not by what was announced. Without a
key only loopback names are answered: a page from elsewhere cannot reach the server under a name of
its own. Of a key, only its SHA-256 is known here. Only headers that the routes read go on.
"""

import asyncio
import hashlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware

from adapt import params
from adapt.addresses import is_loopback
from adapt.params import Count, Natural, Positive, Settings, require
from adapt.serving.api_errors import ApiError, busy, too_large, too_slow
from adapt.serving.settings import MIB, Limits, ServeConfig

VARIABLE = "ADAPT_SERVE_GUARD"  # its settings, for the process of the proxy
WORKSPACE = "ADAPT_WORKSPACE"  # or the workspace that has them
KEY = "ADAPT_API_KEY"
BODIES = 4  # bodies of the largest size that may be on their way at once
OPEN = (
    "/",
    "/page.js",
    "/page.css",
    "/health",
)  # answered without a key: nothing of the model is in them
PASSED = (b"host", b"content-type", b"content-length", b"accept", b"user-agent")
LINGER_S, LINGER_BYTES = 5.0, 1 << 27  # how long, and how much, of a refused body is thrown away
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Rules(Settings):
    """What the guard holds requests to; `key`: the SHA-256 of the key in hex, "" without one.

    `body` and `bodies` are bytes, of one and of all that are being read. `waiting` is how many
    questions may be on their way at once; `seconds` how long a body may take.
    """

    key: str
    body: Count
    bodies: Count
    waiting: Natural
    seconds: Positive

    @classmethod
    def of(cls, limits: Limits, key: str) -> "Rules":
        """By section `serve.limits`; `key` as clients send it, "" without one."""
        return cls(
            key=digest(key) if key else "",
            body=limits.body_mib * MIB,
            bodies=BODIES * limits.body_mib * MIB,
            waiting=limits.waiting,
            seconds=limits.seconds,
        )


def callbacks() -> list[Middleware]:
    """Called by Ray's proxy, by name: the layers around it.

    The rules are those of the command that has started the server, or, on a cluster that stays up,
    of the workspace and the key in the proxy's own environment.
    """
    if given := os.environ.get(VARIABLE):
        return [Middleware(Guard, Rules.model_validate_json(given))]
    config = ServeConfig.of(params.read(workspace() / "params.yaml"))
    return [Middleware(Guard, Rules.of(config.limits, os.environ.get(KEY, "").strip()))]


def workspace() -> Path:
    """The folder that the environment names; InputError without one."""
    given = os.environ.get(WORKSPACE, "")
    require(bool(given), WORKSPACE, "name the workspace, whose params.yaml says how to serve")
    return Path(given)


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


class Guard:
    """ASGI layer; `app` is what it stands before."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app, self._rules = app, rules
        self._bytes, self._waiting = 0, 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection's request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "not spoken here"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = _headers(scope)
            self._check(scope, headers)
            body = await self._body(scope, headers, receive)
        except ApiError as error:
            await _refuse(error, send, receive)
            return
        except ConnectionResetError:  # the client has left; there is nobody to answer
            return
        kept = [(name, value) for name, value in scope["headers"] if name in PASSED]
        await self._pass({**scope, "headers": kept}, body, receive, send)

    def _check(self, scope: Message, headers: dict[bytes, bytes]) -> None:
        """Whether this request may be made at all."""
        path, host = scope["path"], headers.get(b"host", b"").decode("latin-1")
        if not self._rules.key and not is_loopback(f"http://{host}"):
            problem = "without ADAPT_API_KEY only loopback names are answered"
            raise ApiError(f"Host: {problem}", code="host_not_allowed", status=403)
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host:
            raise ApiError("Origin: another site's", code="origin_not_allowed", status=403)
        if self._rules.key and path not in OPEN and not self._knows(headers):
            problem = "Authorization: expected Bearer and the key of this server"
            kind = "authentication_error"
            raise ApiError(problem, code="invalid_api_key", status=401, kind=kind)
        if path.startswith("/-/"):
            raise ApiError(f"{scope['method']} {path}: Not Found", code="not_found", status=404)

    def _knows(self, headers: dict[bytes, bytes]) -> bool:
        kind, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        given = hashlib.sha256(key.strip().encode("latin-1")).hexdigest()
        return kind.lower() == "bearer" and hmac.compare_digest(given, self._rules.key)

    async def _body(self, scope: Message, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, within its bounds."""
        announced = headers.get(b"content-length", b"0")
        most = self._rules.body if scope["method"] == "POST" else 0
        if not announced.isdigit() or int(announced[:18]) > most:
            raise too_large(f"a body of more than {most} bytes")
        content = bytearray()
        try:
            async with asyncio.timeout(self._rules.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError
                    block = message.get("body", b"")
                    content += block
                    self._bytes += len(block)
                    if len(content) > most:
                        raise too_large(f"a body of more than {most} bytes")
                    if self._bytes > self._rules.bodies:
                        raise busy("too many bodies are being sent; ask again in a moment")
                    if not message.get("more_body", False):
                        return bytes(content)
        except TimeoutError:
            raise too_slow(f"the body did not come within {self._rules.seconds:g} s") from None
        finally:
            self._bytes -= len(content)

    async def _pass(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Hand the request on, if not too many wait."""
        is_asked = scope["method"] == "POST"
        if is_asked and self._waiting >= self._rules.waiting:
            await _refuse(busy("too many questions are waiting; ask again in a moment"), send, None)
            return
        is_first = True

        async def received() -> Message:
            nonlocal is_first
            if is_first:
                is_first = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        self._waiting += is_asked
        try:
            await self._app(scope, received, send)
        finally:
            self._waiting -= is_asked


async def _refuse(error: ApiError, send: Send, unread: Receive | None) -> None:
    """Answer, and close the connection.

    What the client is still sending is taken and thrown away first, for a while: a connection that
    is closed over unread bytes is reset, and the client would never see why.
    """
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    left = LINGER_BYTES if unread else 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while unread and left > 0:
                message = await unread()
                left -= len(message.get("body", b"")) + 1
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b""})


def _headers(scope: Message) -> dict[bytes, bytes]:
    """The headers that are looked at; one that is there twice has no meaning."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in (b"host", b"origin", b"authorization", b"content-length") and name in found:
            raise ApiError(f"{name.decode()}: is there twice", code="invalid_header")
        found[name] = value
    return found
