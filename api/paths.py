"""Normalises the path of each request before anything counts, logs or routes it."""

from __future__ import annotations

import re
from typing import Final

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

# A request line in absolute form, as sent to proxies. HTTP obliges servers to accept it.
_HOST: Final = re.compile(r"^https?://[^/]*", re.IGNORECASE)
_SLASHES: Final = re.compile("/{2,}")


class OneSpelling:
    """ASGI middleware around the whole app that reads `//pose-analyze` and `/pose-analyze/` as `/pose-analyze`.

    A base URL with a trailing slash yields `//pose-analyze`. `/pose-analyze/` would be redirected, and some clients
    drop the body on redirects. A path with unprintable characters stays percent-encoded, for the log; no route has any.
    """

    def __init__(self, app: ASGIApp, router: Router) -> None:
        """router: the app's; its redirects of trailing slashes are switched off."""
        router.redirect_slashes = False
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"] if scope["path"].isprintable() else scope["raw_path"].decode("ascii")
            scope["path"] = _SLASHES.sub("/", _HOST.sub("", path)).rstrip("/") or "/"
        await self._app(scope, receive, send)
