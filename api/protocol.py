"""HTTP/1.1 at the API's socket: uvicorn's h11 protocol, with our error answers to malformed and endless requests."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from typing import Any, Final, cast

import h11
from starlette.datastructures import Headers
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from api.errors import ApiError
from api.identity import Identity

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

# The request line and all headers together. Proxies let more through than h11's own limit of 16 KiB.
MAX_HEAD_BYTES: Final = 64 * 1024
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")
_PYTHON: Final = re.compile(r"bytearray\(b(.*)\)")  # Python's notation in h11's messages
_SHOWN: Final = 200  # characters of h11's reason, which may quote the request
_LAST_REQUEST_S: Final = 1.0  # at a stop, time for a request that is on its way on an open connection


class Connection(h11.Connection):
    """h11's parser, strict where a proxy in front might read another body length (request smuggling).

    request: the last request of this connection, None before the first.
    """

    request: h11.Request | None = None

    def next_event(self) -> Any:
        """See h11.Connection. Empty lines before a request are skipped: some clients end their body with one."""
        if self.their_state is h11.IDLE:
            received = self.trailing_data[0]  # a copy, so it is made once for any number of lines
            blank = _EMPTY_LINES.match(received)
            assert blank is not None
            self._receive_buffer.maybe_extract_at_most(blank.end())
            if received[blank.end() :] == b"\r":  # its \n is still to come
                return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.request = event
            if not event.http_version.startswith(b"1."):
                raise h11.RemoteProtocolError(f"the version HTTP/{event.http_version.decode()} is not spoken here")
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding are given")
        return event


class LingeringTransport:
    """A transport whose `close` lets a client that is still sending read the answer.

    The system resets a connection that is closed with unread bytes, and the client loses the answer. So `close` only
    sends EOF, and the protocol discards what arrives. The connection closes when the client closes it, after
    `linger_s`, or at a second `close`.
    """

    def __init__(self, transport: asyncio.Transport, protocol: Protocol, linger_s: float) -> None:
        self._transport = transport
        self._protocol = protocol
        self._linger_s = linger_s
        self._lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing() or not self._protocol.is_receiving or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._lingers = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._protocol.loop.call_later(self._linger_s, self._transport.abort)


class Protocol(H11Protocol):
    """One client's connection.

    It differs from uvicorn's in four ways. A request to upgrade (h2c, WebSocket) is answered as a plain request.
    Malformed HTTP gets our error shape. A request's head, and the rest of a refused body, may take `patience_s` each.
    When the server stops, a connection without a request may still send one, which is answered.
    """

    def __init__(self, *args: Any, patience_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: Connection = Connection(h11.SERVER, MAX_HEAD_BYTES)
        self._patience_s = patience_s
        self._deadline: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes of the answer that were unread at the last check
        self._stops = False

    @property
    def is_receiving(self) -> bool:
        """Whether the client may still be sending the rest of a request."""
        return self.conn.their_state in {h11.SEND_BODY, h11.ERROR}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        lingering = LingeringTransport(transport, self, self._patience_s)
        super().connection_made(cast(asyncio.Transport, lingering))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._stops and not self._is_between_requests:
            self._close_after_answer()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        if not self._is_between_requests:
            self._close_after_answer()
        elif self._stops or self.is_receiving or self.transport.is_closing():
            super().shutdown()
            self.transport.close()  # the shutdown does not wait for the rest of a refused body
        else:
            self._stops = True
            self.loop.call_later(_LAST_REQUEST_S, self.shutdown)

    def _close_after_answer(self) -> None:
        if self.cycle.keep_alive:
            self.cycle.keep_alive = False
            self.cycle.default_headers = [*self.cycle.default_headers, CLOSE_HEADER]

    @property
    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def timeout_keep_alive_handler(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and unread != self._unread:  # the client still reads the answer
            self._unread = unread
            self._keep_alive()
            return
        super().timeout_keep_alive_handler()
        if unread:
            self.transport.abort()  # close() would wait for a client that has stopped reading

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's
        """Answer malformed HTTP. uvicorn calls this while it handles h11's error, which says more than `msg`."""
        error = sys.exception()
        assert isinstance(error, h11.RemoteProtocolError)
        self._refuse(_explain(error))

    def _should_upgrade(self) -> bool:
        return False

    def _watch(self) -> None:
        """Start or stop the timer, which runs while the client owes the rest of a head or of a refused body."""
        is_answering = not self._is_between_requests
        is_kept = self.cycle is not None and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if self.transport.is_closing() or is_answering or is_kept:
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._patience_s, self._give_up)
        if is_kept and self.timeout_keep_alive_task is None:  # uvicorn stops it while a refused body arrives
            self._keep_alive()

    def _keep_alive(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.is_receiving:  # the rest of a refused body
            self.transport.abort()
        elif self.conn.trailing_data[0]:
            late = f"no complete request line and headers within {self._patience_s:g} s"
            self._refuse(ApiError("request_timeout", late))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Answer a request that the app never sees, and close the connection. Only close it if an answer has begun."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        request = self.conn.request if self.conn.our_state is h11.SEND_RESPONSE else None
        identity = Identity.of(Headers(raw=list(request.headers) if request else []))
        logger.warning("request %s was refused: %s", identity.request_id, error.message)
        response = error.response(identity.request_id)
        identity.sign(response.headers)
        response.headers["Connection"] = "close"
        start = h11.Response(
            status_code=error.status,
            headers=[*self.server_state.default_headers, *response.raw_headers],
            reason=STATUS_PHRASES[error.status],
        )
        body = b"" if request and request.method == b"HEAD" else bytes(response.body)
        for event in (start, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:  # the app may wait for the rest of a body
            self.cycle.disconnected = self.cycle.response_complete = True
            self.cycle.message_event.set()
        self.transport.close()


def _explain(error: h11.RemoteProtocolError) -> ApiError:
    reason = _PYTHON.sub(r"\1", str(error))[:_SHOWN]
    if error.error_status_hint == 431:
        reason = f"its request line and headers are longer than {MAX_HEAD_BYTES} bytes"
    return ApiError("invalid_http", f"the request is not HTTP/1.1: {reason}")
