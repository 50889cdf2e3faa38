from __future__ import annotations

from urllib.parse import unquote

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router
from starlette.types import Receive, Scope, Send

from api.paths import OneSpelling


class Recorder(Starlette):
    """Keeps the path that reaches it."""

    path = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.path = scope["path"]


async def receive() -> dict[str, object]:
    return {"type": "http.request"}


async def send(message: object) -> None: ...


async def reached(target: str) -> str:
    """The path that a request for `target` has inside, which uvicorn gives with its percent-encoding resolved."""
    recorder = Recorder()
    scope = {"type": "http", "path": unquote(target), "raw_path": target.encode()}
    await OneSpelling(recorder, Router())(scope, receive, send)
    return recorder.path


@pytest.mark.parametrize(
    "target",
    [
        "/pose-analyze",
        "/pose-analyze/",
        "//pose-analyze",
        "/pose-analyze//",
        "///pose-analyze///",
        "/pose%2Danalyze",
        "/pose-analyze%2F",
        "http://other.example:80/pose-analyze",
        "HTTPS://other.example//pose-analyze/",
    ],
)
async def test_a_route_has_one_spelling(target: str) -> None:
    assert await reached(target) == "/pose-analyze"


@pytest.mark.parametrize("target", ["/", "//", "http://other.example", "http://other.example/"])
async def test_the_root_stays_the_root(target: str) -> None:
    assert await reached(target) == "/"


@pytest.mark.parametrize("target", ["/Pose-Analyze", "/pose-analyze/x", "/x/../pose-analyze", "*", "a:443", "/a.b"])
async def test_another_path_stays_another_path(target: str) -> None:
    assert await reached(target) == target


@pytest.mark.parametrize("target", ["/a%0aFORGED", "/a%0d%0ab", "/%1b[31m", "/a%e2%80%a8b", "/%00", "/%ff%0a"])
async def test_a_path_that_a_log_cannot_show_stays_encoded(target: str) -> None:
    assert await reached(target) == target


async def test_no_spelling_is_a_redirect() -> None:
    async def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.url.query} {(await request.body()).decode()}")

    folder = Mount("/folder", routes=[Route("/", show, methods=["POST"])])
    inside = Starlette(routes=[Route("/pose-analyze", show, methods=["POST"]), folder])
    app = OneSpelling(inside, inside.router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        response = await client.post("/pose-analyze/?bbox=1", content=b"body")
        assert (response.status_code, response.text) == (200, "bbox=1 body")
        assert (await client.post("/folder/")).status_code == 404
