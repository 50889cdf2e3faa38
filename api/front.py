"""The ASGI app for the inference routes: checks content type and limits, sets the deadline, sends the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from api import metrics
from api.body import max_body_bytes
from api.coding import check_encoding
from api.errors import ApiError
from api.gate import Body, Reply
from api.keys import is_trusted
from api.media import is_accepted, unsupported_type
from api.request import Received
from api.uploads import ClientGone, Uploads
from engines.deadline import Abandoned, Deadline
from runners.bentoml_cures import BoundedMetrics
from settings import Limits

access: Final = logging.getLogger("bentoml.access")


class Answerer(Protocol):
    """Answers the inference routes. See api.answering.Answering."""

    def check(self, route: str, left_s: float) -> None:
        """Raises ApiError if a request can't be answered within `left_s` seconds."""
        ...

    async def answer(self, route: str, received: Received, deadline: Deadline) -> Body:
        """Return the answer. Raises ApiError, or Abandoned after the deadline."""
        ...


class Front:
    """ASGI app that answers every POST to `routes` and passes everything else on to BentoML's app.

    BentoML's own ten middlewares and router would cost more processor time than a re-identification. An `outermost`
    front bypasses them, so it counts requests in BentoML's metrics and writes the access log itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: frozenset[str],
        limits: Limits,
        answerer: Callable[[], Answerer],
        *,
        outermost: bool,
    ) -> None:
        self._app = app
        self._routes = routes
        self._timeout_s = limits.request_timeout_s
        self._max_body = max_body_bytes(limits.max_image_bytes)
        self._max_image_mib = limits.max_image_mib
        self._uploads = Uploads(limits.max_body_bytes, self._max_body)
        self._answerer = answerer
        self._outermost = outermost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._routes:
            await self._app(scope, receive, send)
            return
        route = scope["path"]
        reply = Reply(scope, receive, send)
        if self._outermost:
            BoundedMetrics.begin(route)
        try:
            with reply.identified():
                await reply.guarded(self._respond(scope, receive, reply))
        except ClientGone:
            access.info("%s POST %s: the client has gone", reply.identity.request_id, route)
        finally:
            self._count(route, reply)

    def _count(self, route: str, reply: Reply) -> None:
        took_s = reply.took_s
        if self._outermost:
            BoundedMetrics.end(route, reply.status, took_s)
        if reply.status is None:
            return
        metrics.count(route, reply.status, took_s)
        if self._outermost and reply.status < 400:  # Reply logs errors itself
            access.info("%s POST %s %s %.1f ms", reply.identity.request_id, route, reply.status, took_s * 1000)

    async def _respond(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        headers = Headers(scope=scope)
        content_type = headers.get("content-type", "")
        if not is_accepted(content_type):
            raise unsupported_type(content_type)
        encoding = ",".join(headers.getlist("content-encoding"))
        check_encoding(encoding)
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body:
            raise ApiError(
                "payload_too_large",
                f"the body is too large: an encoded image may have {self._max_image_mib:g} MiB",
            )
        answerer, route = self._answerer(), scope["path"]
        answerer.check(route, self._timeout_s)
        deadline = Deadline.after(self._timeout_s)
        upload = self._uploads.upload()
        try:
            body = await upload.read(receive, self._timeout_s)
            query = QueryParams(scope["query_string"])
            received = Received(
                content_type,
                body,
                {name: query.getlist(name) for name in query},
                encoding,
                ",".join(headers.getlist("accept")),
                is_trusted(scope),
            )
            answer = await self._answer(answerer, route, received, deadline, receive)
        finally:
            upload.release()
        await reply.send_body(answer)

    async def _answer(
        self, answerer: Answerer, route: str, received: Received, deadline: Deadline, receive: Receive
    ) -> Body:
        """Return the answer. Work for the request ends when the client disconnects or the deadline passes."""
        own = asyncio.current_task()
        assert own is not None
        watch = asyncio.ensure_future(_until_gone(receive, own))
        try:
            async with asyncio.timeout(deadline.left_s):
                return await answerer.answer(route, received, deadline)
        except (TimeoutError, Abandoned):
            raise ApiError("timeout", f"no result within {self._timeout_s:g} s") from None
        except asyncio.CancelledError:
            if not watch.done():
                raise
            own.uncancel()
            raise ClientGone from None
        finally:
            watch.cancel()
            deadline.abandon()


async def _until_gone(receive: Receive, task: asyncio.Task[Any]) -> None:
    """Cancel the task once the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()
