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

from api import management, openapi, state_operations
from api.errors import ApiError
from api.gate import request_id
from api.page import INDEX


def pages(apis: Callable[[], Any]) -> Starlette:
    """Make the app that BentoML mounts. `app.state.reports` must be set before the first request.

    apis: returns the service's BentoML APIs, for the OpenAPI document.
    """

    @cache
    def document() -> bytes:
        operations = [*openapi.analysis(apis()), *state_operations.STATE]
        return json.dumps(openapi.document(operations), ensure_ascii=False).encode()

    async def described(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    return Starlette(
        routes=[
            Route("/health", _health),
            *management.routes(),
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


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response(request_id())
