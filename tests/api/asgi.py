"""Asking an ASGI app in this process."""

from __future__ import annotations

from typing import Any, Final

import httpx
from starlette.types import ASGIApp

ROUTE: Final = "/pose-analyze"
PNG: Final = {"content-type": "image/png"}


async def ask(app: ASGIApp, method: str = "POST", path: str = ROUTE, **request: Any) -> httpx.Response:
    """The answer to one request; what the app raises is a 500."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **({"headers": PNG} | request))


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer in the contract's shape."""
    error = response.json()["error"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == error["request_id"]
    assert isinstance(error, dict)
    return error
