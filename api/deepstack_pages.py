"""The routes of DeepStack and CodeProject.AI without inference, and the description of all of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.deepstack_shapes import (
    ASKED,
    CUSTOM,
    LIST_ROUTE,
    PING_ROUTES,
    PREFIX,
    UPDATE_ROUTES,
    CustomModelsResponse,
    DetectionInput,
    DetectionResponse,
    PingResponse,
    Refusal,
    UpdateResponse,
)
from api.errors import ApiError, internal_error
from api.openapi import Operation, project
from models.catalogue import CATALOGUE
from settings import SERVICE_NAME, Settings

_NOT_OURS: Final = ("face", "scene")  # below /v1/vision
_BOTH: Final = ("GET", "POST")


def routes(settings: Settings) -> list[Route]:
    """Return the routes below /v1/. Without the setting server.deepstack all of them answer 403."""
    if not settings.server.deepstack:
        return [Route(f"{PREFIX}{{path:path}}", _off, methods=_BOTH)]
    models = CustomModelsResponse(models=[CATALOGUE[name].short_name for name in CUSTOM if name in settings.assigned()])

    async def listed(_: Request) -> Response:
        return _answer(models)

    return [
        *(Route(path, _answered_before, methods=["POST"]) for path in ASKED),
        Route(LIST_ROUTE, listed, methods=_BOTH),
        *(Route(path, _ping, methods=["GET"]) for path in PING_ROUTES),
        *(Route(path, _update, methods=["GET"]) for path in UPDATE_ROUTES),
        *(Route(f"/v1/vision/{name}", _not_offered, methods=_BOTH) for name in _NOT_OURS),
        *(Route(f"/v1/vision/{name}/{{what:path}}", _not_offered, methods=_BOTH) for name in _NOT_OURS),
    ]


async def _off(_: Request) -> Response:
    raise ApiError("forbidden", "the DeepStack routes are off; an operator can set ENRICHMENT_DEEPSTACK=true")


async def _answered_before(_: Request) -> Response:
    """Give an inference route its name in errors and metrics. The front answers its requests before they get here."""
    raise internal_error()


async def _ping(_: Request) -> Response:
    message = f"{SERVICE_NAME} is alive"
    return _answer(PingResponse(code=200, message=message, version=project()["version"], hostname=SERVICE_NAME))


async def _update(_: Request) -> Response:
    message = "this service does not look for newer versions"
    return _answer(UpdateResponse(message=message, version=project()["version"], update_available=False))


async def _not_offered(_: Request) -> Response:
    offered = ", ".join(ASKED)
    raise ApiError("forbidden", f"this service does not recognise faces or scenes; its routes are {offered}")


def _answer(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


# ── the OpenAPI document ──

_OF_INFERENCE: Final = (400, 403, 408, 429, 503)


def operations() -> tuple[Operation, ...]:
    """Return the descriptions of the routes that answer more than a 403."""
    inferred = _answers(DetectionResponse, *_OF_INFERENCE)
    listed = _answers(CustomModelsResponse)
    found = [Operation("post", path, _name(path), _asks(path), inferred, "deepstack", DetectionInput) for path in ASKED]
    found += [
        Operation("get", LIST_ROUTE, "v1_custom_list", "The custom models", listed, "deepstack"),
        Operation("post", LIST_ROUTE, "v1_custom_list_by_post", "The custom models", listed, "deepstack"),
    ]
    for paths, summary, answer in (
        (PING_ROUTES, "Whether the service is alive", PingResponse),
        (UPDATE_ROUTES, "Whether there is a newer version", UpdateResponse),
    ):
        found += [Operation("get", path, _name(path), summary, _answers(answer), "deepstack") for path in paths]
    return tuple(found)


def _answers(answer: type[BaseModel], *failures: int) -> Mapping[int, type[BaseModel]]:
    return {200: answer, **dict.fromkeys((*failures, 405, 500), Refusal)}


def _name(path: str) -> str:
    return path.strip("/").replace("/", "_")


def _asks(path: str) -> str:
    return f"Labels and boxes from {' and '.join(ASKED[path])}"
