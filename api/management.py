"""The routes under /models: what is known of the models, and loading and unloading by request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from api.errors import ApiError, invalid_field, not_assigned
from api.health import LOADED, model_statuses, summary
from api.link import Link
from api.model_report import ModelReport, iso, resolve
from models.catalogue import CATALOGUE, ModelName
from models.state import ModelStatus, State

Action = Literal["load", "unload"]


class Management:
    """Answers the routes that load and unload, and /models/status.

    enabled: whether models can be loaded and unloaded by request. This needs the setting server.model_management and an
    API key: a page that somebody visits can make their browser send a POST, but not with a header.
    """

    def __init__(
        self, links: Sequence[Link], preload: Sequence[ModelName], *, enabled: bool, uptime_seconds: float
    ) -> None:
        self._links = links
        self._preload = preload
        self._enabled = enabled
        self._uptime_seconds = uptime_seconds

    def status(self) -> dict[str, Any]:
        """Return the body of GET /models/status. Figures are MB (10⁶ bytes) of GPU memory, 0 on a CPU."""
        alive = [link.status for link in self._links if link.status]
        on_gpu = [status for status in alive if status["device"]["index"] is not None]
        cards = {status["device"]["index"]: status["device"]["memory_gb"] or 0 for status in on_gpu}
        total = round(sum(cards.values()) * 1000)
        used = sum(status["memory"]["used_mb"] for status in on_gpu)
        statuses = model_statuses(self._links)
        return {
            "status": summary(statuses),
            "vram_total_mb": total,
            "vram_used_mb": used,
            "vram_available_mb": max(0, total - used),
            "vram_budget_mb": sum(status["memory"]["budget_mb"] or 0 for status in on_gpu),
            "loaded_models": [
                self._loaded(name, status, on_gpu=bool(on_gpu))
                for name, status in statuses.items()
                if status["state"] in LOADED
            ],
            "pending_loads": [
                CATALOGUE[name].weights for name, status in statuses.items() if status["state"] == State.LOADING
            ],
            "uptime_seconds": round(self._uptime_seconds, 1),
        }

    async def change(self, action: Action, sent_name: str) -> dict[str, Any]:
        """Load or unload one model, and wait for it.

        Raises ApiError: forbidden, not_found, model_not_assigned, runner_unavailable or model_unavailable.
        """
        self._check_enabled()
        name = resolve(sent_name)
        status = await self._link(name).manage(action, name)
        return _changed(name, status)

    async def unload_all(self) -> dict[str, Any]:
        """Unload every loaded model, one after the other. Raises ApiError as `change` does."""
        self._check_enabled()
        loaded = [name for name, status in model_statuses(self._links).items() if status["state"] in LOADED]
        done = [_changed(name, await self._link(name).manage("unload", name)) for name in loaded]
        return {"models": done}

    def _loaded(self, name: ModelName, status: ModelStatus, *, on_gpu: bool) -> dict[str, Any]:
        return {
            "name": CATALOGUE[name].weights,
            "loaded": True,
            "vram_mb": (status["memory_mb"] or 0) if on_gpu else 0,
            "priority": "preloaded" if name in self._preload else "on_demand",
            "last_used": iso(status["last_used"]),
        }

    def _link(self, name: ModelName) -> Link:
        link = next((link for link in self._links if name in link.models), None)
        if link is None:
            raise not_assigned(name)
        return link

    def _check_enabled(self) -> None:
        if not self._enabled:
            raise ApiError(
                "forbidden",
                "loading and unloading by request is off; an operator can set ENRICHMENT_MODEL_MANAGEMENT=true and "
                "ENRICHMENT_API_KEY",
            )


def routes() -> list[Route]:
    """Return the routes. `app.state.reports` makes the Management or ModelReport for each request."""
    return [
        Route("/models", _models, methods=["GET"]),
        _Reserved("/models/status", _status, methods=["GET"]),
        _Reserved("/models/preload", _preload, methods=["POST"]),
        _Reserved("/models/unload-all", _unload_all, methods=["POST"]),
        Route("/models/{name}", _model, methods=["GET"]),
        Route("/models/{name}/load", _load, methods=["POST"]),
        Route("/models/{name}/unload", _unload, methods=["POST"]),
    ]


class _Reserved(Route):
    """A route whose path is never read as a model's name, whatever the method."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), child_scope


async def _models(request: Request) -> Response:
    return JSONResponse(_report(request).all())


async def _model(request: Request) -> Response:
    return JSONResponse(_report(request).one(request.path_params["name"]))


async def _status(request: Request) -> Response:
    return JSONResponse(_management(request).status())


async def _preload(request: Request) -> Response:
    name = request.query_params.get("model_name")
    if name is None:
        raise invalid_field("model_name", f"missing: name one of {', '.join(CATALOGUE)} in the query string")
    return JSONResponse(await _management(request).change("load", name))


async def _load(request: Request) -> Response:
    return JSONResponse(await _management(request).change("load", request.path_params["name"]))


async def _unload(request: Request) -> Response:
    return JSONResponse(await _management(request).change("unload", request.path_params["name"]))


async def _unload_all(request: Request) -> Response:
    return JSONResponse(await _management(request).unload_all())


def _report(request: Request) -> ModelReport:
    report: ModelReport = request.app.state.reports.models()
    return report


def _management(request: Request) -> Management:
    management: Management = request.app.state.reports.management()
    return management


def _changed(name: ModelName, status: ModelStatus) -> dict[str, Any]:
    return {"name": CATALOGUE[name].weights, "loaded": status["state"] in LOADED, "state": status["state"]}
