"""Requests for the tests of reading them, and what a refusal has to say."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from api.errors import ApiError
from api.request import ImageRequest, Received, parse

LIMIT = 1000
IMAGE = bytes(range(256))
BASE64 = base64.b64encode(IMAGE).decode()
SECRET = "a-text-that-only-the-body-has"


def as_json(body: object, **query: Any) -> Received:
    return Received("application/json", json.dumps(body).encode(), query)


def as_form(*parts: tuple[str, str | bytes], **query: Any) -> Received:
    """multipart/form-data: text fields for str values, file parts for bytes."""
    body = b""
    for name, value in parts:
        file = '; filename="x.bin"\r\nContent-Type: application/octet-stream' if isinstance(value, bytes) else ""
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        body += (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return Received("multipart/form-data; boundary=edge", body + b"--edge--\r\n", query)


def as_urlencoded(body: str | bytes, **query: Any) -> Received:
    data = body if isinstance(body, bytes) else body.encode()
    return Received("application/x-www-form-urlencoded", data, query)


def as_raw(body: bytes = IMAGE, content_type: str = "image/png", **query: Any) -> Received:
    return Received(content_type, body, query)


def read(received: Received) -> ImageRequest:
    return parse(received, LIMIT)


def refusal(received: Received) -> ApiError:
    """The refusal of a request; nothing of its body is in it, and it is not long."""
    with pytest.raises(ApiError) as caught:
        parse(received, LIMIT)
    error = caught.value
    said = f"{error.message}{error.details}"
    assert SECRET not in said
    assert len(error.message) < 500
    return error


def refused_field(received: Received) -> tuple[str, str]:
    """Name and message of the one field that a 422 is about."""
    error = refusal(received)
    assert (error.code, error.status) == ("invalid_request", 422)
    ((_, field), (_, message)) = [pair for detail in error.details for pair in detail.items()]
    assert len(error.details) == 1
    return field, message
