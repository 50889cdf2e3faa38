"""One trace per request: spans of its steps, below the one that BentoML's OpenTelemetry makes of the request."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any, Final

from bentoml._internal.configuration.containers import BentoMLContainer
from opentelemetry.trace import NoOpTracer, Tracer, get_current_span

from settings import Tracing
from tasks.task import Timing

# Asked by machines all the time. Regular expressions, searched for in the URL.
UNTRACED: Final = ("/health$", "/healthz$", "/livez$", "/readyz$", "/metrics$")


def bentoml_settings(tracing: Tracing) -> dict[str, Any]:
    """The service's `tracing` section for BentoML; without an endpoint nothing is exported."""
    if tracing.endpoint is None:
        return {}
    return {
        "exporter_type": "otlp",
        "sample_rate": tracing.sample_rate,
        "excluded_urls": list(UNTRACED),
        "otlp": {"protocol": "http", "endpoint": str(tracing.endpoint)},
    }


class Spans:
    """Makes the spans of one process's requests; each is a child of the span that is current where it is asked for."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @classmethod
    def of(cls, tracing: Tracing) -> Spans:
        """By the settings, where BentoML has set up its provider; costs nothing where tracing is off."""
        if tracing.endpoint is None:
            return cls(NoOpTracer())
        return cls(BentoMLContainer.tracer_provider.get().get_tracer(__name__))

    def describe(self, **attributes: str) -> None:
        """Attributes of the request's own span."""
        get_current_span().set_attributes({f"enrichment.{name}": value for name, value in attributes.items()})

    def step(self, name: str) -> AbstractContextManager[object]:
        """A span for as long as the block runs."""
        return self._tracer.start_as_current_span(name)

    def past(self, name: str, began: int) -> None:
        """A span of what has gone on since `began` (ns since the epoch)."""
        self._add(name, began, time.time_ns())

    def of_runner(self, sent: int, timing: Timing | None) -> None:
        """The spans of what a runner did with an item that was sent to it at `sent` (ns since the epoch).

        timing: None where no result came, of whatever reason; then all of the time since is one span, `unanswered`.
        """
        if timing is None:
            self._add("unanswered", sent, time.time_ns())
            return
        self._add("queue", sent, timing["taken"])
        self._add("load", timing["taken"], timing["loaded"])
        self._add("forward", timing["loaded"], timing["forwarded"], batch=timing["batch"], engine=timing["engine"])
        self._add("interpret", timing["forwarded"], timing["interpreted"])

    def _add(self, name: str, began: int, ended: int, **attributes: str | int) -> None:
        named = {f"enrichment.{key}": value for key, value in attributes.items()}
        self._tracer.start_span(name, start_time=began, attributes=named).end(ended)
