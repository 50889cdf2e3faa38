"""The app of the routes without inference: /health, /models, the OpenAPI document and the page at /."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from api import deepstack_pages, management, openapi
from api.deepstack_shapes import error_response
from api.errors import ApiError
from api.gate import request_id
from api.page import INDEX
from settings import Settings


def pages(apis: Callable[[], Any], settings: Settings) -> Starlette:
    """Make the app that BentoML mounts. `app.state.reports` must be set before the first request.

    apis: returns the service's BentoML APIs, for the OpenAPI document.
    """

    @cache
    def document() -> bytes:
        operations = [*openapi.analysis(apis()), *openapi.STATE]
        if settings.server.deepstack:  # the document has what this server answers, and without the setting it is a 403
            operations += deepstack_pages.operations()
        return json.dumps(openapi.document(operations), ensure_ascii=False).encode()

    async def described(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    return Starlette(
        routes=[
            Route("/health", _health),
            *management.routes(),
            *deepstack_pages.routes(settings),
            Route("/", _index),
            Route("/openapi.json", described),
            Route("/docs.json", described),  # BentoML's place for it
        ],
        exception_handlers={ApiError: _refused},
    )


async def _health(request: Request) -> Response:
    status, body = request.app.state.reports.health()
    return JSONResponse(body, status)


async def _index(_: Request) -> Response:
    return FileResponse(INDEX)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(request.url.path, error, request_id())
