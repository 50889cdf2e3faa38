"""A real uvicorn that stops, in this process. Its socket is shared, as with the supervisor."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from functools import partial
from typing import Final

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config

from api.protocol import Protocol
from api.stopping import Server
from runners.signs import LAST_STOP

GET: Final = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """The supervisor's end of the listening socket."""
    before = signal.getsignal(LAST_STOP)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield listening
    signal.signal(LAST_STOP, before)


async def started(port: socket.socket) -> tuple[Server, socket.socket]:
    config = Config(
        app,
        http=partial(Protocol, patience_s=5),  # type: ignore[arg-type] # called as a class
        ws="none",
        log_config=None,
        lifespan="off",
    )
    config.load()
    server, own = Server(config), port.dup()
    server.lifespan = config.lifespan_class(config)
    await server.startup([own])
    return server, own


def connect(port: socket.socket, said: bytes = b"") -> socket.socket:
    """A connection that is complete for its client, while the event loop has not accepted it."""
    client = socket.create_connection(port.getsockname(), timeout=2)
    client.sendall(said)
    return client


async def read(client: socket.socket) -> bytes:
    def all_of_it() -> bytes:
        with client:
            return b"".join(iter(partial(client.recv, 1000), b""))

    return await asyncio.to_thread(all_of_it)


async def test_what_waits_at_the_port_is_answered_at_the_last_stop_and_nobody_else_comes_in(
    port: socket.socket,
) -> None:
    server, own = await started(port)
    clients = [connect(port, GET) for _ in range(40)]
    server._captured_signals.append(LAST_STOP)
    stop = asyncio.create_task(server.shutdown([own]))
    answers = await asyncio.gather(*map(read, clients))
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert all(b"connection: close" in answer for answer in answers)
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    await asyncio.wait_for(stop, 3)


async def test_after_another_stop_the_port_is_the_successors(port: socket.socket) -> None:
    server, own = await started(port)
    server._captured_signals.append(signal.SIGTERM)
    await server.shutdown([own])
    client = connect(port, GET)
    successor, next_own = await started(port)
    await asyncio.sleep(0.2)
    await asyncio.wait_for(successor.shutdown([next_own]), 3)
    assert b"200 OK" in await read(client)


async def test_a_port_that_was_closed_can_be_opened_again(port: socket.socket) -> None:
    for _ in range(2):
        server, own = await started(port)
        server._captured_signals.append(LAST_STOP)
        await server.shutdown([own])
    server, own = await started(port)
    client = connect(port, GET)
    await asyncio.sleep(0.2)
    await server.shutdown([own])
    assert b"200 OK" in await read(client)


@pytest.mark.parametrize("before", [b"", GET], ids=["new", "kept"])
async def test_a_request_that_is_on_its_way_at_a_stop_is_answered(port: socket.socket, before: bytes) -> None:
    server, own = await started(port)
    client = connect(port, before)
    await asyncio.sleep(0.2)
    answered = b""
    while before and not answered.endswith(b"ok"):
        answered += await asyncio.to_thread(client.recv, 1000)
    stop = asyncio.create_task(server.shutdown([own]))
    await asyncio.sleep(0.2)
    client.sendall(GET)
    answer = await read(client)
    assert b"200 OK" in answer
    assert b"connection: close" in answer
    await asyncio.wait_for(stop, 3)


async def test_a_connection_that_stays_silent_does_not_keep_the_stop(port: socket.socket) -> None:
    server, own = await started(port)
    silent, half = connect(port), connect(port, GET[:20])
    await asyncio.sleep(0.1)
    await asyncio.wait_for(server.shutdown([own]), 3)
    silent.close()
    half.close()
