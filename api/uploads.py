"""Request bodies that are being read: how slow they may be, and how much memory they may take."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import Receive

from api.errors import ApiError

STALLED_S: Final = 10.0  # without a byte of a body


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Uploads:
    """The bodies of one event loop. Where they take too much memory together, the one that came first is given up.

    So clients that stall keep nobody else out. A body counts until its request is answered.
    """

    def __init__(self, most: int, most_each: int) -> None:
        """most: bytes of all bodies together. most_each: of one."""
        self._most = most
        self._most_each = most_each
        self._held = 0
        self._reading: dict[Upload, None] = {}  # in the order in which they came

    def upload(self) -> Upload:
        """A body to be read."""
        return Upload(self)

    def add(self, upload: Upload, size: int) -> None:
        """Raises ApiError: payload_too_large, or overloaded where only complete bodies could make room."""
        if upload.size + size > self._most_each:
            raise ApiError("payload_too_large", f"the body has more than {self._most_each} bytes")
        while self._held + size > self._most:
            slowest = next((other for other in self._reading if other is not upload), None)
            if slowest is None:
                raise ApiError("overloaded", "too many requests are waiting with their bodies in memory")
            slowest.give_up()
        upload.size += size
        self._held += size

    def begin(self, upload: Upload) -> None:
        self._reading[upload] = None

    def complete(self, upload: Upload) -> None:
        self._reading.pop(upload, None)

    def release(self, upload: Upload) -> None:
        self.complete(upload)
        self._held -= upload.size
        upload.size = 0


class Upload:
    """One body. size: bytes that it takes now."""

    def __init__(self, uploads: Uploads) -> None:
        self.size = 0
        self._uploads = uploads
        self._timeout: asyncio.Timeout | None = None

    async def read(self, receive: Receive, within_s: float) -> bytes:
        """The whole body. Raises ClientGone, or ApiError: payload_too_large, request_timeout or overloaded."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        chunks: list[bytes] = []
        self._uploads.begin(self)
        try:
            async with asyncio.timeout_at(min(end, loop.time() + STALLED_S)) as self._timeout:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    if chunk := message.get("body", b""):
                        self._uploads.add(self, len(chunk))
                        chunks.append(chunk)
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                    self._timeout.reschedule(min(end, loop.time() + STALLED_S))
        except TimeoutError:
            raise ApiError("request_timeout", "the body did not arrive in time") from None
        finally:
            self._timeout = None
            self._uploads.complete(self)

    def give_up(self) -> None:
        """End the reading soon, and free its memory now."""
        self._uploads.release(self)
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def release(self) -> None:
        """The body is not needed any more."""
        self._uploads.release(self)
