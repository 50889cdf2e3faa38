from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.types import Message, Receive, Scope, Send

from api import uploads
from api.errors import ApiError
from api.front import Front
from api.gate import Body, request_id
from api.request import Received
from engines.deadline import Abandoned, Deadline
from settings import DEFAULT_FILE, load
from tests.api.asgi import PNG, ROUTE, ask, error_of

# 30,000 bytes of image are 40,000 of base64, and a tenth more is room for the rest.
LIMITS = load(DEFAULT_FILE, {}).limits.model_copy(
    update={"max_image_mib": 30_000 / 2**20, "request_timeout_s": 0.3, "max_body_mib": 100_000 / 2**20}
)
MAX_BODY = 44_000


class Answerer:
    """Answers with what it was asked; or does what a test wants."""

    def __init__(self) -> None:
        self.late_s = 0.0
        self.failure: Exception | None = None
        self.full = False
        self.received: list[Received] = []
        self.ended: list[str] = []

    def check(self, route: str, left_s: float) -> None:
        if self.full:
            raise ApiError("overloaded", "too long", retry_after_s=7)

    async def answer(self, route: str, received: Received, deadline: Deadline) -> Body:
        self.received.append(received)
        try:
            await asyncio.sleep(self.late_s)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        if self.failure is not None:
            raise self.failure
        return Body(json.dumps({"bytes": len(received.body), "id": request_id(), "route": route}).encode())


async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"elsewhere"})


def front_of(answerer: Answerer | None = None, **changes: Any) -> Front:
    chosen = answerer or Answerer()
    limits = LIMITS.model_copy(update=changes)
    return Front(elsewhere, frozenset({ROUTE}), limits, lambda: chosen, outermost=False)


def count(status: int, name: str = "enrichment_light_inference_requests_total") -> float:
    labels = {"endpoint": ROUTE, "status": str(status)}
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_request_is_answered_under_its_id() -> None:
    answerer = Answerer()
    front = front_of(answerer)
    response = await ask(
        front,
        path=f"{ROUTE}?bbox=1&bbox=2&min_confidence=0.5",
        content=b"x" * MAX_BODY,
        headers={**PNG, "content-encoding": "gzip", "x-request-id": "mine"},
    )
    assert response.status_code == 200
    assert response.json() == {"bytes": MAX_BODY, "id": "mine", "route": ROUTE}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == "mine"
    (received,) = answerer.received
    assert received.query == {"bbox": ["1", "2"], "min_confidence": ["0.5"]}
    assert (received.content_type, received.encoding) == ("image/png", "gzip")


@pytest.mark.parametrize(("method", "path"), [("GET", ROUTE), ("POST", "/elsewhere"), ("GET", "/health")])
async def test_everything_else_is_bentomls(method: str, path: str) -> None:
    response = await ask(front_of(), method, path, headers={"content-type": "text/plain"})
    assert response.text == "elsewhere"


async def test_an_overload_is_told_before_the_body_is_read() -> None:
    answerer = Answerer()
    answerer.full = True

    async def receive() -> Message:
        raise AssertionError("the body was read")

    status, body = await converse(front_of(answerer), receive)
    assert (status, body["error"]["code"]) == (429, "overloaded")
    response = await ask(front_of(answerer), content=b"x")
    assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ApiError("invalid_json", "no"), 400, "invalid_json"),
        (ApiError("runner_unavailable", "gone"), 503, "runner_unavailable"),
        (RuntimeError("secret at /usr/lib/secret.py"), 500, "internal"),
        (Abandoned(), 504, "timeout"),
    ],
    ids=repr,
)
async def test_a_failure_gets_its_answer_and_one_line_under_its_id(
    caplog: pytest.LogCaptureFixture, failure: Exception, status: int, code: str
) -> None:
    answerer = Answerer()
    answerer.failure = failure
    before = count(status, "enrichment_light_request_duration_seconds_count")
    with caplog.at_level(logging.INFO):
        response = await ask(front_of(answerer), content=b"x", headers={**PNG, "x-request-id": "find-me"})
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert "secret" not in response.text
    lines = [record.getMessage() for record in caplog.records if f"→ {status} {code} after" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith(f"request find-me POST {ROUTE} → ")
    assert count(status, "enrichment_light_request_duration_seconds_count") == before + 1


async def test_work_is_ended_for_a_client_that_hangs_up(caplog: pytest.LogCaptureFixture) -> None:
    answerer = Answerer()
    answerer.late_s = 5
    front = front_of(answerer, request_timeout_s=60)
    messages: list[Message] = [{"type": "http.request", "body": b"x", "more_body": False}]
    gone = asyncio.Event()

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    before = count(200), count(500)
    talk = asyncio.create_task(converse(front, receive))
    await asyncio.sleep(0.05)
    assert len(answerer.received) == 1
    gone.set()
    assert await asyncio.wait_for(talk, 1) == (None, {})
    assert answerer.ended == ["cancelled"]
    assert (count(200), count(500)) == before


async def test_stalled_uploads_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each has sent as much as a body may have, but for a byte, and then nothing.
    monkeypatch.setattr(uploads, "STALLED_S", 60)
    front = front_of(request_timeout_s=60)

    def stalled() -> Receive:
        messages: list[Message] = [{"type": "http.request", "body": b"x" * (MAX_BODY - 1), "more_body": True}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await asyncio.sleep(60)
            raise AssertionError

        return receive

    talks = [asyncio.create_task(converse(front, stalled())) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert (await ask(front, content=b"x" * MAX_BODY)).status_code == 200
    # Of the memory for bodies two and a quarter were left: the first ones were given up.
    ended = [task.result()[0] for task in talks if task.done()]
    assert set(ended) == {408}
    assert len(ended) >= 18
    for task in talks:
        task.cancel()


async def test_uploads_that_were_given_up_go_no_further_even_if_their_next_bytes_are_there() -> None:
    most, chunk = 40_000, b"x" * 1000
    bodies = uploads.Uploads(most, most)

    def sending() -> Receive:
        left = 20

        async def receive() -> Message:
            nonlocal left
            await asyncio.sleep(0)  # a byte each turn of the loop: all have data at the same time
            left -= 1
            return {"type": "http.request", "body": chunk, "more_body": left > 0}

        return receive

    async def upload() -> int:
        one = bodies.upload()
        body = await one.read(sending(), 60)
        assert one.size == len(body)  # all of it was counted
        return len(body)

    ended = await asyncio.gather(*(upload() for _ in range(40)), return_exceptions=True)
    whole = [each for each in ended if isinstance(each, int)]
    assert sum(whole) <= most
    assert len(whole) >= 1
    assert {each.code for each in ended if isinstance(each, ApiError)} <= {"request_timeout", "overloaded"}


async def test_complete_bodies_that_wait_are_bounded() -> None:
    answerer = Answerer()
    answerer.late_s = 0.2
    front = front_of(answerer, request_timeout_s=60)
    answers = await asyncio.gather(*(ask(front, content=b"x" * MAX_BODY) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
    assert (await ask(front, content=b"x" * MAX_BODY)).status_code == 200  # and their memory is given back


async def test_a_body_may_not_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "STALLED_S", 0.5)
    front = front_of(request_timeout_s=60)
    sent = 0

    async def receive() -> Message:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.1 if sent < 10 else 60)
        return {"type": "http.request", "body": b"x", "more_body": True}

    status, body = await asyncio.wait_for(converse(front, receive), 5)
    assert (status, body["error"]["code"]) == (408, "request_timeout")
    assert sent == 10  # slow it may be


@pytest.mark.parametrize("content_type", ["text/plain", "text/csv; header=present", "image/svg+xml"])
async def test_a_content_type_outside_the_list_is_refused(content_type: str) -> None:
    response = await ask(front_of(), headers={"content-type": content_type}, content=b"x")
    assert response.status_code == 415
    error = error_of(response)
    assert error["code"] == "unsupported_media_type"
    kind = content_type.split(";")[0]
    assert error["message"].startswith(f"the content type {kind} is not accepted; send application/json, multipart")


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "identity", ""])
async def test_a_content_encoding_of_the_list_goes_through_unread(encoding: str) -> None:
    response = await ask(front_of(), headers={**PNG, "content-encoding": encoding}, content=b"xyz")
    assert response.status_code == 200
    assert response.json()["bytes"] == 3


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_a_content_encoding_outside_the_list_is_refused(encoding: str) -> None:
    response = await ask(front_of(), headers={**PNG, "content-encoding": encoding}, content=b"x")
    assert response.status_code == 415
    message = f"the content encoding {encoding} is not accepted; send gzip, deflate or none"
    assert error_of(response)["message"] == message


async def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    reads = 0

    async def receive() -> Message:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"x", "more_body": True}

    status, body = await converse(front_of(), receive, [(b"content-length", str(MAX_BODY + 1).encode())])
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

    status, body = await converse(front_of(), receive, [(b"content-length", length)])
    assert status == 413
    assert body["error"]["code"] == "payload_too_large"
    assert reads == MAX_BODY // 1000 + 1


async def test_a_request_over_its_time_is_a_timeout() -> None:
    answerer = Answerer()
    answerer.late_s = 5
    front = front_of(answerer)
    for _ in range(3):
        response = await ask(front, content=b"x")
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

    status, body = await converse(front_of(), receive)
    assert status == 408
    assert body["error"]["code"] == "request_timeout"


async def test_a_client_that_goes_away_gets_no_answer() -> None:
    before = count(200), count(500)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    assert await converse(front_of(), receive) == (None, {})
    assert (count(200), count(500)) == before


async def test_requests_are_counted_by_route_and_status() -> None:
    before = count(200), count(415), count(500)
    front = front_of()
    await ask(front, content=b"x")
    await ask(front, content=b"x", headers={"content-type": "text/plain"})
    await ask(front, content=b"x", headers={"content-type": "text/plain"})
    failing = Answerer()
    failing.failure = RuntimeError("no")
    await ask(front_of(failing), content=b"x")
    await ask(front, "GET", ROUTE)
    await ask(front, "POST", "/elsewhere", content=b"x")
    assert (count(200), count(415), count(500)) == (before[0] + 1, before[1] + 2, before[2] + 1)


def scope_of(headers: list[tuple[bytes, bytes]]) -> Scope:
    sent = [(b"content-type", b"image/png"), *headers]
    return {"type": "http", "method": "POST", "path": ROUTE, "headers": sent, "query_string": b""}


def once(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def converse(
    front: Front, receive: Receive, headers: list[tuple[bytes, bytes]] | None = None
) -> tuple[int | None, dict[str, Any]]:
    """Status and JSON of the answer to a POST whose body comes out of `receive`; None and {} where there is none."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await front(scope_of(headers or []), receive, send)
    if not sent:
        return None, {}
    return sent[0]["status"], json.loads(sent[1]["body"])
