"""Reads request bodies, and bounds how slow they may be and how much memory they may take."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import Receive

from api.errors import ApiError

STALLED_S: Final = 10.0  # longest time without a byte of the body


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Uploads:
    """The bodies of one event loop, within a shared memory limit.

    At the limit the oldest unfinished body is given up, so that stalled clients keep nobody else out. A body counts
    until its request is answered.
    """

    def __init__(self, most: int, most_each: int) -> None:
        """most: bytes of all bodies together. most_each: bytes of one body."""
        self._most = most
        self._most_each = most_each
        self._held = 0
        self._reading: dict[Upload, None] = {}  # oldest first

    def upload(self) -> Upload:
        """Return a new body to read."""
        return Upload(self)

    def add(self, upload: Upload, size: int) -> None:
        """Count `size` more bytes of a body. Give up the oldest unfinished bodies if there is no room.

        Raises ApiError: payload_too_large, or overloaded if only complete bodies fill the memory.
        """
        if upload.size + size > self._most_each:
            raise ApiError("payload_too_large", f"the body has more than {self._most_each} bytes")
        while self._held + size > self._most:
            oldest = next((other for other in self._reading if other is not upload and other.size), None)
            if oldest is None:
                raise ApiError("overloaded", "too many requests are waiting with their bodies in memory")
            oldest.give_up()
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
    """One body. size: bytes that it takes in memory now."""

    def __init__(self, uploads: Uploads) -> None:
        self.size = 0
        self._uploads = uploads
        self._timeout: asyncio.Timeout | None = None
        self._given_up = False

    async def read(self, receive: Receive, within_s: float) -> bytes:
        """Return the whole body. Raises ClientGone, or ApiError: payload_too_large, request_timeout or overloaded."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        chunks: list[bytes] = []
        self._uploads.begin(self)
        try:
            async with asyncio.timeout_at(min(end, loop.time() + STALLED_S)) as self._timeout:
                while True:
                    message = await receive()
                    if self._given_up:  # in the same turn of the loop, before its timeout
                        raise TimeoutError
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
        """Free the memory now, and end the reading soon with request_timeout."""
        self._uploads.release(self)
        self._given_up = True
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def release(self) -> None:
        """Free the memory of a body that is no longer needed."""
        self._uploads.release(self)
