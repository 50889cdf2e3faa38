"""The bodies of GET /models and /models/NAME, built from the last heartbeat without a call to any runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from api.answering import Activity
from api.errors import ApiError
from api.health import model_statuses
from api.link import Link
from models.card import ModelInput
from models.catalogue import CATALOGUE, NAMES, ModelName
from models.state import LastError, ModelStatus
from settings import Settings

_ALL: Final = ", ".join(f"{name} ({spec.short_name}, {spec.weights})" for name, spec in CATALOGUE.items())


class ModelReport:
    """Describes the models. activity: returns a model's queue and latency, None if it is not assigned."""

    def __init__(
        self, links: Sequence[Link], settings: Settings, activity: Callable[[ModelName], Activity | None]
    ) -> None:
        self._links = links
        self._settings = settings
        self._activity = activity

    def all(self) -> dict[str, Any]:
        """Return the body of GET /models: every model of the catalogue."""
        return {"models": [self._describe(name, status) for name, status in model_statuses(self._links).items()]}

    def one(self, sent_name: str) -> dict[str, Any]:
        """Return the body of GET /models/NAME. Raises ApiError not_found."""
        name = resolve(sent_name)
        return self._describe(name, model_statuses(self._links)[name])

    def _describe(self, name: ModelName, status: ModelStatus) -> dict[str, Any]:
        spec, card = CATALOGUE[name], status["card"]
        link = next((link for link in self._links if name in link.models), None)
        device = link.status["device"] if link and link.status else None
        activity = self._activity(name)
        return {
            "name": name,
            "short_name": spec.short_name,
            "title": spec.title,
            "route": spec.route,
            "state": status["state"],
            "detail": status["detail"],
            "last_error": _error(status["last_error"]),
            "engine": status["engine"],
            "precision": status["precision"],
            "device": {"name": device["name"], "index": device["index"]} if device else None,
            "memory_mb": status["memory_mb"],
            "weights": {
                "folder": spec.weights,
                "file": spec.file_names[0],
                "sha256": card["sha256"] if card else None,
                "source": card["source"] if card else None,
                "licence": card["licence"] if card else spec.licence,
                "homepage": spec.homepage,
                "untrained": status["untrained"] if card else None,
            },
            "labels": card["labels"] if card else None,
            "input": _size(status["input"]),
            "max_batch_size": self._settings.models[name].max_batch_size,
            "queue": activity.queue if activity else None,
            "recent_batches": link.batches[name].sizes if link else {},
            "loads": status["loads"],
            "last_used": iso(status["last_used"]),
            "latency_ms": activity.latency if activity else {"p50": None, "p95": None, "samples": 0},
        }


def resolve(sent_name: str) -> ModelName:
    """Return the model of a name that a caller sent. Raises ApiError not_found."""
    if sent_name not in NAMES:
        raise ApiError("not_found", f"there is no model {sent_name[:64]!r}; there are {_ALL}")
    return NAMES[sent_name]


def iso(seconds: float | None) -> str | None:
    """Return a time in ISO 8601, UTC. seconds: since the epoch."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _error(error: LastError | None) -> dict[str, Any] | None:
    return error and {"at": iso(error["at"]), "message": error["message"]}


def _size(model_input: ModelInput | None) -> dict[str, Any] | None:
    if model_input is None:
        return None
    return {"height": model_input["height"] or "any", "width": model_input["width"] or "any"}
