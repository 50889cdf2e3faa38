"""What stands around BentoML's app: one spelling of paths, CORS, the front for inference, ids and errors, probes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from api.front import Answerer, Front
from api.gate import Gate
from api.paths import OneSpelling
from api.probes import Probes
from api.protocol import Protocol
from api.steps import MODEL_OF
from api.uploads import STALLED_S
from runners import bentoml_cures
from settings import Settings

ROUTES: Final = frozenset(MODEL_OF)  # of inference
_UNTOUCHED: Final = frozenset({"/health", "/livez", "/readyz", "/healthz", "/metrics"})


def surround(
    service: Any, settings: Settings, answerer: Callable[[], Answerer], readiness: Callable[[], tuple[int, Any]]
) -> None:
    """Install it all into a BentoML service. answerer: what answers the inference routes, once the service runs."""
    traced = settings.tracing.endpoint is not None  # then BentoML's middleware has to make the request's span

    def front(app: ASGIApp) -> Front:
        return Front(app, ROUTES, settings.limits, answerer, outermost=not traced)

    def outermost(app: Starlette) -> ASGIApp:
        served: ASGIApp = app if traced else front(app)
        if settings.server.cors_origins:  # before all others, so that refusals can be read from a page, too
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
        http=partial(Protocol, patience_s=min(STALLED_S, settings.limits.request_timeout_s)),
        ws="none",
        timeout_keep_alive=settings.server.keep_alive_s,
    )
    if traced:
        service.add_asgi_middleware(front)
    service.add_asgi_middleware(Gate, untouched=_UNTOUCHED)
    alive = (200, {"status": "alive"})
    answers = {"/livez": lambda: alive, "/healthz": lambda: alive, "/readyz": readiness}
    service.add_asgi_middleware(Probes, answers=answers)
