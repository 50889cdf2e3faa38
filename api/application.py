"""Installs the middleware around BentoML's app: paths, CORS, the inference front, request ids, errors and probes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from api.comparison import COMPARE_ROUTE, MATCH_ROUTE
from api.deepstack_shapes import ASKED, LIST_ROUTE
from api.enrichment import ENRICH_ROUTE
from api.front import Answerer, Front
from api.gate import Gate
from api.keys import KeyCheck
from api.paths import OneSpelling
from api.probes import Probes
from api.protocol import Protocol
from api.steps import MODEL_OF
from api.stopping import Server
from api.uploads import STALLED_S
from runners import bentoml_cures
from settings import Settings

_UNTOUCHED: Final = frozenset({"/health", "/livez", "/readyz", "/healthz", "/metrics"})

# Headers of every answer: no browser may guess another content type, or show an answer within another page.
_GUARDS: Final = [("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY")]


def inference_routes(settings: Settings) -> frozenset[str]:
    """Return the paths that the front answers."""
    deepstack = ASKED if settings.server.deepstack else ()
    return frozenset({*MODEL_OF, ENRICH_ROUTE, COMPARE_ROUTE, MATCH_ROUTE, *deepstack})


def surround(
    service: Any, settings: Settings, answerer: Callable[[], Answerer], readiness: Callable[[], tuple[int, Any]]
) -> None:
    """Install the middleware into a BentoML service.

    answerer: returns what answers the inference routes; called once the service runs. readiness: returns HTTP status
    and body of /readyz.
    """
    # BentoML's middleware makes the request's span, so it must stand outside of the front.
    traced = settings.tracing.endpoint is not None

    def front(app: ASGIApp) -> Front:
        return Front(app, inference_routes(settings), settings.limits, answerer, outermost=not traced)

    def outermost(app: Starlette) -> ASGIApp:
        served: ASGIApp = app if traced else front(app)
        if settings.server.keys:
            by_post = frozenset({*ASKED, LIST_ROUTE} if settings.server.deepstack else ())
            served = KeyCheck(served, app, settings.server, inference_routes(settings), by_post)
        if settings.server.cors_origins:  # outside of the rest, so that a web page can read refusals, too
            served = CORSMiddleware(
                served,
                allow_origins=settings.server.cors_origins,
                allow_methods=("GET", "HEAD", "POST"),
                allow_headers=("*",),
                expose_headers=("X-Request-ID", "Retry-After"),
            )
        return OneSpelling(served, app.router)

    bentoml_cures.serve_api(
        outermost,
        Server,
        http=partial(Protocol, patience_s=min(STALLED_S, settings.limits.request_timeout_s)),
        ws="none",
        timeout_keep_alive=settings.server.keep_alive_s,
        headers=_GUARDS,
    )
    if traced:
        service.add_asgi_middleware(front)
    service.add_asgi_middleware(Gate, untouched=_UNTOUCHED)
    alive = (200, {"status": "alive"})
    answers = {"/livez": lambda: alive, "/healthz": lambda: alive, "/readyz": readiness}
    service.add_asgi_middleware(Probes, answers=answers)
