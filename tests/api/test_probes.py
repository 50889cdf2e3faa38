from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from api.probes import Probes


async def ask(method: str, path: str, status: int = 200) -> httpx.Response:
    app = Probes(PlainTextResponse("the app"), {"/readyz": lambda: (status, {"status": "ready"})})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        return await client.request(method, path)


@pytest.mark.parametrize("status", [200, 503])
async def test_a_probe_is_answered_as_json(status: int) -> None:
    response = await ask("GET", "/readyz", status)
    assert (response.status_code, response.text) == (status, '{"status":"ready"}')  # as probes look for it: no space
    assert response.headers["content-type"] == "application/json"
    assert (await ask("HEAD", "/readyz", status)).status_code == status


@pytest.mark.parametrize(("method", "path"), [("POST", "/readyz"), ("GET", "/readyz/x"), ("GET", "/")])
async def test_everything_else_is_the_apps(method: str, path: str) -> None:
    assert (await ask(method, path)).text == "the app"
