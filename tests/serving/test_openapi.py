"""The OpenAPI document as it is served, and the service held against it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from tests.clients import schemathesis_run
from tests.serving.document import Document, Json
from tests.serving.pictures import ROUTES, encoded, plain
from tests.serving.server import Server
from tools.openapi import SNAPSHOT

pytestmark = pytest.mark.serve


def test_the_same_document_is_served_at_both_places(client: httpx.Client, document: Document) -> None:
    for path in ("/openapi.json", "/docs.json"):
        response = client.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        assert response.json() == document.content


def test_the_document_is_valid_and_has_every_route(document: Document) -> None:
    validate(document.content)
    assert {"/health", "/livez", "/readyz", "/metrics", *ROUTES} <= set(document.content["paths"])
    assert document.content["info"]["title"] == "ai-enrichment-light"
    for path in ROUTES:
        assert document.content["paths"][path]["post"]["summary"]


def test_the_snapshot_is_what_is_served(document: Document) -> None:
    same = json.loads(SNAPSHOT.read_text(encoding="utf-8")) == document.content
    assert same, f"{SNAPSHOT.name} differs from the served document: `make openapi` renews it, `git diff` shows it"


def query_schemas(document: Document) -> list[Json]:
    return [
        parameter["schema"]
        for item in document.content["paths"].values()
        for operation in item.values()
        for parameter in operation["parameters"]
        if parameter.get("in") == "query"
    ]


def test_every_number_that_is_sent_has_a_limit(document: Document) -> None:
    schemas = document.content["components"]["schemas"]
    sent = [schema for name, schema in schemas.items() if re.search(r"Input($|By|File|Text)|^BoxBy", name)]
    numbers = list(find_numbers([*query_schemas(document), *sent]))
    assert len(numbers) > 50
    for schema in numbers:
        assert {"maximum", "exclusiveMaximum"} & set(schema), schema


def find_numbers(schema: Any, name: str = "") -> Iterator[Json]:
    """The schemas of numbers within a schema, without those of embeddings."""
    if isinstance(schema, list):
        for part in schema:
            yield from find_numbers(part)
    elif isinstance(schema, dict) and name != "embedding":
        if schema.get("type") in {"number", "integer"}:
            yield schema
        for key, part in schema.items():
            yield from find_numbers(part, key)


def test_what_is_sent_as_text_is_described_as_text(document: Document) -> None:
    sent = query_schemas(document)
    for name, schema in document.content["components"]["schemas"].items():
        sent += schema["properties"].values() if name.endswith("InputText") else ()
    assert len(sent) > 50
    for schema in sent:
        for form in schema.get("anyOf", [schema]):
            assert "$ref" not in form, schema
            assert form.get("type", "string") not in {"array", "object"}, schema


@pytest.mark.parametrize("route", ROUTES)
def test_every_content_type_of_the_document_is_taken(client: httpx.Client, document: Document, route: str) -> None:
    content = document.resolve(document.content["paths"][route]["post"]["requestBody"])["content"]
    raw = [kind for kind, described in content.items() if "$ref" not in described["schema"]]
    assert len(raw) == len(content) - 3  # JSON and two kinds of forms
    for kind in raw:
        form = kind.removeprefix("image/").upper() if kind.startswith("image/") else "PNG"
        response = client.post(route, content=encoded(plain((1, 2, 3)), form), headers={"content-type": kind})
        assert response.status_code == 200, (kind, response.text)


def test_bentomls_client_still_gets_its_own_schema(client: httpx.Client) -> None:
    routes = client.get("/schema.json").json()["routes"]
    assert {route["route"] for route in routes} >= set(ROUTES)
    for route in (route for route in routes if route["route"] in ROUTES):
        assert route["input"]["properties"]["image"]["type"] == "file"
        assert not {"image", "image_base64"} & set(route["input"].get("required", ()))


def test_schemathesis_finds_no_fault(server: Server, tmp_path: Path) -> None:
    assert schemathesis_run.run(server.url, tmp_path, seed=1) > 500
