"""Answers the probes /livez, /healthz and /readyz, each with a JSON body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Probes:
    """ASGI middleware that answers a GET or HEAD of the probes in place of BentoML, whose answers have no JSON.

    answers: path → a function that returns HTTP status and body.
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
