"""Gives each request its ids, and each error response the JSON shape of its route."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.deepstack_shapes import error_response
from api.errors import ERROR_HEADER, ApiError, internal_error
from api.identity import Identity
from api.uploads import ClientGone

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

_SHOWN: Final = 100  # characters of an unknown path in logs and errors

_current_request_id: ContextVar[str] = ContextVar("request_id", default="without-id")


class Body(NamedTuple):
    """The body of a 200, with its media type."""

    data: bytes
    media_type: str = "application/json"


def request_id() -> str:
    """Return the id of the request that the current task or its thread serves."""
    return _current_request_id.get()


class Gate:
    """ASGI middleware in front of BentoML's routes: adds the ids and rewrites the framework's error responses.

    Answers to a GET or HEAD of the paths in `untouched` keep their errors.
    """

    def __init__(self, app: ASGIApp, untouched: frozenset[str]) -> None:
        self._app = app
        self._untouched = untouched

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        keeps_errors = scope["path"] in self._untouched and scope["method"] in {"GET", "HEAD"}
        reply = Reply(scope, receive, send, keeps_errors=keeps_errors)
        with reply.identified():
            await reply.guarded(self._app(scope, receive, reply.send))


class Reply:
    """Sends one response, and replaces the framework's errors by ours.

    keeps_errors: pass the app's errors through; the 503 of /health has a body of its own.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, keeps_errors: bool = False) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.identity = Identity.of(Headers(scope=scope))
        self._began = time.perf_counter()
        self._keeps_errors = keeps_errors
        # Kept from the request, because a mounted app changes the scope's path.
        self._asked = f"{scope['method']} {scope['path'][:_SHOWN]}"
        self._path = scope["path"]
        self._replaced = False
        self._error: ApiError | None = None
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] != "http.response.start":
            if not self._replaced:
                await self._send(message)
            return
        headers = MutableHeaders(raw=message["headers"])
        if message["status"] >= 400 and ERROR_HEADER not in headers and not self._keeps_errors:
            self._replaced = True
            await self.fail(*self._framework_error(message["status"], headers.get("allow", "")))
            return
        self.identity.sign(headers)
        self.status = message["status"]
        await self._send({**message, "headers": headers.raw})

    async def send_body(self, body: Body) -> None:
        """Send a 200 with this body."""
        headers = MutableHeaders(
            raw=[(b"content-type", body.media_type.encode()), (b"content-length", str(len(body.data)).encode())]
        )
        self.identity.sign(headers)
        self.status = 200
        await self._send({"type": "http.response.start", "status": 200, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body.data})

    async def fail(self, error: ApiError, allow: str = "") -> None:
        response = error_response(self._path, error, self.identity.request_id)
        self.identity.sign(response.headers)
        if allow:
            response.headers["Allow"] = allow
        self.status = response.status_code
        self._error = error
        await response(self._scope, self._receive, self._send)

    @property
    def took_s(self) -> float:
        """Seconds since the request's head arrived."""
        return time.perf_counter() - self._began

    @contextmanager
    def identified(self) -> Iterator[None]:
        """Make `request_id` return this request's id within the block and on the threads that it calls."""
        token = _current_request_id.set(self.identity.request_id)
        try:
            yield
        finally:
            _current_request_id.reset(token)

    async def guarded(self, answering: Awaitable[None]) -> None:
        """Await an answer, and turn an exception into an error response. Log one line for each failed request."""
        try:
            await answering
        except ApiError as error:
            if self.status is not None:
                raise  # a response has begun: the server has to close the connection
            await self.fail(error)
        except ClientGone:
            raise
        except Exception:
            logger.exception("request %s failed", self.identity.request_id)
            if self.status is not None:
                raise
            await self.fail(internal_error())
        if self._error is not None:
            self._report(self._error)

    def _report(self, error: ApiError) -> None:
        assert self.status is not None
        logger.log(
            logging.ERROR if self.status >= 500 else logging.WARNING,
            "request %s %s → %d %s after %.0f ms: %s",
            self.identity.request_id,
            self._asked,
            self.status,
            error.code,
            self.took_s * 1000,
            error.message,
        )

    def _framework_error(self, status: int, allow: str) -> tuple[ApiError, str]:
        """Return our error for one of the framework, and the methods for the Allow header of a 405."""
        if status == 404:
            known = ", ".join(sorted(_routes(self._scope["app"].routes)))
            return ApiError("not_found", f"{self._asked}: there is no such route; there are: {known}"), ""
        if status == 405:
            allow = ", ".join(sorted(method.strip() for method in allow.split(",")))
            return ApiError("method_not_allowed", f"{self._asked}: the method is not allowed; allowed: {allow}"), allow
        if status == 415:
            return ApiError("unsupported_media_type", "this content type is not accepted"), ""
        if status < 500:
            return ApiError("invalid_request", "the request can't be read"), ""
        return internal_error(), ""


def _routes(routes: Sequence[BaseRoute]) -> set[str]:
    """Return the routes' methods and paths, as `POST /pose-analyze`."""
    known = set()
    for route in routes:
        if isinstance(route, Route):
            known |= {f"{method} {route.path}" for method in route.methods or {"GET"} if method != "HEAD"}
        elif isinstance(route, Mount):
            known |= {f"{asked.split()[0]} {route.path}{asked.split()[1]}" for asked in _routes(route.routes)}
    return known
