"""The OpenAPI document of the service, for people who read it in a browser and programs that generate clients.

It is made of what serves: the models of api/schemas.py, the errors of api/errors.py, the routes of BentoML's service.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import BaseModel

from api.errors import STATUS, ApiError, ErrorCode, invalid_field
from api.json_schemas import Schema, reference, schemas
from api.request_schemas import image_body, image_schemas, query_parameters
from api.schemas import (
    AliveResponse,
    ErrorResponse,
    HealthResponse,
    ImageInput,
    ModelChangedResponse,
    ModelNameInput,
    ModelsChangedResponse,
    ModelsStatusResponse,
    NotReadyResponse,
    ReadyResponse,
)
from vision.decoding import FORMATS

# The first version whose schemas are JSON Schema's own: ours hold `null` and `const`, which 3.0 does not know.
VERSION: Final = "3.1.0"
PROJECT: Final = Path(__file__).parents[1] / "pyproject.toml"

_DESCRIPTION: Final = f"""\
A route of the analysis takes one image and its options: as JSON, as a form, or as the image itself.
Options may also stand in the query string.
Formats are {", ".join(FORMATS)}; of several frames the first is taken.
Coordinates are pixels of the image as sent, turned upright by its EXIF orientation.

Every error has the shape of `ErrorResponse`.
A 4xx is final. A 5xx is worth another try, after `Retry-After` seconds where that header is sent.
"""
_JSON_TYPE: Final = "application/json"

#: When each error comes. It is the message of the error's example; a real message also says what was received.
MEANINGS: Final[Mapping[ErrorCode, str]] = MappingProxyType(
    {
        "invalid_http": "the request is not HTTP/1.1",
        "invalid_json": "the body is not JSON",
        "invalid_base64": "image_base64 is not base64",
        "invalid_encoding": "the body can't be inflated as its content encoding says",
        "invalid_image": "the bytes are no image, or a damaged one",
        "forbidden": "a setting does not allow it",
        "not_found": "there is no such route, or no model of that name",
        "method_not_allowed": "this route does not take this method",
        "request_timeout": "the request was not complete within the configured time",
        "payload_too_large": "the body or the encoded image has more bytes than are accepted",
        "image_too_large": "the image has more pixels than are accepted",
        "unsupported_media_type": "the content type or the image's format is not accepted",
        "model_not_assigned": "the model is served by the heavy service",
        "invalid_request": "no image was sent or two, or an option has a value that is not allowed",
        "overloaded": "as many requests as are allowed are in flight already",
        "internal": "an unexpected error; the service's log has it under this request_id",
        "model_unavailable": "the model's weights are absent, or it could not be loaded",
        "runner_unavailable": "the runner process is being restarted",
        "timeout": "there was no result within the configured time",
    }
)
_EXAMPLE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
_ANYWHERE: Final[tuple[ErrorCode, ...]] = ("method_not_allowed", "internal")

_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "X-Request-ID": "the id of the request, in the service's log, too",
        "X-Correlation-ID": "as the request had it",
        "traceparent": "as the request had it",
        "X-Error-Code": "the code of the error",
        "Retry-After": "seconds after which another try may help",
        "Allow": "the methods that the route takes",
    }
)
# A caller may send these, and finds them in the answer.
_IDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "X-Request-ID": "an id for the request; without it X-Correlation-ID is taken, or a new one made",
        "X-Correlation-ID": "an id of the caller's own",
        "traceparent": "the caller's trace (W3C Trace Context)",
    }
)


@dataclass(frozen=True)
class Operation:
    """One method of one route.

    name: the operationId. answers: status → its model, or its media type where it is not JSON. image: the model of a
    request that has an image. query: the model whose fields are the parameters of the query string. errors: the codes
    beside those that every route may answer.
    """

    method: Literal["get", "post"]
    path: str
    name: str
    summary: str
    answers: Mapping[int, type[BaseModel] | str]
    tag: str = "state"
    image: type[ImageInput] | None = None
    query: type[BaseModel] | None = None
    errors: Sequence[ErrorCode] = ()


_MANAGING: Final[tuple[ErrorCode, ...]] = (
    "forbidden",
    "not_found",
    "model_not_assigned",
    "model_unavailable",
    "runner_unavailable",
)

#: The routes that are not BentoML's APIs.
STATE: Final = (
    Operation(
        "get",
        "/health",
        "health",
        "How the service and each of its models is",
        {200: HealthResponse, 503: HealthResponse},
    ),
    Operation("get", "/livez", "livez", "Whether the process is alive", {200: AliveResponse}),
    Operation(
        "get",
        "/readyz",
        "readyz",
        "Whether the service may take traffic",
        {200: ReadyResponse, 503: NotReadyResponse},
    ),
    Operation("get", "/metrics", "metrics", "Metrics for Prometheus", {200: "text/plain"}),
    Operation("get", "/models/status", "models_status", "What is in memory", {200: ModelsStatusResponse}),
    Operation(
        "post",
        "/models/preload",
        "models_preload",
        "Load a model",
        {200: ModelChangedResponse},
        query=ModelNameInput,
        errors=(*_MANAGING, "invalid_request"),
    ),
    Operation(
        "post",
        "/models/{name}/unload",
        "models_unload",
        "Take a model out of memory until it is asked for",
        {200: ModelChangedResponse},
        errors=_MANAGING,
    ),
    Operation(
        "post",
        "/models/unload-all",
        "models_unload_all",
        "Take all models out of memory until they are asked for",
        {200: ModelsChangedResponse},
        errors=_MANAGING,
    ),
)


def analysis(apis: Mapping[str, Any]) -> tuple[Operation, ...]:
    """The routes that take an image. apis: those of a BentoML Service, by name."""
    errors = [code for code, status in STATUS.items() if status not in {403, 404}]
    return tuple(
        Operation(
            "post",
            api.route,
            name,
            api.doc,
            {200: _declared(api.output_spec)},
            "analysis",
            api.input_spec,
            None,
            errors,
        )
        for name, api in apis.items()
    )


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document of these routes, out of what can be sent as JSON."""
    images = list(dict.fromkeys(operation.image for operation in operations if operation.image))
    asked = dict.fromkeys(model for operation in operations if (model := operation.image or operation.query))
    answers = {model for operation in operations for model in operation.answers.values() if isinstance(model, type)}
    models = schemas(asked, answers | {ErrorResponse})
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
            {"name": "analysis", "description": "what an image shows"},
            {"name": "state", "description": "how the service is"},
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(models.items())),
            "requestBodies": {_name(model): image_body(_name(model)) for model in images},
            "responses": {f"Error{status}": _failure(codes) for status, codes in _by_status(used).items()},
            "headers": {name: _header(name, text) for name, text in _HEADERS.items()},
            "parameters": {name: _id_parameter(name, text) for name, text in _IDS.items()},
        },
    }


def _info() -> Schema:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return {
        "title": project["name"],
        "version": project["version"],
        "summary": project["description"],
        "description": _DESCRIPTION,
        "license": {"name": project["license"], "identifier": project["license"]},
    }


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
    if operation.image:
        described["requestBody"] = {"$ref": f"#/components/requestBodies/{_name(operation.image)}"}
    return described


def _responses(operation: Operation) -> Schema:
    described = {str(status): _answer(status, model) for status, model in operation.answers.items()}
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
    """The errors of one status, with examples as they are served."""
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
    """The model as it stands in api/schemas.py: BentoML derives one of its own from it."""
    return next(base for base in model.__mro__ if not base.__module__.startswith("_bentoml"))


def _name(model: type[BaseModel]) -> str:
    return model.__name__
