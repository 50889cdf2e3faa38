"""A real uvicorn with the protocol, in this process, and clients that speak by the byte."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import h11
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Server
from uvicorn.config import Config

from api.protocol import MAX_HEAD_BYTES, Connection, Protocol

PATIENCE_S: Final = 0.4
KEEP_ALIVE_S: Final = 2
HOST: Final = b"Host: x\r\n"
POST: Final = b"POST / HTTP/1.1\r\n" + HOST


class App:
    """Answers with method and body; a path /refuse is answered without reading the body, and /hold never."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()  # a client went away before its body was complete
        self.large = b""  # in place of the answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", scope["path"] != "/refuse"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            body += message["body"]
            more = message["more_body"]
        answer = self.large or f"{scope['method']} {len(body)} {body[:20].decode('latin-1')}".encode()
        headers = [(b"content-length", str(len(answer)).encode()), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200 if body or not more else 413, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Client:
    """One connection, by the byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self, of_head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            length = 0 if of_head else int(headers.get("content-length", 0))
            return int(head[0].split()[1]), headers, await self.reader.readexactly(length)

    async def error(self, of_head: bool = False) -> dict[str, Any]:
        """An error in our shape, after which the server closes; its status is put beside code, message and id."""
        status, headers, body = await self.answer(of_head)
        assert headers["content-type"] == "application/json"
        assert headers["connection"] == "close"
        assert "date" in headers
        assert await self.ended()
        error = {} if of_head else json.loads(body)["error"]
        assert of_head or error["request_id"] == headers["x-request-id"]
        return {**error, "status": status, "headers": headers}

    async def ended(self, seconds: float = 3) -> bool:
        """Whether the server sends its end within so long, and nothing before it."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read() == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


class Running:
    def __init__(self, port: int, app: App, server: Server) -> None:
        self.port = port
        self.app = app
        self.server = server

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def until(self, connections: int, seconds: float = 3) -> None:
        """Wait until the server has so many connections open."""
        async with asyncio.timeout(seconds):
            while len(self.server.server_state.connections) != connections:
                await asyncio.sleep(0.01)


@pytest.fixture
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """A server. Its patience is PATIENCE_S, or the test's own."""
    app = App()
    protocol = partial(Protocol, patience_s=getattr(request, "param", PATIENCE_S))
    config = Config(
        app,
        http=protocol,  # type: ignore[arg-type] # called as a class
        ws="none",
        log_config=None,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield Running(listening.getsockname()[1], app, server)
    server.should_exit = True
    await serving


# ── upgrades ──


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0, HTTP/2"])
async def test_a_request_that_offers_an_upgrade_is_answered_with_its_body(
    running: Running, upgrade: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    async with running.client() as client:
        for _ in range(2):  # over one connection
            await client.send(POST + offer + b"Content-Length: 5\r\n\r\nhello")
            assert (await client.answer())[2] == b"POST 5 hello"
        await client.send(POST + offer + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n")
        assert (await client.answer())[2] == b"POST 5 hello"
    assert "pgrade" not in caplog.text  # nothing that an operator could do about it


# ── messages that are no HTTP ──


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GARBAGE\r\n\r\n", "'GARBAGE'"),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", "illegal request line"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2.0"),
        (b"\x16\x03\x01\x00\xee\x01\x00\x00\xea\x03\x03", "illegal request line"),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", "Host"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", "illegal header line"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", "illegal header"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 300_000 + b"\r\n\r\n", f"{MAX_HEAD_BYTES} bytes"),
        (b"GET /" + b"x" * 300_000, f"{MAX_HEAD_BYTES} bytes"),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "Content-Length"),
        (POST + b"Content-Length: -1\r\n\r\n", "Content-Length"),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both"),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "both"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", "chunked"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", "chunk"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n", "chunk"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n", "chunk"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else value,
)
async def test_what_is_no_http_gets_our_error_and_the_connection_is_closed(
    running: Running, sent: bytes, reason: str
) -> None:
    async with running.client() as client:
        await client.send(sent)
        error = await client.error()
    assert (error["status"], error["code"]) == (400, "invalid_http")
    assert reason in error["message"]
    assert "bytearray" not in error["message"]
    assert len(error["message"]) < 300


async def test_the_id_of_a_request_whose_headers_could_be_read_is_given_back_and_logged(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with running.client() as client:
        await client.send(POST + b"X-Request-ID: abc-1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert (await client.error())["request_id"] == "abc-1"
    async with running.client() as client:  # and none of the request before
        await client.send(POST + b"X-Request-ID: abc-2\r\nContent-Length: 1\r\n\r\n1")
        await client.answer()
        await client.send(b"GARBAGE\r\n\r\n")
        assert len((await client.error())["request_id"]) == 32
    assert "request abc-1 was refused: the request is not HTTP/1.1: illegal chunk header" in caplog.text


async def test_a_body_that_breaks_off_reaches_the_app_as_a_client_that_is_gone(running: Running) -> None:
    async with running.client() as client:
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await asyncio.sleep(0.05)
        await client.send(b"zz\r\n")
        assert (await client.error())["code"] == "invalid_http"
        async with asyncio.timeout(0.1):  # at once, and not when the connection is given up
            await running.app.gone.wait()


async def test_a_body_that_breaks_off_after_its_answer_gets_no_second_one(running: Running) -> None:
    async with running.client() as client:
        await client.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert (await client.answer())[0] == 200
        await client.send(b"zz\r\n")
        assert await client.ended()


async def test_a_head_has_no_body_even_where_it_is_refused(running: Running) -> None:
    async with running.client() as client:
        await client.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
        status, headers, body = await client.answer(of_head=True)
        assert (status, headers["content-length"], body) == (200, "7", b"")
        await client.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n")
        assert (await client.error(of_head=True))["status"] == 400


# ── what is right must stay right ──


async def test_pipelined_requests_are_answered_in_order_and_garbage_after_them_last(running: Running) -> None:
    async with running.client() as client:
        bodies = [b"one", b"two", b"three"]
        await client.send(b"".join(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies))
        assert [(await client.answer())[2] for _ in bodies] == [b"POST %d %s" % (len(body), body) for body in bodies]
        await client.send(POST + b"Content-Length: 1\r\n\r\n1GARBAGE\r\n\r\n")
        assert (await client.answer())[2] == b"POST 1 1"
        assert (await client.error())["code"] == "invalid_http"


@pytest.mark.parametrize("running", [1.0], indirect=True)
@pytest.mark.parametrize("parts", [[b"\r\n"], [b"\r", b"\n"], [b"\r\n\r\n"]], ids=["line", "in two", "two lines"])
async def test_empty_lines_behind_a_body_and_before_a_request_are_skipped(running: Running, parts: list[bytes]) -> None:
    request = POST + b"Content-Length: 4\r\n\r\nabcd"
    async with running.client() as client:
        for part in parts:  # before the first request
            await client.send(part)
            await asyncio.sleep(0.02)
        for _ in range(2):  # as Arduino's println() ends a body
            await client.send(request, *parts)
            assert (await client.answer())[2] == b"POST 4 abcd"
        await asyncio.sleep(1.5)  # longer than a head may take, and shorter than a connection is kept
        await client.send(request)
        assert (await client.answer())[2] == b"POST 4 abcd"


def test_very_many_empty_lines_are_skipped_in_a_moment() -> None:
    connection = Connection(h11.SERVER)
    connection.receive_data(b"\r\n" * 100_000 + b"\r")
    began = time.process_time()
    assert connection.next_event() is h11.NEED_DATA
    assert time.process_time() - began < 0.25
    connection.receive_data(b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert event.target == b"/"


async def test_a_client_that_waits_is_told_to_continue_only_where_its_body_is_wanted(running: Running) -> None:
    expecting = HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    async with running.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + expecting)
        assert (await client.answer())[0] == 100
        await client.send(b"hello")
        assert (await client.answer())[2] == b"POST 5 hello"
    async with running.client() as client:
        await client.send(b"POST /refuse HTTP/1.1\r\n" + expecting)
        assert (await client.answer())[0] == 200


async def test_an_http_1_0_request_is_answered_and_the_connection_closed(running: Running) -> None:
    async with running.client() as client:
        await client.send(b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
        assert (await client.answer())[2] == b"POST 5 hello"
        assert await client.ended()


# ── what never ends ──


@pytest.mark.parametrize("first", [b"", POST + b"Content-Length: 1\r\n\r\n1"], ids=["first", "later"])
async def test_a_head_that_never_ends_is_a_request_timeout(running: Running, first: bytes) -> None:
    async with running.client() as client:
        if first:
            await client.send(first)
            await client.answer()
        await client.send(POST)
        began = asyncio.get_running_loop().time()
        drip = asyncio.create_task(_drip(client, b"X: 1\r\n"))
        error = await client.error()
        drip.cancel()
    assert (error["status"], error["code"]) == (408, "request_timeout")
    assert PATIENCE_S * 0.9 < asyncio.get_running_loop().time() - began < PATIENCE_S + 3


async def _drip(client: Client, part: bytes) -> None:
    while True:
        await client.send(part)
        await asyncio.sleep(0.05)


async def test_a_connection_that_asks_nothing_is_closed(running: Running) -> None:
    async with running.client() as client:
        assert await client.ended(PATIENCE_S + 3)
    await running.until(0)


async def test_a_slow_body_that_the_app_waits_for_is_the_apps_affair(running: Running) -> None:
    async with running.client() as client:
        await client.send(POST + b"Content-Length: 5\r\n\r\nhell")
        await asyncio.sleep(PATIENCE_S * 2)
        await client.send(b"o")
        assert (await client.answer())[2] == b"POST 5 hello"


async def test_a_kept_connection_stays_as_long_as_the_setting_says(running: Running) -> None:
    async with running.client() as client:
        for _ in range(2):
            await client.send(POST + b"Content-Length: 1\r\n\r\n1")
            await client.answer()
            await asyncio.sleep(PATIENCE_S * 1.5)  # longer than a head may take
        assert await client.ended(KEEP_ALIVE_S + 2)


async def test_a_refused_body_is_thrown_away_and_the_connection_kept(running: Running) -> None:
    size = 5_000_000
    async with running.client() as client:
        await client.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size)
        assert (await client.answer())[0] == 200
        await client.send(bytes(size))
        await client.send(POST + b"Content-Length: 1\r\n\r\n1")
        assert (await client.answer())[2] == b"POST 1 1"
        await client.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n1")
        await client.answer()
        await client.send(b"2")
        assert await client.ended(KEEP_ALIVE_S + 3)  # kept, but not for ever


async def test_a_refused_body_that_never_ends_is_cut_off(running: Running) -> None:
    async with running.client() as client:
        await client.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        assert (await client.answer())[0] == 200
        drip = asyncio.create_task(_drip(client, b"5\r\nhello\r\n"))
        await running.until(0, PATIENCE_S + 3)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(drip, 5)


@pytest.mark.parametrize("running", [30], indirect=True)
@pytest.mark.parametrize(
    "head",
    [
        b"POST /refuse HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Length: %d\r\n\r\n",
        b"POST /refuse HTTP/1.0\r\nContent-Length: %d\r\n\r\n",
        POST + b"Content-Length: -1\r\nX: %d\r\n\r\n",
    ],
    ids=["close", "http/1.0", "no http"],
)
async def test_who_sends_all_before_reading_gets_the_answer_that_closes_the_connection(
    running: Running, head: bytes
) -> None:
    size = 30_000_000
    async with running.client() as client:
        await client.send(head % size, bytes(size))
        assert (await client.answer())[0] in {200, 400}
        assert await client.ended()
    await running.until(0)  # the client's end is the end, not the patience


async def test_a_client_that_sends_on_after_such_an_answer_is_cut_off(running: Running) -> None:
    async with running.client() as client:
        await client.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Length: 9999999\r\n\r\n")
        assert (await client.answer())[0] == 200
        drip = asyncio.create_task(_drip(client, b"hello"))
        await running.until(0, PATIENCE_S + 3)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(drip, 5)


async def test_an_answer_that_nobody_reads_is_not_kept_for_ever(running: Running) -> None:
    running.app.large = bytes(20_000_000)  # more than the sockets' buffers take
    async with running.client() as client:
        await client.send(POST + b"Content-Length: 1\r\n\r\n1")
        await running.until(0, 2 * KEEP_ALIVE_S + 3)


async def test_an_answer_that_is_read_slowly_comes_whole(running: Running) -> None:
    running.app.large = bytes(20_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1000)
    writer.write(POST + b"Content-Length: 1\r\n\r\n1")
    await reader.readuntil(b"\r\n\r\n")
    for _ in range(10):  # longer than an idle connection is kept
        await reader.readexactly(2_000_000)
        await asyncio.sleep(KEEP_ALIVE_S / 4)
    writer.close()


async def test_a_client_that_goes_away_leaves_nothing_behind(running: Running) -> None:
    for part in (b"", b"GE", POST, POST + b"Content-Length: 5\r\n\r\nhel", b"GARBAGE\r\n\r\n"):
        async with running.client() as client:
            await client.send(part)
            await asyncio.sleep(0.02)
        await running.until(0)
    async with asyncio.timeout(5):
        await running.app.gone.wait()
        while running.server.server_state.tasks:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("running", [30], indirect=True)
async def test_a_stop_waits_for_nobody_who_was_refused(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with running.client() as broken, running.client() as refused, running.client() as idle:
            await broken.send(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n")
            await broken.error()
            await refused.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nonly")
            await refused.answer()
            await idle.send(POST + b"Content-Length: 1\r\n\r\n1")
            await idle.answer()
            running.server.should_exit = True
            await running.until(1)
            await running.until(0)  # an idle one may be about to send its next request
    assert not caplog.records
