"""Builds the service's OpenAPI document, for readers in a browser and for generators of clients.

Its sources are the models of api/schemas.py, the errors of api/errors.py, the live answers of api/examples.json and
the routes of BentoML's service.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import BaseModel

from api.errors import STATUS, ApiError, ErrorCode, invalid_field
from api.examples import examples
from api.json_schemas import Schema, reference, schemas
from api.request_schemas import BINARY, image_body, image_schemas, query_parameters
from api.schemas import ErrorResponse, ImageInput, Unparsed
from vision.decoding import FORMATS

# The first version with full JSON Schema: our schemas use `null` and `const`, which 3.0 does not have.
VERSION: Final = "3.1.0"
PROJECT: Final = Path(__file__).parents[1] / "pyproject.toml"

_DESCRIPTION: Final = f"""\
An analysis route takes one image and its options: as JSON, as a form, or as the raw image.
Options may also be sent in the query string.
Accepted formats are {", ".join(FORMATS)}. The first frame of an animation is used.
Coordinates are pixels of the image as sent, upright by its EXIF orientation.

Every error has the shape of `ErrorResponse`, except below /v1/.
A 4xx is final, except 429. A 429 or 5xx may be retried, after `Retry-After` seconds if that header is sent.
"""
_JSON_TYPE: Final = "application/json"
_DEEPSTACK: Final = {"name": "deepstack", "description": "routes of DeepStack and CodeProject.AI"}

#: The cause of each error, used as the message of its example. A real message also says what was received.
MEANINGS: Final[Mapping[ErrorCode, str]] = MappingProxyType(
    {
        "invalid_http": "the request is not HTTP/1.1",
        "invalid_json": "the body is not JSON",
        "invalid_base64": "image_base64 is not base64",
        "invalid_encoding": "the body can't be decoded by its content encoding",
        "invalid_image": "the bytes are not an image, or the image is damaged",
        "unauthorized": "no valid API key was sent",
        "forbidden": "the service's settings forbid this request",
        "not_found": "there is no such route, or no model of that name",
        "method_not_allowed": "this route does not take this method",
        "request_timeout": "the request was not complete within the configured time",
        "payload_too_large": "the body or the encoded image has more bytes than are accepted",
        "image_too_large": "the image has more pixels than are accepted",
        "unsupported_media_type": "the content type or the image's format is not accepted",
        "model_not_assigned": "the model is served by the heavy service",
        "invalid_request": "no image or two images were sent, or an option has an invalid value",
        "overloaded": "an answer would come too late, or too many bodies wait in memory",
        "internal": "an unexpected error; the service's log has it under this request_id",
        "model_unavailable": "the model's weights are absent, or loading the model failed",
        "runner_unavailable": "the runner process is being restarted",
        "timeout": "there was no result within the configured time",
    }
)
_EXAMPLE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
_ANYWHERE: Final[tuple[ErrorCode, ...]] = ("method_not_allowed", "internal")

_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "X-Request-ID": "the id of the request; the service's log shows it, too",
        "X-Correlation-ID": "as sent in the request",
        "traceparent": "as sent in the request",
        "X-Error-Code": "the code of the error",
        "Retry-After": "seconds after which a retry may help",
        "Allow": "the methods that the route takes",
        "WWW-Authenticate": "how a key is sent: Bearer, or as X-API-Key",
    }
)
_KEYS: Final[Schema] = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
# Headers that a caller may send. The answer repeats them.
_IDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "X-Request-ID": "an id for the request; without it the service uses X-Correlation-ID or a new id",
        "X-Correlation-ID": "an id of the caller's own",
        "traceparent": "the caller's trace (W3C Trace Context)",
    }
)


@dataclass(frozen=True)
class Operation:
    """One method of one route.

    name: the operationId. answers: status → model of the JSON, or the media type of any other answer. image: the
    model of a request with an image. bodies: content type → model of any other request. query: the model of the query
    string's parameters. errors: the codes of this route, without those that every route may answer. files: media types
    of a 200 beside its JSON. keyed: whether callers must send an API key.
    """

    method: Literal["get", "post"]
    path: str
    name: str
    summary: str
    answers: Mapping[int, type[BaseModel] | str]
    tag: str = "state"
    image: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    errors: Sequence[ErrorCode] = ()
    bodies: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    files: Sequence[str] = ()
    keyed: bool = False


@cache
def project() -> Mapping[str, Any]:
    """Return the table `project` of pyproject.toml."""
    table: Mapping[str, Any] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return table


def analysis(apis: Mapping[str, Any]) -> tuple[Operation, ...]:
    """Return the routes that analyse images. apis: the APIs of a BentoML Service, by name."""
    return tuple(_analysis(name, api) for name, api in apis.items())


def _analysis(name: str, api: Any) -> Operation:
    asked: type[Unparsed] = api.input_spec
    is_image = issubclass(asked, ImageInput)
    return Operation(
        "post",
        api.route,
        name,
        api.doc,
        {200: _declared(api.output_spec)},
        "analysis",
        asked if is_image else None,
        asked.query_options,
        [code for code, status in STATUS.items() if status not in {401, 403, 404}],
        {} if is_image else {_JSON_TYPE: asked, **asked.forms},
        asked.files,
    )


def document(operations: Sequence[Operation], open_paths: Set[str] | None = None) -> dict[str, Any]:
    """Return the OpenAPI document of these routes, ready for JSON.

    open_paths: the paths that need no API key. None = the service asks for none.
    """
    if open_paths is not None:
        operations = [
            each if each.path in open_paths else replace(each, errors=(*each.errors, "unauthorized"), keyed=True)
            for each in operations
        ]
    images = list(dict.fromkeys(operation.image for operation in operations if operation.image))
    asked = dict.fromkeys(model for operation in operations if (model := operation.image or operation.query))
    bodies = {model for operation in operations for model in operation.bodies.values()}
    answers = {model for operation in operations for model in operation.answers.values() if isinstance(model, type)}
    models = schemas([*asked, *bodies], answers | {ErrorResponse})
    requests = {model: models.pop(_name(model)) for model in asked}
    for model in images:
        models |= image_schemas(_name(model), requests[model])
    used = [code for operation in operations for code in (*operation.errors, *_ANYWHERE)]
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, requests)
    return {
        "openapi": VERSION,
        "info": _info(),
        "servers": [{"url": "."}],
        "security": [],
        "tags": [
            {"name": "analysis", "description": "analysis of an image"},
            {"name": "state", "description": "state of the service and its models"},
            *([_DEEPSTACK] if any(operation.tag == _DEEPSTACK["name"] for operation in operations) else ()),
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(models.items())),
            "requestBodies": {_name(model): image_body(_name(model)) for model in images},
            "responses": {f"Error{status}": _failure(codes) for status, codes in _by_status(used).items()},
            "headers": {name: _header(name, text) for name, text in _HEADERS.items()},
            "parameters": {name: _id_parameter(name, text) for name, text in _IDS.items()},
            **({} if open_paths is None else {"securitySchemes": _KEYS}),
        },
    }


def _info() -> Schema:
    described = project()
    return {
        "title": described["name"],
        "version": described["version"],
        "summary": described["description"],
        "description": _DESCRIPTION,
        "license": {"name": described["license"], "identifier": described["license"]},
    } | _contact(described)


def _contact(project: Mapping[str, Any]) -> Schema:
    """Return the project's first URL as its contact; nothing if it has none."""
    urls = list(project.get("urls", {}).values())
    return {"contact": {"name": project["name"], "url": urls[0]}} if urls else {}


def _operation(operation: Operation, requests: Mapping[type[BaseModel], Schema]) -> Schema:
    summary, _, description = operation.summary.partition("\n")
    asked = operation.image or operation.query
    described = {
        "operationId": operation.name,
        "summary": summary.rstrip("."),
        "description": description.strip(),
        "tags": [operation.tag],
        "parameters": [
            *({"$ref": f"#/components/parameters/{name}"} for name in _IDS),
            *(_path_parameter(part[1:-1]) for part in operation.path.split("/") if part.startswith("{")),
            *(query_parameters(requests[asked]) if asked else ()),
        ],
        "responses": _responses(operation),
    }
    if operation.keyed:
        described["security"] = [{scheme: []} for scheme in _KEYS]
    if operation.image:
        described["requestBody"] = {"$ref": f"#/components/requestBodies/{_name(operation.image)}"}
    elif operation.bodies:
        content = {kind: {"schema": reference(_name(model))} for kind, model in operation.bodies.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _responses(operation: Operation) -> Schema:
    described = {str(status): _answer(status, model) for status, model in operation.answers.items()}
    content = described["200"]["content"]
    if operation.name in examples():
        next(iter(content.values()))["example"] = examples()[operation.name]
    content |= {kind: {"schema": BINARY} for kind in operation.files}
    for status in _by_status([*operation.errors, *_ANYWHERE]):
        described.setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})
    return dict(sorted(described.items()))


def _answer(status: int, model: type[BaseModel] | str) -> Schema:
    kind, schema = (model, {"type": "string"}) if isinstance(model, str) else (_JSON_TYPE, reference(_name(model)))
    content = {kind: {"schema": schema}}
    return {"description": HTTPStatus(status).phrase, "headers": _headers(_IDS), "content": content}


# ── parameters and headers ──


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _id_parameter(name: str, text: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _header(name: str, text: str) -> Schema:
    kind = "integer" if name == "Retry-After" else "string"
    return {"description": text, "required": name not in _IDS or name == "X-Request-ID", "schema": {"type": kind}}


def _headers(names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


# ── errors ──


def _by_status(codes: Iterable[ErrorCode]) -> dict[int, list[ErrorCode]]:
    found: dict[int, list[ErrorCode]] = {}
    for code in codes:
        found.setdefault(STATUS[code], []).append(code)
    return dict(sorted(found.items()))


def _failure(codes: Sequence[ErrorCode]) -> Schema:
    """Return the response of one error status, with an example for each code."""
    codes = sorted(set(codes))
    responses = {code: _example(code).response(_EXAMPLE_ID) for code in codes}
    sent = {name for response in responses.values() for name in _HEADERS if name in response.headers}
    if "method_not_allowed" in codes:
        sent.add("Allow")
    examples = {code: {"value": json.loads(bytes(response.body))} for code, response in responses.items()}
    content = {_JSON_TYPE: {"schema": reference(ErrorResponse.__name__), "examples": examples}}
    return {
        "description": "; ".join(MEANINGS[code] for code in codes),
        "headers": _headers([*_IDS, *sorted(sent)]),
        "content": content,
    }


def _example(code: ErrorCode) -> ApiError:
    return (
        invalid_field("bbox", "must have x2 > x1 and y2 > y1")
        if code == "invalid_request"
        else ApiError(code, MEANINGS[code])
    )


# ── models ──


def _declared(model: type[BaseModel]) -> type[BaseModel]:
    """Return the model of api/schemas.py or tasks/ from which BentoML has derived its own."""
    return next(base for base in model.__mro__ if not base.__module__.startswith("_bentoml"))


def _name(model: type[BaseModel]) -> str:
    return model.__name__
