"""The way in: request ids, limits, content types, the timeout, and one shape for every error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.body import max_body_bytes
from api.coding import check_encoding
from api.errors import ERROR_HEADER, ApiError, ErrorCode, internal_error
from api.identity import Identity
from api.media import is_accepted, unsupported_type
from api.metrics import REQUESTS
from settings import Limits

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

_SHOWN: Final = 100  # characters of a path that nobody knows

_current_request_id: ContextVar[str] = ContextVar("request_id")


def request_id() -> str:
    """The id of the request that this task serves."""
    return _current_request_id.get()


class _ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Gate:
    """ASGI middleware before BentoML's own routes.

    `routes` are guarded; everything else gets the ids and the error shape only, and a GET of `untouched` just the ids.
    """

    def __init__(self, app: ASGIApp, routes: frozenset[str], untouched: frozenset[str], limits: Limits) -> None:
        self._app = app
        self._routes = routes
        self._untouched = untouched
        self._limits = limits
        self._max_body = max_body_bytes(limits.max_image_bytes)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = Identity.of(Headers(scope=scope))
        token = _current_request_id.set(identity.request_id)
        keeps_errors = scope["path"] in self._untouched and scope["method"] in {"GET", "HEAD"}
        reply = _Reply(scope, receive, send, identity, keeps_errors)
        guarded = scope["method"] == "POST" and scope["path"] in self._routes
        try:
            await (self._guard(scope, receive, reply) if guarded else self._app(scope, receive, reply.send))
        except _ClientGone:
            return
        except ApiError as error:
            if reply.status is not None:
                raise  # too late for an answer: let the server close the connection
            await reply.fail(error)
        except Exception:
            logger.exception("request %s failed", identity.request_id)
            if reply.status is not None:
                raise  # too late for an answer: let the server close the connection
            await reply.fail(internal_error())
        finally:
            _current_request_id.reset(token)
            if guarded and reply.status is not None:
                REQUESTS.labels(endpoint=scope["path"], status=str(reply.status)).inc()

    async def _guard(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        headers = Headers(scope=scope)
        content_type = headers.get("content-type", "")
        if not is_accepted(content_type):
            raise unsupported_type(content_type)
        check_encoding(",".join(headers.getlist("content-encoding")))
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body:
            raise self._too_large()
        if self._in_flight >= self._limits.max_in_flight:
            raise ApiError("overloaded", f"{self._limits.max_in_flight} requests are in flight already")
        self._in_flight += 1
        stage: ErrorCode = "request_timeout"
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):
                body = await self._read(receive)
                stage = "timeout"
                await self._app(scope, _replay(body, receive), reply.send)
        except TimeoutError:
            late = "no complete request" if stage == "request_timeout" else "no result"
            raise ApiError(stage, f"{late} within {self._limits.request_timeout_s:g} s") from None
        finally:
            self._in_flight -= 1

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> ApiError:
        return ApiError(
            "payload_too_large",
            f"the body is too large: an encoded image may have {self._limits.max_image_mib:g} MiB",
        )


class _Reply:
    """Sends the app's response, or in its place an error: the framework's own errors never get through.

    keeps_errors: whether they do, as those of /health, which are no ApiError.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, identity: Identity, keeps_errors: bool) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._identity = identity
        self._keeps_errors = keeps_errors
        # As they were asked for: a mounted app puts its own into the scope.
        self._asked = f"{scope['method']} {scope['path'][:_SHOWN]}"
        self._app_routes: Sequence[BaseRoute] = scope["app"].routes
        self._replaced = False
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
        self._identity.sign(headers)
        self.status = message["status"]
        await self._send({**message, "headers": headers.raw})

    async def fail(self, error: ApiError, allow: str = "") -> None:
        response = error.response(self._identity.request_id)
        self._identity.sign(response.headers)
        if allow:  # a 405 says which methods there are
            response.headers["Allow"] = allow
        self.status = error.status
        await response(self._scope, self._receive, self._send)

    def _framework_error(self, status: int, allow: str) -> tuple[ApiError, str]:
        """An error of ours in place of one of the framework, whose body is plain text or a list; and its methods."""
        if status == 404:
            known = ", ".join(sorted(_routes(self._app_routes)))
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
    """What can be asked for, as `POST /pose-analyze`."""
    known = set()
    for route in routes:
        if isinstance(route, Route):
            known |= {f"{method} {route.path}" for method in route.methods or {"GET"} if method != "HEAD"}
        elif isinstance(route, Mount):
            known |= {f"{asked.split()[0]} {route.path}{asked.split()[1]}" for asked in _routes(route.routes)}
    return known


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, and then waits for the client as before."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay
