from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ApiError
from api.gate import Gate, request_id
from settings import DEFAULT_FILE, Limits, load

ROUTE = "/pose-analyze"
PNG = {"content-type": "image/png"}
# 30,000 bytes of image are 40,000 of base64, and a tenth more is room for the rest.
LIMITS = load(DEFAULT_FILE, {}).limits.model_copy(
    update={"max_image_mib": 30_000 / 2**20, "max_in_flight": 2, "request_timeout_s": 0.3}
)
MAX_BODY = 44_000


def nothing(_: Any) -> None: ...


# What BentoML's app puts into the scope: the routes that there are.
_PAGES = Starlette(routes=[Route("/health", nothing), Route("/", nothing)])
BENTOML = Starlette(routes=[Route(ROUTE, nothing, methods=["POST"]), Mount("/models", _PAGES), Mount("", _PAGES)])

Answer = Callable[[bytes], Awaitable[tuple[int, dict[str, str], bytes]]]


async def right(body: bytes) -> tuple[int, dict[str, str], bytes]:
    return 200, {"content-type": "text/plain"}, f"{len(body)} {request_id()}".encode()


def app_of(answer: Answer = right) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status, headers, content = await answer(body)
        raw = [(key.encode(), value.encode()) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": content})

    return app


def gate_of(answer: Answer = right, limits: Limits = LIMITS) -> Gate:
    return Gate(app_of(answer), frozenset({ROUTE}), frozenset({"/health"}), limits)


async def ask(gate: Gate, method: str = "POST", path: str = ROUTE, **request: Any) -> httpx.Response:
    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await gate({**scope, "app": BENTOML}, receive, send)

    transport = httpx.ASGITransport(served, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **({"headers": PNG} | request))


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == error["request_id"]
    assert isinstance(error, dict)
    return error


def answering(status: int, headers: dict[str, str] | None = None, content: bytes = b"[1, 2]") -> Answer:
    async def answer(_: bytes) -> tuple[int, dict[str, str], bytes]:
        return status, headers or {}, content

    return answer


def count(status: int) -> float:
    labels = {"endpoint": ROUTE, "status": str(status)}
    return REGISTRY.get_sample_value("enrichment_light_inference_requests_total", labels) or 0.0


async def test_a_right_request_goes_through_whole() -> None:
    response = await ask(gate_of(), content=b"x" * MAX_BODY)
    assert response.status_code == 200
    assert response.text == f"{MAX_BODY} {response.headers['x-request-id']}"


async def test_the_ids_sent_are_given_back_with_the_answer_and_with_an_error() -> None:  # all of them: test_identity.py
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = {**PNG, "x-correlation-id": "c-1", "traceparent": trace}
    for gate in (gate_of(), gate_of(answering(404)), gate_of(answering(503))):
        response = await ask(gate, headers=sent, content=b"12345")
        assert {name: response.headers[name] for name in ("x-request-id", "x-correlation-id", "traceparent")} == {
            "x-request-id": "c-1",
            "x-correlation-id": "c-1",
            "traceparent": trace,
        }
        assert response.text == "5 c-1" or error_of(response)["request_id"] == "c-1"


async def test_an_id_that_could_do_harm_is_replaced() -> None:
    response = await ask(gate_of(), headers={**PNG, "x-request-id": "<script>", "x-correlation-id": "a b"})
    assert len(response.headers["x-request-id"]) == 32
    assert "x-correlation-id" not in response.headers


async def test_each_request_has_an_id_of_its_own() -> None:
    gate = gate_of()
    answers = await asyncio.gather(*(ask(gate, content=b"1") for _ in range(2)))
    assert answers[0].text != answers[1].text


@pytest.mark.parametrize("content_type", ["text/plain", "text/csv; header=present", "image/svg+xml"])
async def test_a_content_type_outside_the_list_is_refused(content_type: str) -> None:
    response = await ask(gate_of(), headers={"content-type": content_type}, content=b"x")
    assert response.status_code == 415
    error = error_of(response)
    assert error["code"] == "unsupported_media_type"
    kind = content_type.split(";")[0]
    assert error["message"].startswith(f"the content type {kind} is not accepted; send application/json, multipart")


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "identity", ""])
async def test_a_content_encoding_of_the_list_goes_through_unread(encoding: str) -> None:
    response = await ask(gate_of(), headers={**PNG, "content-encoding": encoding}, content=b"xyz")
    assert response.status_code == 200
    assert response.text.startswith("3 ")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_a_content_encoding_outside_the_list_is_refused(encoding: str) -> None:
    response = await ask(gate_of(), headers={**PNG, "content-encoding": encoding}, content=b"x")
    assert response.status_code == 415
    message = f"the content encoding {encoding} is not accepted; send gzip, deflate or none"
    assert error_of(response)["message"] == message


async def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    reads = 0

    async def receive() -> Message:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"x", "more_body": True}

    status, body = await converse(gate_of(), receive, [(b"content-length", str(MAX_BODY + 1).encode())])
    assert status == 413
    assert body["error"]["code"] == "payload_too_large"
    assert reads == 0


@pytest.mark.parametrize("length", [b"", b"ten", b"-1", "²".encode("latin-1")])
async def test_a_body_of_unknown_length_is_read_no_farther_than_the_limit(length: bytes) -> None:
    reads = 0

    async def receive() -> Message:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": reads < 1000}

    status, body = await converse(gate_of(), receive, [(b"content-length", length)])
    assert status == 413
    assert body["error"]["code"] == "payload_too_large"
    assert reads == MAX_BODY // 1000 + 1


async def test_more_requests_than_the_limit_are_told_to_come_back() -> None:
    release = asyncio.Event()

    async def answer(body: bytes) -> tuple[int, dict[str, str], bytes]:
        await release.wait()
        return await right(body)

    gate = gate_of(answer, LIMITS.model_copy(update={"request_timeout_s": 5}))
    held = [asyncio.create_task(ask(gate, content=b"x")) for _ in range(2)]
    await asyncio.sleep(0.05)
    refused = await ask(gate, content=b"x")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert error_of(refused)["code"] == "overloaded"
    release.set()
    assert [response.status_code for response in await asyncio.gather(*held)] == [200, 200]
    assert (await ask(gate, content=b"x")).status_code == 200


@pytest.mark.parametrize("failure", [ApiError("invalid_json", "no"), RuntimeError("no")])
async def test_a_failed_request_gives_its_place_back(failure: Exception) -> None:
    async def answer(_: bytes) -> tuple[int, dict[str, str], bytes]:
        raise failure

    gate = gate_of(answer)
    assert {(await ask(gate, content=b"x")).status_code for _ in range(5)} <= {400, 500}


async def test_a_request_over_its_time_is_a_timeout() -> None:
    async def answer(body: bytes) -> tuple[int, dict[str, str], bytes]:
        await asyncio.sleep(5)
        return await right(body)

    gate = gate_of(answer)
    for _ in range(3):  # one more than may be in flight
        response = await ask(gate, content=b"x")
        assert response.status_code == 504
        assert error_of(response) == {
            "code": "timeout",
            "message": "no result within 0.3 s",
            "request_id": response.headers["x-request-id"],
        }


async def test_a_body_that_never_ends_is_a_request_timeout() -> None:
    chunks = [b"a part"]

    async def receive() -> Message:
        if not chunks:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": chunks.pop(), "more_body": True}

    status, body = await converse(gate_of(), receive)
    assert status == 408
    assert body["error"]["code"] == "request_timeout"


async def test_a_client_that_goes_away_gets_no_answer() -> None:
    before = count(200), count(500)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    assert await converse(gate_of(), receive) == (None, {})
    assert (count(200), count(500)) == before


@pytest.mark.parametrize(
    ("status", "code", "seen"),
    [
        (400, "invalid_request", 422),
        (404, "not_found", 404),
        (405, "method_not_allowed", 405),
        (415, "unsupported_media_type", 415),
        (422, "invalid_request", 422),
        (500, "internal", 500),
        (503, "internal", 500),
    ],
)
async def test_the_frameworks_own_errors_become_ours(status: int, code: str, seen: int) -> None:
    content = b'[{"error": "Traceback: /usr/lib/secret.py"}]'
    headers = {"allow": "POST"} if status == 405 else {}
    response = await ask(gate_of(answering(status, headers, content)), content=b"x")
    assert response.status_code == seen
    assert error_of(response)["code"] == code
    assert "secret" not in response.text
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


async def test_a_404_says_what_was_asked_for_and_what_there_is() -> None:
    error = error_of(await ask(gate_of(answering(404)), "GET", "/nope" + "x" * 300, headers={}))
    assert error["message"] == (
        f"GET /nope{'x' * 95}: there is no such route; "
        "there are: GET /, GET /health, GET /models/, GET /models/health, POST /pose-analyze"
    )


async def test_a_405_says_what_was_asked_for_and_which_methods_there_are() -> None:
    response = await ask(gate_of(answering(405, {"allow": "HEAD, GET"})), "PUT", "/health", headers={})
    assert error_of(response)["message"] == "PUT /health: the method is not allowed; allowed: GET, HEAD"
    assert response.headers["allow"] == "GET, HEAD"


async def test_our_own_errors_go_through_with_their_id() -> None:
    async def answer(_: bytes) -> tuple[int, dict[str, str], bytes]:
        response = ApiError("runner_unavailable", "gone").response(request_id())
        return response.status_code, dict(response.headers), bytes(response.body)

    response = await ask(gate_of(answer), content=b"x")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "10"
    assert error_of(response)["message"] == "gone"


async def test_an_exception_is_logged_under_the_id_and_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(_: bytes) -> tuple[int, dict[str, str], bytes]:
        raise RuntimeError("secret at /usr/lib/secret.py")

    with caplog.at_level(logging.ERROR):
        response = await ask(gate_of(answer), content=b"x")
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal"
    assert "secret" not in response.text
    assert error_of(response)["request_id"] in caplog.text
    assert "secret at /usr/lib/secret.py" in caplog.text


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(5)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    gate = Gate(slow, frozenset({ROUTE}), frozenset(), LIMITS)
    with pytest.raises(ApiError, match="no result"):
        await gate(scope_of([]), once(b"x"), send)
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_paths_left_alone_keep_their_own_status_and_body() -> None:
    response = await ask(gate_of(answering(503, content=b"down")), "GET", "/health")
    assert (response.status_code, response.text) == (503, "down")
    assert len(response.headers["x-request-id"]) == 32


async def test_a_path_left_alone_that_fails_gets_our_error() -> None:
    async def answer(_: bytes) -> tuple[int, dict[str, str], bytes]:
        raise RuntimeError("no")

    assert error_of(await ask(gate_of(answer), "GET", "/health"))["code"] == "internal"


async def test_another_method_on_a_path_left_alone_gets_our_error() -> None:
    response = await ask(gate_of(answering(405, {"allow": "GET, HEAD"})), "POST", "/health")
    assert response.status_code == 405
    assert error_of(response)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "GET, HEAD"


async def test_only_posts_to_the_routes_are_limited() -> None:
    gate = gate_of()
    assert (await ask(gate, "POST", "/elsewhere", headers={"content-type": "text/plain"})).status_code == 200
    assert (await ask(gate, "GET", ROUTE, headers={})).status_code == 200


async def test_requests_are_counted_by_route_and_status() -> None:
    before = count(200), count(415), count(500)
    gate = gate_of()
    await ask(gate, content=b"x")
    await ask(gate, content=b"x", headers={"content-type": "text/plain"})
    await ask(gate, content=b"x", headers={"content-type": "text/plain"})
    await ask(gate_of(answering(503)), content=b"x")
    await ask(gate, "GET", ROUTE)
    await ask(gate, "POST", "/elsewhere", content=b"x")
    assert (count(200), count(415), count(500)) == (before[0] + 1, before[1] + 2, before[2] + 1)


def scope_of(headers: list[tuple[bytes, bytes]]) -> Scope:
    sent = [(b"content-type", b"image/png"), *headers]
    return {"type": "http", "method": "POST", "path": ROUTE, "headers": sent, "app": BENTOML}


def once(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def converse(
    gate: Gate, receive: Receive, headers: list[tuple[bytes, bytes]] | None = None
) -> tuple[int | None, dict[str, Any]]:
    """Status and JSON of the answer to a POST whose body comes out of `receive`; None and {} where there is none."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await gate(scope_of(headers or []), receive, send)
    if not sent:
        return None, {}
    return sent[0]["status"], json.loads(sent[1]["body"])
