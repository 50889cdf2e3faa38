"""The errors that a caller sees: one JSON shape, each with a status and a code (docs/reference/errors.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    "unauthorized",
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
        "invalid_http": 400,  # a malformed request line, header or body length
        "invalid_json": 400,
        "invalid_base64": 400,
        "invalid_encoding": 400,
        "invalid_image": 400,
        "unauthorized": 401,
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

# Seconds after which a retry may help. A slot is soon free, and a killed runner is back in about ten seconds.
# An absent or failed model needs an operator.
_RETRY_AFTER: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {"overloaded": 1, "runner_unavailable": 10, "model_unavailable": 60}
)

# All our error responses carry this header. The gate rewrites error responses without it: they are the framework's.
ERROR_HEADER: Final = "x-error-code"


class ApiError(Exception):
    """An error answer.

    details: the offending fields of a 422, each with its message. retry_after_s: seconds after which a retry may
    help; None = the code's default.
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

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the error response: its code, when to retry, and a 401's scheme."""
        headers: dict[str, str] = {ERROR_HEADER: self.code}
        if self.code == "unauthorized":
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return headers

    def response(self, request_id: str) -> Response:
        """Return the error as JSON, with `Retry-After` if a retry may help, and a 401 with its scheme."""
        error: dict[str, object] = {"code": self.code, "message": self.message, "request_id": request_id}
        if self.details:
            error["details"] = list(self.details)
        body = json.dumps({"error": error}, ensure_ascii=False)
        return Response(body, self.status, self.headers, media_type="application/json")


def refusals(names: Iterable[ModelName], ask: Callable[[ModelName], object]) -> dict[ModelName, ApiError]:
    """Ask something of each model, and return the errors by the model's name."""
    refused = {}
    for name in names:
        try:
            ask(name)
        except ApiError as error:
            refused[name] = error
    return refused


def gravest(errors: Iterable[ApiError]) -> ApiError:
    """Return the error of a call that no model answered: a retryable error first, then the highest status."""
    return max(errors, key=lambda error: (error.retry_after_s is not None, error.status))


def internal_error() -> ApiError:
    """Return a 500. The exception's own text goes to the log alone."""
    return ApiError("internal", "an unexpected error; the service's log has it under this request_id")


def not_assigned(name: ModelName) -> ApiError:
    """Return a 421 for a model that the heavy service serves."""
    variable = CATALOGUE[name].assignment_variable
    return ApiError("model_not_assigned", f"{name} is served by the heavy service ({variable}=heavy)")


def invalid_field(field: str, message: str) -> ApiError:
    """Return a 422 about one field."""
    return ApiError("invalid_request", f"{field}: {message}", [{"field": field, "message": message}])


def printable(text: str, length: int = 60) -> str:
    """Shorten a caller's text and replace its control characters, so that a message may quote it."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:length])
    return shown if len(text) <= length else f"{shown}…"


def describe(value: object) -> str:
    """Describe a JSON value for a message: numbers are shown, anything else by its kind and size alone.

    Raises TypeError for a value that JSON does not have.
    """
    match value:
        case None | True | False:
            return json.dumps(value)
        case int() | float():
            # `value != value` finds NaN. The comparison comes first, as an integer may be too large for a float.
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
