"""The errors that a caller sees: one JSON shape, a status and a code each (CONTRACT: Errors)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from starlette.responses import Response

from models.catalogue import CATALOGUE, ModelName

ErrorCode = Literal[
    "invalid_http",
    "invalid_json",
    "invalid_base64",
    "invalid_encoding",
    "invalid_image",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "request_timeout",
    "payload_too_large",
    "image_too_large",
    "unsupported_media_type",
    "model_not_assigned",
    "invalid_request",
    "overloaded",
    "internal",
    "model_unavailable",
    "runner_unavailable",
    "timeout",
]

STATUS: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {
        "invalid_http": 400,  # the message itself: its request line, its headers, how long its body is
        "invalid_json": 400,
        "invalid_base64": 400,
        "invalid_encoding": 400,
        "invalid_image": 400,
        "forbidden": 403,
        "not_found": 404,
        "method_not_allowed": 405,
        "request_timeout": 408,
        "payload_too_large": 413,
        "image_too_large": 413,
        "unsupported_media_type": 415,
        "model_not_assigned": 421,
        "invalid_request": 422,
        "overloaded": 429,
        "internal": 500,
        "model_unavailable": 503,
        "runner_unavailable": 503,
        "timeout": 504,
    }
)

# Seconds after which trying again may help: a slot is free soon, a killed runner is back in about ten, a model that was
# absent or failed needs an operator.
_RETRY_AFTER: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {"overloaded": 1, "runner_unavailable": 10, "model_unavailable": 60}
)

# Every error response of ours carries it: it tells them from the framework's own, which are rewritten.
ERROR_HEADER: Final = "x-error-code"


class ApiError(Exception):
    """An answer other than 200. `details` lists the offending fields of a 422, each with its message.

    retry_after_s: when trying again may help, where that is known better than by the code.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        details: Sequence[Mapping[str, str]] = (),
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.details = details
        self.retry_after_s = _RETRY_AFTER.get(code) if retry_after_s is None else retry_after_s

    @property
    def status(self) -> int:
        return STATUS[self.code]

    def response(self, request_id: str) -> Response:
        """The error as the one JSON shape, with `Retry-After` where trying again may help."""
        error: dict[str, object] = {"code": self.code, "message": self.message, "request_id": request_id}
        if self.details:
            error["details"] = list(self.details)
        headers: dict[str, str] = {ERROR_HEADER: self.code}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        body = json.dumps({"error": error}, ensure_ascii=False)
        return Response(body, self.status, headers, media_type="application/json")


def internal_error() -> ApiError:
    """A 500. The bug's own text is for the log alone."""
    return ApiError("internal", "an unexpected error; the service's log has it under this request_id")


def not_assigned(name: ModelName) -> ApiError:
    """A 421 about a model that another service has."""
    variable = CATALOGUE[name].assignment_variable
    return ApiError("model_not_assigned", f"{name} is served by the heavy service ({variable}=heavy)")


def invalid_field(field: str, message: str) -> ApiError:
    """A 422 about one field."""
    return ApiError("invalid_request", f"{field}: {message}", [{"field": field, "message": message}])


def printable(text: str, length: int = 60) -> str:
    """A header's value or a field's name as a message may hold it: cut, and without control characters."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:length])
    return shown if len(text) <= length else f"{shown}…"


def describe(value: object) -> str:
    """What a caller sent, for a message: numbers as they are, of anything else the kind and the size only."""
    match value:
        case None | True | False:
            return json.dumps(value)
        case int() | float():
            # An integer may be too large for a float; NaN is no number's equal, not even its own.
            return f"{value:.10g}" if abs(value) < 1e9 or value != value else "a number of over 9 digits"
        case str():
            return f"a text of length {len(value)}"
        case bytes():
            return f"a file of {len(value)} bytes"
        case Mapping():
            return f"an object of size {len(value)}"
        case Sequence() if 0 < len(value) <= 8 and all(isinstance(item, int | float) for item in value):
            return f"[{', '.join(map(describe, value))}]"
        case Sequence():
            return f"a list of length {len(value)}"
        case _:
            raise TypeError(f"no JSON value: {type(value)}")
