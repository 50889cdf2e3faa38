"""Stops the API's HTTP server: it answers the connections that wait at the port, then refuses new ones."""

from __future__ import annotations

import asyncio
import select
import signal
import socket
from typing import Final

import uvicorn

from runners.signs import LAST_STOP

_ACCEPTING_S: Final = 1.0  # time for connections that wait to be accepted
_POLL_S: Final = 0.01


class Server(uvicorn.Server):
    """uvicorn's server, which at its last stop accepts what waits at the port, and then refuses connections.

    uvicorn leaves those connections waiting. They would be reset when the supervisor closes the port.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        signal.signal(LAST_STOP, self.handle_exit)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if LAST_STOP in self._captured_signals:
            await self._close_port(sockets or [])
        await super().shutdown(sockets)

    async def _close_port(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        late = loop.time() + _ACCEPTING_S
        while select.select(sockets, [], [], 0)[0] and loop.time() < late:
            await asyncio.sleep(_POLL_S)  # the event loop accepts
        shared = [each.dup() for each in sockets]
        for server in self.servers:
            server.close()
        for each in shared:  # the supervisor holds them open; without shutdown() they would keep listening
            each.shutdown(socket.SHUT_RD)
            each.close()
        await asyncio.sleep(_POLL_S)  # accepted connections get their protocol
