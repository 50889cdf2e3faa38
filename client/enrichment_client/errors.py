"""The one exception of this package, and what it reads out of an error answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

_RETRIED: Final = frozenset({429, 503})


class EnrichmentError(RuntimeError):
    """A call that has no answer.

    status: of the HTTP answer, None if there was none. code: the service's (`invalid_image`, `overloaded` …), or ours:
    `unreachable`, `timeout`, `unexpected_answer`. request_id: names the request in the service's log. details: the
    wrong fields of a 422, each with `field` and `message`.
    """

    def __init__(
        self,
        status: int | None,
        code: str,
        message: str,
        request_id: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(status, code, message, request_id, details)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.details = details

    def __str__(self) -> str:
        status = "" if self.status is None else f"{self.status} "
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{status}{self.code}: {self.message}{request}"

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed later."""
        return self.status in _RETRIED or self.code == "unreachable"

    @classmethod
    def of(cls, response: httpx.Response) -> EnrichmentError:
        """Return the error that an answer holds; a proxy's answer need not have the service's shape."""
        request_id = response.headers.get("x-request-id")
        try:
            error = response.json()["error"]
            return cls(
                response.status_code,
                str(error["code"]),
                str(error["message"]),
                error.get("request_id", request_id),
                error.get("details") or (),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            said = " ".join(response.text.split())[:200] or response.reason_phrase
            return cls(response.status_code, "unexpected_answer", f"{response.url} answered: {said}", request_id)
