"""The ids that identify a request in logs and traces: its own, its caller's, and its trace's."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Final, Self

from starlette.datastructures import Headers, MutableHeaders

_ID: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# W3C Trace Context: version, trace id, parent id, flags. Neither id is all zeros. Later versions may add fields.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:(?<!^00.{53})-[\x21-\x7e]{1,200})?"
)


@dataclass(frozen=True)
class Identity:
    """The ids that a request and its answer share.

    request_id: X-Request-ID, else X-Correlation-ID, else a new one. correlation_id, traceparent: as sent; None if
    absent, or malformed and so unsafe in a log or a header.
    """

    request_id: str
    correlation_id: str | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, headers: Headers) -> Self:
        """Return the identity of a request with these headers."""
        correlation_id = _valid(_ID, headers.get("x-correlation-id"))
        request_id = _valid(_ID, headers.get("x-request-id")) or correlation_id or uuid.uuid4().hex
        return cls(request_id, correlation_id, _valid(_TRACEPARENT, headers.get("traceparent")))

    def sign(self, headers: MutableHeaders) -> None:
        """Put the ids into an answer's headers. The traceparent is returned as it was sent, traced or not."""
        headers["X-Request-ID"] = self.request_id
        if self.correlation_id is not None:
            headers["X-Correlation-ID"] = self.correlation_id
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent


def _valid(pattern: re.Pattern[str], value: str | None) -> str | None:
    return value if value is not None and pattern.fullmatch(value) else None
