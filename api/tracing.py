"""Makes the spans of a request's steps, below the request's own span from BentoML's OpenTelemetry."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any, Final

from bentoml._internal.configuration.containers import BentoMLContainer
from opentelemetry.trace import NoOpTracer, Tracer, get_current_span

from settings import Tracing
from tasks.task import Timing

# Machines poll these routes all the time. Regular expressions, searched for in the URL.
UNTRACED: Final = ("/health$", "/healthz$", "/livez$", "/readyz$", "/metrics$")


def bentoml_settings(tracing: Tracing) -> dict[str, Any]:
    """Return the service's `tracing` section for BentoML. Without an endpoint nothing is exported."""
    if tracing.endpoint is None:
        return {}
    return {
        "exporter_type": "otlp",
        "sample_rate": tracing.sample_rate,
        "excluded_urls": list(UNTRACED),
        "otlp": {"protocol": "http", "endpoint": str(tracing.endpoint)},
    }


class Spans:
    """Makes spans in one process. Each span is a child of the current one."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @classmethod
    def of(cls, tracing: Tracing) -> Spans:
        """Make a Spans by the settings, after BentoML has set up its tracer. Without an endpoint it costs nothing."""
        if tracing.endpoint is None:
            return cls(NoOpTracer())
        return cls(BentoMLContainer.tracer_provider.get().get_tracer(__name__))

    def describe(self, **attributes: str) -> None:
        """Set attributes of the request's own span."""
        get_current_span().set_attributes({f"enrichment.{name}": value for name, value in attributes.items()})

    def step(self, name: str) -> AbstractContextManager[object]:
        """Return a span that lasts as long as the block."""
        return self._tracer.start_as_current_span(name)

    def past(self, name: str, began: int) -> None:
        """Add a span from `began` (ns of time.monotonic_ns()) until now."""
        self._add(_epoch(), name, began, time.monotonic_ns())

    def of_runner(self, sent: int, timing: Timing | None) -> None:
        """Add the spans of a runner's work on an item that was sent at `sent` (ns of time.monotonic_ns()).

        timing: None if no result came; then one span, `unanswered`, covers the whole time.
        """
        epoch = _epoch()
        if timing is None:
            self._add(epoch, "unanswered", sent, time.monotonic_ns())
            return
        self._add(epoch, "queue", sent, timing["taken"])
        self._add(epoch, "load", timing["taken"], timing["loaded"])
        batch, engine = timing["batch"], timing["engine"]
        self._add(epoch, "forward", timing["loaded"], timing["forwarded"], batch=batch, engine=engine)
        self._add(epoch, "interpret", timing["forwarded"], timing["interpreted"])

    def _add(self, epoch: int, name: str, began: int, ended: int, **attributes: str | int) -> None:
        named = {f"enrichment.{key}": value for key, value in attributes.items()}
        self._tracer.start_span(name, start_time=epoch + began, attributes=named).end(epoch + ended)


def _epoch() -> int:
    """Return the ns to add to time.monotonic_ns() for time.time_ns(), which spans use.

    A pause between the two clocks makes the difference too small, so the largest of three counts.
    """
    return max(time.time_ns() - time.monotonic_ns() for _ in range(3))
