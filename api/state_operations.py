"""The routes that are not BentoML's APIs, for the OpenAPI document."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from api.errors import ErrorCode
from api.model_schemas import ModelResponse, ModelsResponse
from api.openapi import Operation
from api.schemas import (
    AliveResponse,
    HealthResponse,
    KeyedHealthResponse,
    ModelChangedResponse,
    ModelNameInput,
    ModelsChangedResponse,
    ModelsStatusResponse,
    NotReadyResponse,
    ReadyResponse,
)

_MANAGING: Final[tuple[ErrorCode, ...]] = (
    "forbidden",
    "not_found",
    "model_not_assigned",
    "model_unavailable",
    "runner_unavailable",
)
_NAME: Final = "name: the model's name, its folder in the model zoo or its short name."

#: Paths without a name stand before those with one, which would match them.
STATE: Final = (
    Operation(
        "get",
        "/health",
        "health",
        "The state of the service and of each model",
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
    Operation("get", "/models", "models_list", "All models", {200: ModelsResponse}),
    Operation("get", "/models/status", "models_status", "The models in memory", {200: ModelsStatusResponse}),
    Operation(
        "post",
        "/models/preload",
        "models_preload",
        "Load a model\n\nAnother name of /models/{name}/load.",
        {200: ModelChangedResponse},
        query=ModelNameInput,
        errors=(*_MANAGING, "invalid_request"),
    ),
    Operation(
        "post",
        "/models/unload-all",
        "models_unload_all",
        "Unload all models until their next requests",
        {200: ModelsChangedResponse},
        errors=_MANAGING,
    ),
    Operation(
        "get",
        "/models/{name}",
        "models_get",
        f"One model: state, weights, device, queue and latency\n\n{_NAME}",
        {200: ModelResponse},
        errors=["not_found"],
    ),
    Operation(
        "post",
        "/models/{name}/load",
        "models_load",
        f"Load a model\n\nThe answer comes when it is loaded. {_NAME}",
        {200: ModelChangedResponse},
        errors=_MANAGING,
    ),
    Operation(
        "post",
        "/models/{name}/unload",
        "models_unload",
        f"Unload a model until its next request\n\n{_NAME}",
        {200: ModelChangedResponse},
        errors=_MANAGING,
    ),
)


def state(*, keyed: bool) -> tuple[Operation, ...]:
    """Return STATE. keyed: /health is short for callers without the API key."""
    health, *others = STATE
    return (replace(health, answers=dict.fromkeys(health.answers, KeyedHealthResponse)), *others) if keyed else STATE
