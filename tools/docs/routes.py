"""docs/reference/api.md: routes, options and answers, from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from starlette.testclient import TestClient

from api.errors import ErrorCode
from api.pages import pages
from tools.docs.text import NOTE, Schema, code, fields, kind, reference, resolved, table

_JSON: Final = "application/json"
_TYPICAL: Final = "/pose-analyze"  # its options are shared by all routes that take one image
_OPTIONS: Final = ("option", "allowed", "meaning")
# Route → the page that explains it.
_GUIDES: Final = {
    "/pose-analyze": "../use/pose.md#fields",
    "/threat-detect": "../use/threat.md#fields",
    "/person-reid": "../use/reid.md",
    "/pet-classify": "../use/pet.md#fields",
    "/depth-estimate": "../use/depth.md#map",
    "/object-distance": "../use/depth.md#object-distance",
    "/enrich": "../use/enrich.md#answer",
    "/health": "health.md#fields-of-health",
    "/metrics": "metrics.md",
}
_CODES: Final = ", ".join(map(code, get_args(ErrorCode)))
_COMMON: Final = {"inference_time_ms", "untrained"}
_IMAGE_KEYS: Final = {"image", "image_base64"}
_CALLERS: Final = "header"  # ids that every route takes and gives back
_SHARED: Final = ("`image_base64` or `image`", "base64", "The image, in JSON or a form. A file part is named `image`.")


def document() -> Schema:
    """Return the OpenAPI document that the service serves."""
    import service  # reads the settings, so it is not imported with this module

    with TestClient(pages(lambda: service.EnrichmentLight.apis, service.SETTINGS)) as client:
        found: Schema = client.get("/openapi.json").json()
    return found


def page(described: Schema) -> str:
    """Return the page of the routes. described: the OpenAPI document."""
    operations = [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    index = [
        (f"[`{method.upper()} {path}`](#{_anchor(method, path)})", operation["summary"])
        for method, path, operation in operations
    ]
    return "\n".join(
        [
            "# HTTP API\n",
            NOTE,
            "Programs read the same from `/openapi.json`.",
            "[Sending images](../use/images.md) has forms, boxes and files. [Errors](errors.md) has every code.\n",
            table(("route", "purpose"), index),
            "## Shared options\n",
            "Every route that takes an image takes these. A route ignores options that mean nothing to it.\n",
            table(_OPTIONS, _shared(described)),
            "Every answer to an image has `inference_time_ms`.",
            "`untrained` is `true` in the answer of [stand-in weights](../quickstart.md#what-untrained-means).\n",
            *("\n".join(_section(described, *operation)) for operation in operations),
        ]
    )


def _anchor(method: str, path: str) -> str:
    return f"{method}-{''.join(char for char in path if char.isalnum() or char in '-_')}"


def _section(described: Schema, method: str, path: str, operation: Schema) -> Iterator[str]:
    models = described["components"]["schemas"]
    yield f"## `{method.upper()} {path}`\n"
    yield f"{operation['summary']}.\n"
    if operation["description"]:
        yield f"{operation['description']}\n"
    shared, options = _shared(described), list(_options(described, operation))
    if set(shared) <= set(options):
        yield "It takes the [shared options](#shared-options).\n"
        options = [option for option in options if option not in shared]
    if options:
        yield table(_OPTIONS, options)
    if path in _GUIDES:
        yield f"[What the fields mean]({_GUIDES[path]}).\n"
    answers: dict[str, list[str]] = {}
    for status, answer in operation["responses"].items():
        if "$ref" not in answer:
            answers.setdefault(_answer(answer, models, _answered(described)), []).append(status)
    for text, statuses in answers.items():
        yield f"Answer {' and '.join(statuses)}:\n"
        yield text
    failures = ", ".join(status for status, answer in operation["responses"].items() if "$ref" in answer)
    yield f"Errors: {failures}.\n"


def _shared(described: Schema) -> list[tuple[str, str, str]]:
    return list(_options(described, described["paths"][_TYPICAL]["post"]))


def _options(described: Schema, operation: Schema) -> Iterator[tuple[str, str, str]]:
    """Yield name, values and meaning of each field of the body, then of each other parameter."""
    components = described["components"]
    schemas = components["schemas"]
    taken = dict(_body_fields(components, operation))
    if _IMAGE_KEYS & taken.keys():
        yield _SHARED
    for name, field in taken.items():
        if name not in _IMAGE_KEYS:
            yield code(name), _allowed(field, schemas), field.get("description", "")
    for parameter in operation["parameters"]:
        named = resolved(parameter, components["parameters"])
        if named["in"] != _CALLERS and named["name"] not in taken:
            yield code(named["name"]), _allowed(named["schema"], schemas), named.get("description", "")


def _body_fields(components: Schema, operation: Schema) -> Iterator[tuple[str, Schema]]:
    if "requestBody" in operation:
        content = resolved(operation["requestBody"], components["requestBodies"])["content"]
        body = resolved(content[_JSON]["schema"], components["schemas"])
        for one in (body, *body.get("oneOf", ()), *body.get("anyOf", ())):
            yield from resolved(one, components["schemas"]).get("properties", {}).items()


def _allowed(schema: Schema, models: Mapping[str, Schema]) -> str:
    return kind(schema, models).removesuffix(" or null")  # null means that the option is not set


def _answered(described: Schema) -> dict[str, str]:
    """Return the models that a route answers with, each with a link to that route."""
    found: dict[str, str] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            schema = operation["responses"]["200"].get("content", {}).get(_JSON, {}).get("schema", {})
            route = f"[`{method.upper()} {path}`](#{_anchor(method, path)})"
            if model := reference(schema):
                found.setdefault(model, f"what {route} answers")
    return found


def _answer(answer: Schema, models: Mapping[str, Schema], known: Mapping[str, str]) -> str:
    content = answer.get("content", {})
    others = ", ".join(code(media) for media in content if media != _JSON)
    if _JSON not in content:
        return f"{others or 'nothing'}.\n"
    schema = resolved(content[_JSON]["schema"], models)
    rows = [
        (code(name), kind(field, models, known).replace(_CODES, "[an error's code](errors.md)"), _said(field))
        for name, field in fields(schema, models, known)
        if name not in _COMMON
    ]
    note = f"{schema['description'].strip()}\n\n" if "description" in schema else ""
    return (
        note
        + table(("field", "type", "note")[: 3 if any(note for *_, note in rows) else 2], rows)
        + (f"\nOr {others}.\n" if others else "")
    )


def _said(field: Mapping[str, Any]) -> str:
    return str(field.get("description", "")).replace("\n", " ")
