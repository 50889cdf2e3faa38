"""The bodies of GET /health and /readyz, built from the last heartbeat without a call to any runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.link import Link
from models.catalogue import CATALOGUE, ModelName
from models.state import ModelStatus, State

_DISABLED: Final[ModelStatus] = {
    "state": State.DISABLED,
    "engine": None,
    "precision": None,
    "weights": None,
    "untrained": False,
    "detail": "assigned to the heavy service",
    "input": None,
    "card": None,
    "memory_mb": None,
    "loads": 0,
    "last_used": None,
    "engine_build_failed": False,
    "last_error": None,
}
_GONE: Final[ModelStatus] = {
    **_DISABLED,
    "state": State.FAILED,
    "detail": "its runner is not running; it is being restarted",
}
LOADED: Final = frozenset({State.READY, State.BUILDING_ENGINE})  # while an engine is built, torch serves
_CAN_SERVE: Final = LOADED | {State.UNLOADED, State.LOADING}
_SHOWN: Final = ("state", "engine", "precision", "weights", "detail", "memory_mb", "loads", "engine_build_failed")


def model_statuses(links: Sequence[Link]) -> dict[ModelName, ModelStatus]:
    """Return the status of all five models.

    A model without a runner is disabled. A model whose runner is down has failed, and keeps its last known card.
    """
    statuses = dict.fromkeys(CATALOGUE, _DISABLED)
    for link in links:
        for name in link.models:
            statuses[name] = link.status["models"][name] if link.status else _gone(link, name)
    return statuses


def _gone(link: Link, name: ModelName) -> ModelStatus:
    if link.last_status is None:
        return _GONE
    known = link.last_status["models"][name]
    return {
        **_GONE,
        "untrained": known["untrained"],
        "input": known["input"],
        "card": known["card"],
        "last_error": known["last_error"],
    }


def is_ready(links: Sequence[Link]) -> bool:
    """Whether the service may take traffic.

    Every model to preload must be loaded or have failed, and at least one model must be able to serve.
    """
    settled = all(link.was_up and (link.settled or link.status is None) for link in links)
    return settled and summary(model_statuses(links)) != "unhealthy"


def readiness(links: Sequence[Link]) -> tuple[int, dict[str, Any]]:
    """Return HTTP status and body of /readyz: a 503 lists the state of each assigned model."""
    if is_ready(links):
        return 200, {"status": "ready"}
    statuses = model_statuses(links)
    states = {name: status["state"] for name, status in statuses.items() if status["state"] != State.DISABLED}
    return 503, {"status": "not_ready", "models": states}


def report(links: Sequence[Link], uptime_seconds: float) -> tuple[int, dict[str, Any]]:
    """Return HTTP status and body of /health (docs/reference/health.md)."""
    statuses = model_statuses(links)
    found = summary(statuses)
    alive = [link.status for link in links if link.status]
    body = {
        "status": found,
        "models_loaded": {name: status["state"] in LOADED for name, status in statuses.items()},
        "gpu_available": any(status["device"]["index"] is not None for status in alive),
        "gpu_memory_used_gb": gpu_memory_used_gb(links),
        "uptime_seconds": round(uptime_seconds, 1),
        "models": _models(statuses),
        "runners": [_runner(link) for link in links],
    }
    return (503 if found == "unhealthy" else 200), body


def gpu_memory_used_gb(links: Sequence[Link]) -> float:
    """Return the GPU memory of all runner processes in GB (10⁹ bytes); 0 on a CPU."""
    on_gpu = [link.status for link in links if link.status and link.status["device"]["index"] is not None]
    return round(sum(status["memory"]["used_mb"] for status in on_gpu) / 1000, 3)


def _models(statuses: Mapping[ModelName, ModelStatus]) -> dict[str, Any]:
    """Return the details of each model by its name, and whether it is loaded by its short name."""
    models: dict[str, Any] = {name: {key: status[key] for key in _SHOWN} for name, status in statuses.items()}
    return models | {CATALOGUE[name].short_name: status["state"] in LOADED for name, status in statuses.items()}


def _runner(link: Link) -> dict[str, Any]:
    status = link.status
    return {
        "name": link.name,
        "pid": status["pid"] if status else None,
        "restarts": link.restarts,
        "last_fault": link.last_fault,
        "device": status["device"] if status else None,
        "memory": status["memory"] if status else None,
    }


def summary(statuses: Mapping[ModelName, ModelStatus]) -> str:
    """Return `healthy`, `degraded` or `unhealthy` (docs/reference/health.md)."""
    assigned = [status for status in statuses.values() if status["state"] != State.DISABLED]
    able = [status for status in assigned if status["state"] in _CAN_SERVE and not _is_tried_again(status)]
    if not able:
        return "unhealthy"
    return "healthy" if len(able) == len(assigned) and not any(status["untrained"] for status in able) else "degraded"


def _is_tried_again(status: ModelStatus) -> bool:
    """Whether a model that has never loaded is being tried once more. It may fail again, so nobody may rely on it."""
    return status["state"] == State.LOADING and status["loads"] == 0 and status["last_error"] is not None
