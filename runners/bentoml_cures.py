"""Cures for defects of the pinned BentoML, each guarded by a test in tests/runners/test_bentoml_cures.py.

The third and fourth of the known defects are cured where they bite: the keep-alive race in api/link.py, results of the
wrong length in runners/runner.py.
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

UNMATCHED: Final = "unmatched"  # the endpoint of requests for paths that no route has

# BentoML closes the session between two services after 100 requests or 300 s, with other calls still on it: 5 % of the
# requests fail at concurrency 8, 26 % at 32. Numbers that are never reached. The age must be a float.
RUNNER_CONNECTION: Final[dict[str, Any]] = {"max_requests": 2**31, "max_age": 1e9}


class Dispatch:
    """How many batches of a model are under way at a time, at most. To be set before the first call."""

    batches_at_a_time: ClassVar[int] = 1


async def dispatch_promptly(self: CorkDispatcher[Any, Any]) -> None:
    """CorkDispatcher.controller without what holds calls back: what is queued when a place becomes free is a batch.

    The original waits for company on purpose during its first calls, which it calls training, and later for as long as
    batches have waited on average, its own waits among them: a 7 ms call took 180 ms after a burst of 32, and 67 ms a
    minute later. While a batch runs it looks a thousand times a second whether it has ended.
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
    """The route of a request, as it is written in the code: `/models/{name}`; UNMATCHED where no route has its path.

    What is labelled by it stays bounded, whatever clients ask for.
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
    """BentoML's middleware that counts requests, by their route.

    The original labels them by the path that was asked for and keeps about 20 series of each for ever: after 3,000
    paths that do not exist a scrape took 12.5 s instead of 0.1, and the process had grown by 207 MB.
    """

    _last: ClassVar[BoundedMetrics | None] = None  # a process has one

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        super().__init__(self._forward, **options)
        self._served = app
        BoundedMetrics._last = self

    @classmethod
    def begin(cls, endpoint: str) -> None:
        """A request is in progress that is answered outside of this middleware, where BentoML counts at all."""
        if cls._last is not None:
            if not cls._last._is_setup:
                cls._last._setup()
            cls._last._in_progress(endpoint).inc()
            cls._last._last_request().set_to_current_time()

    @classmethod
    def end(cls, endpoint: str, status: int | None, seconds: float) -> None:
        """Count it as answered. status: None where its client had gone."""
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

    @cache  # noqa: B019 - a process has one
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
    """BentoML's histogram of batch sizes, of a runner in this process: BentoML keeps it of its own dispatcher alone."""
    return _batch_sizes().labels(
        runner_name=runner,
        worker_index=server_context.worker_index,
        method_name=method,
        service_version=server_context.bento_version,
        service_name=server_context.bento_name,
    )


class FreshTraces(OpenTelemetryMiddleware):
    """The middleware that makes a request's span, without what the request before has left behind.

    uvicorn starts the next request of a kept connection from within the one that ends, and so with its span as the
    current one: all requests of a connection became one trace. And where nothing is traced it makes no spans at all:
    BentoML records each request whatever the sampling, which costs a tenth of a short one. A span is named by the
    request's route, as backends keep an index of names.
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
    """PrometheusClient.generate_latest without the gauges of processes that have ended; what they counted stays."""
    with _scrape:
        try:
            metric_files.fold(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        except OSError:  # a full disk must not take the metrics away as well
            logger.exception("the metrics of ended processes could not be merged")
        text: bytes = _generate_latest(self)  # type: ignore[no-untyped-call]
        return text


class ApiServer(Config):
    """The configuration of the API's HTTP server, see `serve_api`. A runner's server keeps BentoML's.

    BentoML gives uvicorn 5 s for `timeout_keep_alive`, as long as many clients keep their connections: 9 of 200 calls
    met one that was just being closed.
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
    """Make BentoML use these from now on. To be called before it builds the service."""
    FreshTraces.tracing = tracing
    CorkDispatcher.controller = dispatch_promptly  # type: ignore[method-assign]
    asgi.OpenTelemetryMiddleware = FreshTraces  # type: ignore[misc,assignment]
    instruments.RunnerTrafficMetricsMiddleware = BoundedMetrics  # type: ignore[misc,assignment]
    PrometheusClient.generate_latest = generate_latest  # type: ignore[method-assign]


def runners_by_unix_sockets() -> bool:
    """Have BentoML reach runner processes by unix sockets, and say whether it can, in the supervisor that calls this.

    Runners unpickle what they get: by a TCP port any user of the machine could run code in them. A socket lies in a
    folder that is its owner's alone. BentoML takes ports on WSL, whose second version has such sockets as any Linux.
    """
    from _bentoml_impl.server import serving  # the supervisor has it already, and nobody else needs it

    serving.IS_WSL = False
    return not serving.WINDOWS and "BENTOML_NO_UDS" not in os.environ


def start_no_runners(service: bentoml.Service[Any]) -> None:
    """Have BentoML start no process for the runners that a service depends on, in the supervisor that calls this.

    It leaves out dependencies that are reached by a URL.
    """
    for dependency in service.dependencies.values():
        dependency.url = "embedded"


def embed(service: bentoml.Service[Any]) -> dict[str, Any]:
    """Name → each runner that a service depends on, made in this process.

    BentoML makes dependencies that have no process itself, but one for each attribute that names it.
    """
    made: dict[str, Any] = {}
    for dependency in service.dependencies.values():
        runner = dependency.on
        assert runner is not None
        if runner.name not in made:
            made[runner.name] = runner()
        dependency._resolved = made[runner.name]
    return made


def serve_api(wrap: Callable[[Any], ASGIApp], **options: Any) -> None:
    """Have the API's server, however it is started, serve the wrapped app with these options of uvicorn.Config.

    `timeout_keep_alive` among them counts where the command line does not give it.
    """
    ApiServer.wrap = staticmethod(wrap)
    ApiServer.options = options
    uvicorn.Config = ApiServer  # type: ignore[misc,assignment]
