"""Workarounds for defects of the pinned BentoML, each with a test in tests/runners/test_bentoml_cures.py.

Others stand where they are needed: see docs/develop/decisions/0005-patched-framework.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import bentoml
import click
import uvicorn
from bentoml import serving
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.marshal.dispatcher import CorkDispatcher
from bentoml._internal.server.http import instruments
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from bentoml._internal.server.metrics.prometheus import PrometheusClient
from click.core import ParameterSource
from opentelemetry import context
from opentelemetry.instrumentation import asgi
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config

from runners import metric_files

logger = logging.getLogger("bentoml.enrichment.metrics")  # BentoML gives handlers to its own namespace only

UNMATCHED: Final = "unmatched"  # the endpoint label of requests that match no route

# BentoML closes the session between two services after 100 requests or 300 s. Calls still on it fail. These limits are
# never reached. The age must be a float.
RUNNER_CONNECTION: Final[dict[str, Any]] = {"max_requests": 2**31, "max_age": 1e9}


class Dispatch:
    """The largest number of concurrent batches of a model. Set it before the first call."""

    batches_at_a_time: ClassVar[int] = 1


async def dispatch_promptly(self: CorkDispatcher[Any, Any]) -> None:
    """Replace CorkDispatcher.controller: as soon as a slot is free, all queued calls become one batch.

    The original delays its first calls to train a model of latency. Later it waits for the average wait of earlier
    batches, which includes its own delays. It also polls a running batch a thousand times a second.
    """
    free = asyncio.Semaphore(Dispatch.batches_at_a_time)
    self._sema = free  # type: ignore[assignment] # outbound_call releases it
    running: set[asyncio.Task[None]] = set()
    while True:
        await free.acquire()
        async with self._wake_event:
            await self._wake_event.wait_for(self._queue.__len__)
        task = asyncio.create_task(self.outbound_call(tuple(self._get_inputs())))
        running.add(task)
        task.add_done_callback(running.discard)


def endpoint(scope: Scope) -> str:
    """The route template of a request, such as `/models/{name}`; UNMATCHED if no route matches.

    Used as a label, it keeps the number of series bounded, whatever paths clients request.
    """
    return _route(scope["app"].routes, scope) or UNMATCHED


def _route(routes: Sequence[BaseRoute], scope: Scope) -> str | None:
    for route in routes:
        match, child_scope = route.matches(scope)
        if match is Match.NONE or not isinstance(route, Mount | Route):
            continue
        if isinstance(route, Route):
            return route.path
        return route.path + (_route(route.routes, {**scope, **child_scope}) or "")
    return None


class BoundedMetrics(RunnerTrafficMetricsMiddleware):
    """BentoML's metrics middleware, with the request's route as the label `endpoint`.

    The original uses the requested path and keeps about 20 series for each path forever. Requests for many paths that
    do not exist would slow down scrapes and fill the memory.
    """

    _last: ClassVar[BoundedMetrics | None] = None  # each process has only one

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        super().__init__(self._forward, **options)
        self._served = app
        BoundedMetrics._last = self

    @classmethod
    def begin(cls, endpoint: str) -> None:
        """Count a request in progress that is answered outside this middleware. Without metrics, do nothing."""
        if cls._last is not None:
            if not cls._last._is_setup:
                cls._last._setup()
            cls._last._in_progress(endpoint).inc()
            cls._last._last_request().set_to_current_time()

    @classmethod
    def end(cls, endpoint: str, status: int | None, seconds: float) -> None:
        """Count that request as answered, after `seconds`. status: HTTP status; None if the client had gone."""
        if cls._last is not None:
            cls._last._in_progress(endpoint).dec()
            if status is not None:
                cls._last._count(endpoint, status, seconds)

    def _count(self, endpoint: str, status: int, seconds: float) -> None:
        total, duration = self._of(endpoint, status)
        total.inc()
        duration.observe(seconds)

    @cached_property
    def _labels(self) -> dict[str, Any]:
        context = server_context
        return {
            "service_name": context.bento_name,
            "service_version": context.bento_version,
            "runner_name": context.service_name,
        }

    @cache  # noqa: B019 - each process has only one
    def _last_request(self) -> Any:
        return self.metrics_last_request_timestamp.labels(**self._labels)

    @cache  # noqa: B019 - as above
    def _in_progress(self, endpoint: str) -> Any:
        return self.metrics_request_in_progress.labels(**self._labels, endpoint=endpoint)

    @cache  # noqa: B019 - as above
    def _of(self, endpoint: str, status: int) -> tuple[Any, Any]:
        labels = {**self._labels, "endpoint": endpoint, "http_response_code": status}
        return self.metrics_request_total.labels(**labels), self.metrics_request_duration.labels(**labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See RunnerTrafficMetricsMiddleware."""
        if scope["type"] == "lifespan":
            await self._served(scope, receive, send)
            return
        await super().__call__({**scope, "path": endpoint(scope), "enrichment.asked": scope}, receive, send)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._served(scope["enrichment.asked"], receive, send)


@cache
def _batch_sizes() -> Any:
    return BentoMLContainer.metrics_client.get().Histogram(
        namespace="bentoml_service",
        name="adaptive_batch_size",
        documentation="Service adaptive batch size",
        labelnames=["runner_name", "worker_index", "method_name", "service_version", "service_name"],
        buckets=[1, 2, 4, 8],
    )


@cache
def batch_size_of(runner: str, method: str) -> Any:
    """BentoML's histogram of batch sizes, for an embedded runner. BentoML itself fills it only in its dispatcher."""
    return _batch_sizes().labels(
        runner_name=runner,
        worker_index=server_context.worker_index,
        method_name=method,
        service_version=server_context.bento_version,
        service_name=server_context.bento_name,
    )


class FreshTraces(OpenTelemetryMiddleware):
    """The middleware for request spans, with a new trace for each request.

    On a kept connection, uvicorn starts the next request within the context of the one before. So all requests of a
    connection would share a trace. Without tracing, this middleware makes no spans; BentoML would record them anyway,
    whatever the sampling. A span's name is the request's route, because backends keep an index of names.
    """

    tracing: ClassVar[bool] = False

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        super().__init__(app, **{**options, "default_span_details": _span_details})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See OpenTelemetryMiddleware."""
        if not self.tracing:
            await self.app(scope, receive, send)
            return
        token = context.attach(context.Context())
        try:
            await super().__call__(scope, receive, send)
        finally:
            context.detach(token)


def _span_details(scope: Scope) -> tuple[str, dict[str, Any]]:
    return asgi.get_default_span_details({**scope, "path": endpoint(scope)})


_scrape: Final = threading.Lock()  # BentoML answers scrapes on threads
_generate_latest: Final = PrometheusClient.generate_latest


def generate_latest(self: PrometheusClient) -> bytes:
    """PrometheusClient.generate_latest without the gauges of ended processes. Their counters stay."""
    with _scrape:
        try:
            folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
            folder.mkdir(parents=True, exist_ok=True)
            metric_files.fold(folder)
        except OSError:  # metrics must survive a full disk
            logger.exception("the metrics of ended processes could not be merged; they are served as they are")
        text: bytes = _generate_latest(self)  # type: ignore[no-untyped-call]
        return text


class ApiServer(Config):
    """uvicorn's configuration for the API's HTTP server, see `serve_api`. Runners keep BentoML's configuration.

    BentoML sets `timeout_keep_alive` to 5 s, as long as many clients keep their connections. Such clients then send
    requests on a connection that is just being closed.
    """

    wrap: ClassVar[Callable[[Any], ASGIApp]]
    options: ClassVar[Mapping[str, Any]]

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        if server_context.service_type == "entry_service":
            app = type(self).wrap(app)
            given = click.get_current_context().get_parameter_source("timeout_keep_alive")
            asked = {"timeout_keep_alive"} if given is ParameterSource.COMMANDLINE else set()
            options |= {name: value for name, value in self.options.items() if name not in asked}
        super().__init__(app, **options)


def install(*, tracing: bool) -> None:
    """Patch BentoML with these workarounds. Call it before BentoML builds the service."""
    FreshTraces.tracing = tracing
    CorkDispatcher.controller = dispatch_promptly  # type: ignore[method-assign]
    asgi.OpenTelemetryMiddleware = FreshTraces  # type: ignore[misc,assignment]
    instruments.RunnerTrafficMetricsMiddleware = BoundedMetrics  # type: ignore[misc,assignment]
    PrometheusClient.generate_latest = generate_latest  # type: ignore[method-assign]
    # BentoML's own empties the folder, though another server on this BENTOML_HOME may use it.
    place = BentoMLContainer.prometheus_multiproc_dir.get
    serving.ensure_prometheus_dir = lambda: metric_files.own_folder(Path(place()))  # type: ignore[assignment,misc]


def runners_by_unix_sockets() -> bool:
    """Make BentoML reach runner processes by unix sockets, and return whether it will. Call it in the supervisor.

    Runners unpickle their calls, so a TCP port would let any user of the machine run code in them. Only the owner can
    open the socket's folder. BentoML uses ports on WSL, although WSL 2 has unix sockets.
    """
    from _bentoml_impl.server import serving as starting  # only the supervisor needs it, and has it loaded already

    starting.IS_WSL = False
    return not starting.WINDOWS and "BENTOML_NO_UDS" not in os.environ


def start_no_runners(service: bentoml.Service[Any]) -> None:
    """Keep BentoML from starting processes for the runners of a service. Call it in the supervisor.

    BentoML starts no process for a dependency with a URL.
    """
    for dependency in service.dependencies.values():
        dependency.url = "embedded"


def embed(service: bentoml.Service[Any]) -> dict[str, Any]:
    """Make the runners that a service depends on in this process. Returns name → runner.

    BentoML would make a separate instance for each attribute that names the same runner.
    """
    made: dict[str, Any] = {}
    for dependency in service.dependencies.values():
        runner = dependency.on
        assert runner is not None
        if runner.name not in made:
            made[runner.name] = runner()
        dependency._resolved = made[runner.name]
    return made


def serve_api(wrap: Callable[[Any], ASGIApp], server: type[uvicorn.Server], **options: Any) -> None:
    """Make the API's server serve the wrapped app with these options of uvicorn.Config, however it is started.

    On the command line, `timeout_keep_alive` takes precedence.
    """
    ApiServer.wrap = staticmethod(wrap)
    ApiServer.options = options
    uvicorn.Config = ApiServer  # type: ignore[misc,assignment]
    uvicorn.Server = server  # type: ignore[misc]
