"""The service's OpenAPI document as a judge of its real answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final, Self

import httpx
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

Json = dict[str, Any]

# Pages and descriptions for tools, which have no place in a description of the API.
UNDOCUMENTED: Final = re.compile(r"/|/docs|/healthz|/openapi\.json|/docs\.json|/schema\.json|/static_content/.*")
_DOCUMENT: Final = "urn:document"


class Document:
    """An OpenAPI document. Answers are judged more strictly than it says: they may have no keys beside those in it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.content: Json = deepcopy(dict(document))
        self._open = _registry(self.content)
        closed = deepcopy(self.content)
        for schema in closed["components"]["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        self._closed = _registry(closed)

    @classmethod
    def of(cls, url: str) -> Self:
        """The document that a service serves."""
        return cls(httpx.get(f"{url}/openapi.json", timeout=30).raise_for_status().json())

    def is_valid(self, name: str, value: object) -> bool:
        """Whether a value fits a schema of the components."""
        reference = {"$ref": f"{_DOCUMENT}#/components/schemas/{name}"}
        return bool(Draft202012Validator(reference, registry=self._open).is_valid(value))

    def resolve(self, described: Json) -> Json:
        """What a reference refers to; anything else as it is."""
        while "$ref" in described:
            place = described["$ref"].removeprefix("#/").split("/")
            described = self.content
            for key in place:
                described = described[key]
        return described

    def check_response(self, response: httpx.Response) -> None:
        """An event hook of httpx: fails unless the document has this answer: status, media type, body and headers."""
        response.read()
        # As api/paths.py spells it, whatever was asked.
        path, method = re.sub("/{2,}", "/", response.request.url.path).rstrip("/") or "/", response.request.method
        if UNDOCUMENTED.fullmatch(path) and response.status_code < 400:
            return
        described = self._described(path, method, response.status_code)
        for name, header in described.get("headers", {}).items():
            self._check_header(name, self.resolve(header), response)
        if method == "HEAD":
            return
        media_type = response.headers.get("content-type", "").split(";")[0]
        assert media_type in described["content"], f"{method} {path} → {media_type}, which is not in the document"
        if media_type == "application/json":
            self._check_body(described["content"][media_type]["schema"], response)

    def _described(self, path: str, method: str, status: int) -> Json:
        """The document's description of an answer. An unknown path and another method have errors of their own."""
        asked = "get" if method == "HEAD" else method.lower()
        paths = self.content["paths"].items()
        operation = next((item.get(asked) for known, item in paths if _matches(known, path)), None)
        if operation is None:
            assert status in {404, 405}, f"{method} {path} → {status}, which is not in the document"
            return {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}}
        assert str(status) in operation["responses"], f"{method} {path} → {status}, which is not in the document"
        return self.resolve(operation["responses"][str(status)])

    def _check_header(self, name: str, header: Json, response: httpx.Response) -> None:
        value = response.headers.get(name)
        if value is None:
            assert not header["required"], f"{response.request.url.path} → {response.status_code} without {name}"
        elif header["schema"]["type"] == "integer":
            assert value.isdecimal(), f"{name}: {value}"

    def _check_body(self, schema: Json, response: httpx.Response) -> None:
        reference = {"$ref": _DOCUMENT + schema["$ref"]}
        errors = Draft202012Validator(reference, registry=self._closed).iter_errors(response.json())
        found = [f"{error.json_path}: {error.message[:300]}" for error in errors]
        assert not found, f"{response.request.url.path} → {response.status_code}: {found}"


def _registry(document: Json) -> Registry[bool | Mapping[str, Any]]:
    resource: Resource[bool | Mapping[str, Any]] = DRAFT202012.create_resource(document)
    registry: Registry[bool | Mapping[str, Any]] = Registry().with_resource(_DOCUMENT, resource)
    return registry


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) is not None
