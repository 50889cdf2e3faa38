"""API keys: which requests need one, how it is compared, what a refusal is, and what is logged of it."""

from __future__ import annotations

import hmac
import logging
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from api import keys
from api.deepstack_shapes import OPEN_ROUTES
from api.keys import KeyCheck, Keys, is_trusted, open_paths, warn_if_open
from runners import bentoml_cures, supervisor
from settings import DEFAULT_FILE, Server, load
from tests.api import asgi
from tests.api.asgi import ROUTE, error_of

KEY, SECOND = "k" * 32, "second-key"


def nothing(_: Any) -> None: ...


ROUTES = Starlette(routes=[Route(ROUTE, nothing, methods=["POST"]), Route("/models/{name}", nothing)])


def server(**environment: str) -> Server:
    return load(DEFAULT_FILE, {"ENRICHMENT_API_KEY": f"{KEY},{SECOND}", **environment}).server


async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"trusted" if is_trusted(scope) else b"open"})


def check(**environment: str) -> KeyCheck:
    return KeyCheck(inside, ROUTES, server(**environment), frozenset({ROUTE}))


async def ask(method: str, path: str, headers: dict[str, str] | None = None, **environment: str) -> httpx.Response:
    return await asgi.ask(check(**environment), method, path, headers=headers or {})


@pytest.mark.parametrize("key", [KEY, SECOND])
@pytest.mark.parametrize("path", [ROUTE, "/models/unload-all", "/docs.json", "/schema.json", "/nowhere", "/health"])
async def test_a_key_in_either_header_opens_every_path(path: str, key: str) -> None:
    for headers in (
        {"X-API-Key": key},
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}"},
        {"X-API-Key": key, "Authorization": "Basic eDp5"},  # of a proxy in front
        {"X-API-Key": "wrong", "Authorization": f"Bearer {key}"},
    ):
        for method in ("GET", "POST"):
            assert (await ask(method, path, headers)).text == "trusted"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong"},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": f"{KEY}k"},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": f"{KEY},{SECOND}"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Cookie": f"X-API-Key={KEY}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "BREW"])
async def test_without_a_key_nothing_is_answered(method: str, headers: dict[str, str]) -> None:
    for path in (ROUTE, f"/models/x?api_key={KEY}", "/docs.json", "/nowhere", "/metrics", "/static", "/health/"):
        refused = await ask(method, path, headers)
        assert refused.status_code == 401, path
        assert error_of(refused)["code"] == "unauthorized"
        assert refused.headers["www-authenticate"] == "Bearer"
        assert KEY not in refused.text
        assert SECOND not in refused.text


@pytest.mark.parametrize("raw", [b"\xff\xfe", "ключ".encode(), b"\x80" * 40])
async def test_a_key_of_other_bytes_is_wrong(raw: bytes) -> None:
    response = await asgi.ask(check(), "GET", "/models/x", headers=[(b"x-api-key", raw)])
    assert response.status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/static/page.js", "/livez", "/readyz", "/healthz", "/health"]
)
async def test_the_page_and_the_probes_are_open_to_readers_alone(path: str) -> None:
    for method in ("GET", "HEAD"):
        assert (await ask(method, path)).status_code == 200
    assert (await ask("GET", path)).text == "open"
    for method in ("POST", "PUT", "DELETE"):
        assert (await ask(method, path)).status_code == 401


async def test_metrics_are_open_by_a_setting() -> None:
    assert (await ask("GET", "/metrics")).status_code == 401
    assert (await ask("GET", "/metrics", ENRICHMENT_METRICS_PUBLIC="true")).text == "open"
    assert (await ask("GET", ROUTE, ENRICHMENT_METRICS_PUBLIC="true")).status_code == 401
    assert open_paths(load(DEFAULT_FILE, {"ENRICHMENT_METRICS_PUBLIC": "true"}).server) is None  # without a key


async def test_deepstacks_routes_without_pictures_are_open_as_recorders_send_them_no_key() -> None:
    for path in OPEN_ROUTES:
        assert (await ask("GET", path)).status_code == 401
        assert (await ask("GET", path, ENRICHMENT_DEEPSTACK="true")).text == "open"
    assert (await ask("GET", "/v1/vision/detection", ENRICHMENT_DEEPSTACK="true")).status_code == 401


@pytest.mark.parametrize("sent", ["\ud800", "a\udfff"])
def test_half_of_a_surrogate_pair_is_no_key(sent: str) -> None:
    assert not Keys([KEY]).accept(sent)  # JSON can hold it


def test_every_key_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counting(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return compare(first, second)

    monkeypatch.setattr(keys, "hmac", SimpleNamespace(compare_digest=counting))
    several = Keys(["first", "second", "third"])
    for sent, right in [("first", True), ("third", True), ("none", False), ("", False), ("f" * 9000, False)]:
        compared.clear()
        assert several.accept(sent) is right
        assert compared == [(32, 32)] * 3  # digests, so that no length is to be seen


async def test_a_refused_body_is_not_read() -> None:
    async def receive() -> Message:
        raise AssertionError("the body was read")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": ROUTE, "headers": [(b"content-length", b"9" * 12)]}
    await check()(scope, receive, send)
    assert sent[0]["status"] == 401


def count(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"endpoint": ROUTE, "status": "401"}) or 0


async def test_refusals_are_counted_by_their_route(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int | None]] = []
    monkeypatch.setattr(bentoml_cures.BoundedMetrics, "begin", lambda _: None)
    monkeypatch.setattr(bentoml_cures.BoundedMetrics, "end", lambda route, status, _: seen.append((route, status)))
    before = count("enrichment_light_inference_requests_total")
    for method, path in [("POST", ROUTE), ("GET", ROUTE), ("GET", "/models/x"), ("GET", "/x/y")]:
        await ask(method, path)
    assert seen == [(ROUTE, 401), (ROUTE, 401), ("/models/{name}", 401), ("unmatched", 401)]
    assert count("enrichment_light_inference_requests_total") == before + 1


async def test_a_flood_of_refusals_is_one_line_in_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(keys, "time", SimpleNamespace(monotonic=lambda: now))
    refusing = check()
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            await asgi.ask(refusing, "GET", "/models/x", headers={"X-API-Key": "a-wrong-one"})
        assert len(caplog.messages) == 1
        now += 11
        await asgi.ask(refusing, "POST", "/y" * 300)
    first, second = caplog.messages
    assert first == "refused 1 request(s) without a valid API key, the last from 127.0.0.1: GET /models/x"
    assert second.startswith("refused 50 request(s) without a valid API key, the last from 127.0.0.1: POST /y/y")
    assert len(second) < 200
    assert "a-wrong-one" not in caplog.text


@pytest.mark.parametrize(
    ("environment", "asked", "warned"),
    [
        ({}, None, True),
        ({"HOST": "::"}, None, True),
        ({"HOST": "192.168.1.7"}, None, True),
        ({"HOST": "127.0.0.1"}, None, False),
        ({"HOST": "::1"}, None, False),
        ({"ENRICHMENT_API_KEY": KEY}, None, False),
        ({"HOST": "127.0.0.1"}, "0.0.0.0", True),
        ({}, "127.0.0.1", False),
    ],
)
def test_a_service_that_others_can_reach_without_a_key_says_so(
    environment: dict[str, str],
    asked: str | None,
    warned: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "asked_host", lambda: asked)
    warn_if_open(load(DEFAULT_FILE, environment).server)
    assert bool(caplog.messages) is warned
    for message in caplog.messages:
        assert "without an API key" in message
        assert "set ENRICHMENT_API_KEY" in message
