"""One spelling for each path, before anything counts, logs or routes a request."""

from __future__ import annotations

import re
from typing import Final

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

_HOST: Final = re.compile(
    r"^https?://[^/]*", re.IGNORECASE
)  # a request to a proxy names it, and servers have to take it
_SLASHES: Final = re.compile("/{2,}")


class OneSpelling:
    """ASGI middleware outside of the whole app: `//pose-analyze` and `/pose-analyze/` are `/pose-analyze`.

    The first is what a base URL with a closing slash makes, the second was a redirect, which not every client follows
    with its body. A path with characters that a log can't show stays percent-encoded: none of our routes has any.
    """

    def __init__(self, app: ASGIApp, router: Router) -> None:
        """router: of the app, which redirects no more."""
        router.redirect_slashes = False
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"] if scope["path"].isprintable() else scope["raw_path"].decode("ascii")
            scope["path"] = _SLASHES.sub("/", _HOST.sub("", path)).rstrip("/") or "/"
        await self._app(scope, receive, send)
