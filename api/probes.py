"""The probes of machines, /livez, /healthz and /readyz, with a JSON body each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Probes:
    """ASGI middleware that answers a GET or HEAD of the probes' paths itself: BentoML's own answers are empty lines.

    answers: path → HTTP status and body.
    """

    def __init__(self, app: ASGIApp, answers: Mapping[str, Callable[[], tuple[int, dict[str, Any]]]]) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} and scope["path"] in self._answers:
            status, body = self._answers[scope["path"]]()
            app = JSONResponse(body, status)
        await app(scope, receive, send)
