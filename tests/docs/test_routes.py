"""The page of the routes, from a made-up OpenAPI document."""

from __future__ import annotations

from typing import Any

import pytest

from tools.docs import routes

IMAGE = {"type": "string"}
NUMBER = {"type": "number"}


def parameter(name: str, where: str = "query") -> dict[str, Any]:
    return {"name": name, "in": where, "schema": {"type": "string"}, "description": f"about {name}"}


def operation(body: dict[str, Any] | None, parameters: list[dict[str, Any]], *media: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": "What it does",
        "description": "",
        "parameters": parameters,
        "responses": {
            "200": {
                "content": {name: {"schema": {"type": "object", "properties": {"score": NUMBER}}} for name in media}
            },
            "422": {"$ref": "#/components/responses/Error422"},
        },
    }
    return found | ({"requestBody": {"content": {"application/json": {"schema": body}}}} if body else {})


def body(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    either = {"oneOf": [body(image_base64=IMAGE, bbox=NUMBER), body(image=IMAGE, bbox=NUMBER)]}
    described = {
        "paths": {
            "/pose-analyze": {"post": operation(either, [parameter("bbox")], "application/json")},
            "/drawn": {
                "post": operation(either, [parameter("bbox"), parameter("render")], "application/json", "image/png")
            },
            "/compare": {"post": operation(body(first=NUMBER), [parameter("X-Request-ID", "header")], "image/png")},
            "/one/{name}": {"get": operation(None, [parameter("name", "path")])},
        },
        "components": {"schemas": {}, "parameters": {}, "requestBodies": {}},
    }
    parts = routes.page(described).split("\n## ")
    return {part.split("\n")[0].strip("`"): part for part in parts[1:]}


def test_options_that_all_image_routes_share_stand_once(sections: dict[str, str]) -> None:
    assert "| `bbox` | number |" in sections["Shared options"]
    assert "image_base64" in sections["Shared options"]
    assert "| `bbox`" not in sections["POST /pose-analyze"]


def test_an_option_of_the_query_alone_is_listed(sections: dict[str, str]) -> None:
    assert "shared options" in sections["POST /drawn"]
    assert "| `render` | string | about render |" in sections["POST /drawn"]
    assert "| `bbox`" not in sections["POST /drawn"]


def test_a_route_without_an_image_promises_none(sections: dict[str, str]) -> None:
    assert "| `first` | number |" in sections["POST /compare"]
    assert "image_base64" not in sections["POST /compare"]
    assert "shared options" not in sections["POST /compare"]
    assert "X-Request-ID" not in sections["POST /compare"]
    assert "| `name` |" in sections["GET /one/{name}"]


def test_answers_name_their_fields_or_their_media_type(sections: dict[str, str]) -> None:
    assert "| `score` | number |" in sections["POST /pose-analyze"]
    assert "| `score` | number |" in sections["POST /drawn"]
    assert "Or `image/png`." in sections["POST /drawn"]
    assert "`image/png`." in sections["POST /compare"]
    assert "nothing." in sections["GET /one/{name}"]
    assert all("Errors: 422." in section for name, section in sections.items() if "/" in name)
