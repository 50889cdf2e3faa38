"""Asks callers for an API key, before anything else of a request is read."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api import metrics
from api.deepstack_shapes import OPEN_ROUTES
from api.errors import ApiError, printable
from api.gate import Reply
from runners import bentoml_cures, supervisor
from runners.bentoml_cures import BoundedMetrics
from settings import Server

logger: Final = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

_SCHEME: Final = "bearer "
_PROBES: Final = frozenset({"/livez", "/readyz", "/healthz", "/health"})
_PAGES: Final = frozenset({"/", "/docs", "/openapi.json"})  # they hold no key; the page at / asks a person for one
_FILES: Final = "/static/"
_TRUSTED: Final = "enrichment.trusted"  # in the scope: whether the caller sent a key
_LOG_EVERY_S: Final = 10.0


class Keys:
    """API keys, kept as digests."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def accept(self, sent: str) -> bool:
        """Whether `sent` is one of the keys. The time that it takes says nothing about them."""
        digest = _digest(sent)
        return sum(hmac.compare_digest(digest, key) for key in self._digests) > 0

    def accept_headers(self, headers: Headers) -> bool:
        """Whether a request with these headers has a key: as `X-API-Key`, or as `Authorization: Bearer`."""
        authorization = headers.get("authorization", "")
        bearer = authorization[len(_SCHEME) :].strip() if authorization.lower().startswith(_SCHEME) else ""
        return sum(map(self.accept, (headers.get("x-api-key", ""), bearer))) > 0


class KeyCheck:
    """ASGI middleware that answers 401 to a request without a key.

    It wraps BentoML's whole app and reads no body. These need no key: the page and its files, the probes, DeepStack's
    OPEN_ROUTES, and /metrics if the setting `metrics_public` is true. /health without a key gives the status alone (see
    `is_trusted`).
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Starlette,
        server: Server,
        inference: frozenset[str],
        posts: frozenset[str] = frozenset(),
    ) -> None:
        """routes: the app whose routes the metrics' labels name. inference: the routes with metrics of their own.

        posts: the paths that a POST without a key reaches: they check a key in their form (see `is_trusted`), or tell
        nothing but names.
        """
        self._app = app
        self._routes = routes
        self._keys = Keys(server.keys)
        self._open = open_paths(server) or frozenset()
        self._inference = inference
        self._posts = posts
        self._refused = 0  # since the last line in the log
        self._logged_at = -_LOG_EVERY_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trusted = self._keys.accept_headers(Headers(scope=scope))
        if trusted or self._is_open(scope):
            await self._app({**scope, _TRUSTED: trusted}, receive, send)
            return
        await self._refuse(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if scope["method"] == "POST":
            return path in self._posts
        of_page = path in _PAGES or path.startswith(_FILES)
        return scope["method"] in {"GET", "HEAD"} and (of_page or path in self._open)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = bentoml_cures.endpoint({**scope, "app": self._routes})
        reply = Reply(scope, receive, send)
        BoundedMetrics.begin(route)
        try:
            await reply.fail(ApiError("unauthorized", "send a valid API key as X-API-Key or Authorization: Bearer"))
        finally:
            BoundedMetrics.end(route, reply.status, reply.took_s)
        if scope["method"] == "POST" and route in self._inference:
            metrics.count(route, 401, reply.took_s)
        self._report(scope)

    def _report(self, scope: Scope) -> None:
        """Log a refusal with its sender; at most one line in ten seconds, so that nobody can fill the log."""
        self._refused += 1
        now = time.monotonic()
        if now - self._logged_at < _LOG_EVERY_S:
            return
        host = scope["client"][0] if scope.get("client") else "an unknown address"
        logger.warning(
            "refused %d request(s) without a valid API key, the last from %s: %s %s",
            self._refused,
            host,
            scope["method"],
            printable(scope["path"]),
        )
        self._refused, self._logged_at = 0, now


def open_paths(server: Server) -> frozenset[str] | None:
    """Return the paths that a GET without a key may have, beside the page and its files. None = no key is asked for."""
    if not server.keys:
        return None
    return _PROBES | ({"/metrics"} if server.metrics_public else set()) | (OPEN_ROUTES if server.deepstack else set())


def warn_if_open(server: Server) -> None:
    """Log a warning if other machines can reach the service without a key. Call it in the supervisor."""
    host = ip_address(asked) if (asked := supervisor.asked_host()) else server.host
    if not server.keys and not host.is_loopback:
        logger.warning(
            "listening on %s without an API key: everybody who reaches port %d is answered; set ENRICHMENT_API_KEY, "
            "or listen on this machine alone with HOST=127.0.0.1",
            host,
            server.port,
        )


def is_trusted(scope: Scope) -> bool:
    """Whether the caller sent a key, or no key is asked for."""
    return bool(scope.get(_TRUSTED, True))


def _digest(key: str) -> bytes:
    # A lone surrogate, which JSON can hold, becomes bytes that no key in UTF-8 has.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
