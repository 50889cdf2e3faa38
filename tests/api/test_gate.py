from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ApiError
from api.gate import Gate, request_id
from tests.api import asgi
from tests.api.asgi import PNG, ROUTE, error_of


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


def gate_of(answer: Answer = right) -> Gate:
    return Gate(app_of(answer), frozenset({"/health"}))


async def ask(gate: Gate, method: str = "POST", path: str = ROUTE, **request: Any) -> httpx.Response:
    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await gate({**scope, "app": BENTOML}, receive, send)

    return await asgi.ask(served, method, path, **request)


def answering(status: int, headers: dict[str, str] | None = None, content: bytes = b"[1, 2]") -> Answer:
    async def answer(_: bytes) -> tuple[int, dict[str, str], bytes]:
        return status, headers or {}, content

    return answer


async def test_a_right_request_goes_through_whole() -> None:
    response = await ask(gate_of(), content=b"x" * 44_000)
    assert response.status_code == 200
    assert response.text == f"44000 {response.headers['x-request-id']}"


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


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ApiError("timeout", "too late")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": ROUTE, "headers": [], "app": BENTOML}
    with pytest.raises(ApiError, match="too late"):
        await Gate(fails, frozenset())(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start"]


@pytest.mark.parametrize(("status", "level"), [(404, "WARNING"), (500, "ERROR"), (503, "ERROR")])
async def test_a_failure_is_one_line_in_the_log_with_its_id_route_and_code(
    caplog: pytest.LogCaptureFixture, status: int, level: str
) -> None:
    with caplog.at_level(logging.INFO):
        response = await ask(gate_of(answering(status)), "GET", "/models/status", headers={"x-request-id": "find-me"})
    (record,) = [record for record in caplog.records if "find-me" in record.getMessage()]
    assert record.levelname == level
    code = error_of(response)["code"]
    assert record.getMessage().startswith(f"request find-me GET /models/status → {response.status_code} {code} after ")
