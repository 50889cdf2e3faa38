"""The models of requests, as BentoML's client and the OpenAPI document see them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from starlette.requests import Request

from api.schemas import DistanceInput, ImageInput


def request(body: bytes, content_type: str, query: bytes = b"") -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [
        (b"content-type", content_type.encode()),
        (b"content-encoding", b"gzip"),
        (b"accept", b"image/png"),
        (b"accept", b"a/b"),
    ]
    scope = {"type": "http", "method": "POST", "headers": headers, "query_string": query}
    return Request(scope, receive)


async def test_a_body_is_taken_as_it_came() -> None:
    got = (await ImageInput.from_http_request(request(b"bytes", "image/png", b"a=1&a=2&b="), None)).received
    assert (got.body, got.content_type, got.encoding) == (b"bytes", "image/png", "gzip")
    assert got.accept == "image/png,a/b"
    assert {name: list(values) for name, values in got.query.items()} == {"a": ["1", "2"], "b": [""]}


def test_bentomls_client_may_give_the_image_as_a_file() -> None:
    schema = ImageInput.model_json_schema()
    assert schema["properties"]["image"] == {"type": "file", "format": "image"}
    assert "root_input" not in schema  # else it takes one argument for the whole body


def test_a_distance_needs_a_box() -> None:
    assert "bbox" in DistanceInput.model_json_schema()["required"]
    with pytest.raises(ValidationError):
        DistanceInput(image_base64="QQ==")
