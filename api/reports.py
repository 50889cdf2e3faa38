"""The service's reports on itself: /health, /readyz, the gauges, and the routes under /models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from api import health, metrics
from api.answering import Activity
from api.link import Link
from api.management import Management
from api.model_report import ModelReport
from models.catalogue import ModelName
from settings import Settings


class Reports:
    """Reports the state of the runners as of the last heartbeat."""

    def __init__(self, settings: Settings) -> None:
        self.links: Sequence[Link] = ()  # one for each runner service, once they are connected
        self.activity: Callable[[ModelName], Activity | None] = lambda _: None  # Answering's, once it is there
        self._settings = settings
        self._started = time.monotonic()
        self._can_manage = settings.server.model_management and bool(settings.server.keys)

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """Return HTTP status and body of GET /readyz."""
        return health.readiness(self.links)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return HTTP status and body of GET /health."""
        return health.report(self.links, self._uptime_s)

    def models(self) -> ModelReport:
        """Return the ModelReport that describes the models."""
        return ModelReport(self.links, self._settings, self.activity)

    def management(self) -> Management:
        """Return the Management that loads and unloads models."""
        return Management(self.links, self._settings.preload, enabled=self._can_manage, uptime_seconds=self._uptime_s)

    def publish(self) -> None:
        """Set the gauges. Called after each heartbeat."""
        _, report = health.report(self.links, 0)
        metrics.set_gauges(report)

    @property
    def _uptime_s(self) -> float:
        return time.monotonic() - self._started
