"""The routes of the HTTP door: chat completions as OpenAI has them, health, meters and the page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from adapt.serving.api_errors import ApiError
from adapt.serving.door import Door

HERE = Path(__file__).parent
METERS = "text/plain; version=0.0.4; charset=utf-8"
# The page runs its own script and shows the pictures that were dropped on it; nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
FAILED = "the server failed to answer; its log says why"


def build(door: Callable[[], Door]) -> FastAPI:
    """The application of a replica; `door` gives its own once it is loaded."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app, door)
    _add_pages(app, door)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            problem = "expected a body of Content-Type: application/json"
            raise ApiError(problem, code="unsupported_media_type", status=415)
        reply = await door().reply(await request.body())
        door().meters.requests.labels("200").inc()
        if isinstance(reply, bytes):
            return Response(reply, media_type="application/json", headers=HEADERS)
        return StreamingResponse(reply, media_type="text/event-stream", headers=HEADERS)

    @app.get("/v1/models")
    async def models() -> Response:
        return _json({"object": "list", "data": [_model(door())]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        if name != door().name:
            problem = f"the model served here is {door().name}"
            raise ApiError(problem, param="model", code="model_not_found", status=404)
        return _json(_model(door()))

    return app


def _add_pages(app: FastAPI, door: Callable[[], Door]) -> None:
    @app.get("/health")
    async def health() -> Response:
        loaded = door().loaded
        found = {"status": "ok" if loaded.answerer else "no model", "model": door().name}
        found |= {"version": door().version(), "trouble": loaded.trouble}
        return _json(found, 200 if loaded.answerer else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(door().meters.page(), headers={"Content-Type": METERS, **HEADERS})

    @app.get("/")
    async def page() -> Response:
        return _file("page.html", "text/html; charset=utf-8")

    @app.get("/page.css")
    async def style() -> Response:
        return _file("page.css", "text/css; charset=utf-8")

    @app.get("/page.js")
    async def script() -> Response:
        return _file("page.js", "text/javascript; charset=utf-8")


def _add_errors(app: FastAPI, door: Callable[[], Door]) -> None:
    """Every refusal in OpenAI's form, also of what the framework refuses."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        door().meters.requests.labels(str(error.status)).inc()
        return _json(error.body(), error.status)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        told = f"{request.method} {request.url.path}: {error.detail}"
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return await refused(request, ApiError(told, code=code, status=error.status_code))

    @app.exception_handler(Exception)
    async def failed(request: Request, _: Exception) -> Response:
        error = ApiError(FAILED, code="server_error", status=500, kind="server_error")
        return await refused(request, error)


def _model(door: Door) -> dict[str, Any]:
    """A model as OpenAI's API describes it, and what this one is made of, where it is known."""
    found: dict[str, Any] = {"id": door.name, "object": "model", "created": 0, "owned_by": "adapt"}
    answerer = door.loaded.answerer
    if answerer is None or (served := answerer.served) is None:
        return found | {"version": door.version()}
    made_of = {
        "weights": served.weights,
        "data": served.data,
        "prompt": served.prompt,
        "steering": served.steer.told if served.steer.acts else "none",
        "warned_by": served.warned_by,
        "format": served.version,
    }
    return found | {"version": answerer.version, "served": made_of}


def _json(content: dict[str, Any], status: int = 200) -> Response:
    body = json.dumps(content).encode()
    return Response(body, status, media_type="application/json", headers=HEADERS)


def _file(name: str, kind: str) -> Response:
    """A file of this package; the names are ours, none comes from a request."""
    try:
        content = (HERE / name).read_bytes()
    except FileNotFoundError:
        raise ApiError(f"this installation has no {name}", code="not_found", status=404) from None
    policy = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
    return Response(content, headers={"Content-Type": kind, **HEADERS, **policy})
