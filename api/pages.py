"""The app of the routes without inference: /health, /models, the OpenAPI document and the pages at / and /docs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api import deepstack_pages, management, openapi, state_operations
from api.deepstack_shapes import error_response
from api.errors import ApiError
from api.gate import request_id
from api.keys import is_trusted, open_paths
from api.page import DOCS, FILES, INDEX
from settings import Settings

# Nothing on the page comes from another host, and no other page may frame it. See api/application.py for more.
_GUARDS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # the page of an older version must not ask a newer service
}
# Swagger UI's style sheet holds its icons.
_DOCS_GUARDS: Final = _GUARDS | {
    "Content-Security-Policy": f"{_GUARDS['Content-Security-Policy']}; img-src 'self' data:"
}


def pages(apis: Callable[[], Any], settings: Settings) -> Starlette:
    """Make the app that BentoML mounts. `app.state.reports` must be set before the first request.

    apis: returns the service's BentoML APIs, for the OpenAPI document.
    """

    @cache
    def document() -> bytes:
        without_key = open_paths(settings.server)
        operations = [*openapi.analysis(apis()), *state_operations.state(keyed=without_key is not None)]
        if settings.server.deepstack:  # the document has what this server answers, and without the setting it is a 403
            operations += deepstack_pages.operations()
        return json.dumps(openapi.document(operations, without_key), ensure_ascii=False).encode()

    async def described(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    return Starlette(
        routes=[
            Route("/health", _health),
            *management.routes(),
            *deepstack_pages.routes(settings),
            Route("/", _index),
            Route("/docs", _docs),
            Mount("/static", _Files(directory=FILES)),
            Route("/openapi.json", described),
            Route("/docs.json", described),  # BentoML's place for it
        ],
        exception_handlers={ApiError: _refused},
    )


async def _health(request: Request) -> Response:
    status, body = request.app.state.reports.health()
    return JSONResponse(body if is_trusted(request.scope) else {"status": body["status"]}, status)


async def _index(_: Request) -> Response:
    return FileResponse(INDEX, headers=_GUARDS)


async def _docs(request: Request) -> Response:
    if request.scope["raw_path"].endswith(b"/"):
        # The page loads its files by relative paths, which fail below /docs/. A relative redirect also works behind a
        # proxy's prefix.
        return RedirectResponse("../docs")
    return FileResponse(DOCS, headers=_DOCS_GUARDS)


class _Files(StaticFiles):
    """The page's files, with the headers that guard it."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_GUARDS)
        return response


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(request.url.path, error, request_id())
