"""BentoML's defects; tests of the third and fourth are in tests/api/test_remote.py and test_batches.py.

Where a test shows the defect itself, it is there to say when a new BentoML has mended it and the cure can go.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from statistics import median
from types import MethodType
from typing import Any, Final, Literal

import pytest
from _bentoml_impl.client import RemoteProxy
from _bentoml_impl.client.proxy2 import SessionManager
from _bentoml_impl.server.app import ServiceAppFactory
from _bentoml_impl.server.mount import PassiveMount
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.marshal import dispatcher
from bentoml._internal.server.http import instruments
from bentoml._internal.server.metrics.prometheus import PrometheusClient
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

import runners
from models.catalogue import CATALOGUE
from runners import bentoml_cures
from runners.bentoml_cures import (
    RUNNER_CONNECTION,
    BoundedMetrics,
    Dispatch,
    FreshTraces,
    dispatch_promptly,
)
from settings import DEFAULT_FILE, load


def as_shipped(name: str) -> Any:
    """A module of BentoML's once more, without what runners.compose has put into the one in use."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ORIGINAL: Controller = as_shipped(dispatcher.__name__).CorkDispatcher.controller
PLACEMENTS = pytest.mark.parametrize("placement", ["shared", "isolated"])
Placement = Literal["shared", "isolated"]
Controller = Callable[[dispatcher.CorkDispatcher[Any, Any]], Coroutine[Any, Any, None]]
Call = Callable[[int], Awaitable[Any]]
Infer = Callable[[Sequence[Sequence[int]]], Coroutine[Any, Any, Sequence[Sequence[int]]]]


@pytest.fixture(autouse=True)
def bentoml_configuration() -> Iterator[None]:
    """BentoML keeps the configuration of the last service in a global: leave it as it was."""
    before = BentoMLContainer.config.get()
    yield
    BentoMLContainer.config.set(before)


def services(placement: Placement) -> list[Any]:
    """The runner services as the API depends on them, configured as BentoML's workers do it."""
    composed = runners.compose(load(DEFAULT_FILE, {"ENRICHMENT_PLACEMENT": placement}))
    assert set(composed) == set(CATALOGUE)
    return list({service.name: service for service in composed.values()}.values())


# ── 1: internal calls die about every 100 requests ──


@PLACEMENTS
def test_every_runner_service_carries_the_numbers(placement: Placement) -> None:
    found = services(placement)
    assert len(found) == (1 if placement == "shared" else 5)
    for service in found:
        assert service.config["runner_connection"] == RUNNER_CONNECTION
        assert isinstance(service.config["runner_connection"]["max_age"], float)  # BentoML refuses an int


@PLACEMENTS
def test_the_proxy_to_each_runner_takes_them_over(placement: Placement) -> None:
    for service in services(placement):
        service.inject_config()
        sessions = RemoteProxy("tcp://127.0.0.1:1", service=service).to_async._session_manager
        assert (sessions.max_requests, sessions.max_age) == (2**31, 1e9)


async def test_a_session_with_them_is_never_closed_under_other_calls() -> None:
    sessions = SessionManager("http://127.0.0.1:1", 1, {}, **RUNNER_CONNECTION)
    first = await sessions.get_session()
    for _ in range(1000):
        assert await sessions.get_session() is first
    sessions._created_at -= 365 * 86400
    assert await sessions.get_session() is first
    assert not first.closed
    await sessions.close()


async def test_the_defect_is_there_a_session_is_closed_after_100_requests() -> None:
    sessions = SessionManager("http://127.0.0.1:1", 1, {})
    first = await sessions.get_session()
    for _ in range(101):
        await sessions.get_session()
    assert first.closed
    await sessions.close()


# ── 2: adaptive batching holds requests back ──


@PLACEMENTS
def test_every_dispatcher_of_a_composed_service_uses_it(placement: Placement) -> None:
    seen = Counter[str]()
    for service in services(placement):
        service.inject_config()
        for name, found in ServiceAppFactory(service).dispatchers.items():
            assert found.controller.__func__ is dispatch_promptly
            seen[name] += 1
    assert seen == Counter(list(CATALOGUE))


@contextmanager
def dispatching(
    controller: Controller, sizes: list[int], other: Infer | None = None
) -> Iterator[tuple[Call, dispatcher.Optimizer]]:
    """A call of 10 ms with an item, through a dispatcher with this controller; `sizes` gets those of its batches.

    other: what is done in place of that.
    """

    async def infer(jobs: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        sizes.append(len(jobs))
        await asyncio.sleep(0.01)
        if jobs[0] == [13]:
            raise ValueError("thirteen")
        return jobs

    cork: dispatcher.CorkDispatcher[Any, Any] = dispatcher.CorkDispatcher(
        300_000, 8, fallback=lambda: None, get_batch_size=len
    )
    cork.controller = MethodType(controller, cork)  # type: ignore[method-assign]
    call = cork(other or infer)
    try:
        yield lambda item: call([item]), cork.optimizer
    finally:
        cork.shutdown()


async def lone(call: Call, times: int) -> float:
    """The median of the seconds of so many calls, one after the other."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        await call(1)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


async def first_calls(call: Call) -> float:
    """The longest of the first sixteen calls, in seconds, but for one in a row: a stall of the machine is not ours."""
    seconds = [await lone(call, 1) for _ in range(16)]
    return max(min(pair) for pair in itertools.pairwise(seconds))


async def after_a_burst(controller: Controller) -> tuple[float, list[int]]:
    """Seconds of a lone call after a burst of 128, and the batch sizes of the next burst."""
    sizes: list[int] = []
    with dispatching(controller, sizes) as (call, optimizer):
        await lone(call, 15)  # the original's training
        for _ in range(3):
            await asyncio.gather(*(call(1) for _ in range(128)))
        optimizer.trigger_refresh()  # type: ignore[no-untyped-call] # it does every five seconds
        seconds = await lone(call, 5)
        sizes.clear()
        await asyncio.gather(*(call(1) for _ in range(64)))
        return seconds, sizes


async def test_a_lone_call_after_a_burst_is_not_held_back_and_batches_still_form() -> None:
    tries = [await after_a_burst(dispatch_promptly) for _ in range(3)]  # on a busy machine
    seconds, sizes = min(tries, key=lambda tried: tried[0])
    assert seconds < 0.045
    assert sum(sizes) == 64
    assert max(sizes) == 8


async def test_the_defect_is_there_a_lone_call_after_a_burst_is_held_back() -> None:
    held_back, _ = await after_a_burst(ORIGINAL)
    assert held_back > 0.045


async def test_the_first_calls_are_not_held_back() -> None:
    best = 1.0
    for _ in range(5):  # on a busy machine; the defect trains each dispatcher anew
        with dispatching(dispatch_promptly, []) as (call, _):
            best = min(best, await first_calls(call))
    assert best < 0.015


async def test_the_defect_is_there_some_of_the_first_calls_are_held_back_as_training() -> None:
    with dispatching(ORIGINAL, []) as (call, _):
        assert await first_calls(call) > 0.015


@pytest.mark.parametrize("at_a_time", [1, 2])
async def test_a_batch_that_fails_is_its_own_callers_affair(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dispatch, "batches_at_a_time", at_a_time)
    with dispatching(dispatch_promptly, []) as (call, _):
        async with asyncio.timeout(20):
            for _ in range(3):  # and takes nobody's place with it
                failed, *_ = await asyncio.gather(call(13), return_exceptions=True)
                assert isinstance(failed, ValueError)
                assert await call(1) == [1]


@pytest.mark.parametrize("at_a_time", [1, 2, 3])
async def test_so_many_batches_are_under_way_at_a_time(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dispatch, "batches_at_a_time", at_a_time)
    now, most, sizes = 0, 0, []

    async def infer(jobs: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        sizes.append(len(jobs))
        await asyncio.sleep(0.01)
        now -= 1
        return jobs

    with dispatching(dispatch_promptly, [], infer) as (call, _):
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(call(item) for item in range(100)))
    assert answers == [[item] for item in range(100)]
    assert most == at_a_time
    assert max(sizes) == 8


def test_a_batch_may_wait_longer_than_any_request() -> None:
    # BentoML drops what it expects to take longer than max_latency_ms: the API's own timeout must come first.
    for service in services("shared"):
        service.inject_config()
        for found in ServiceAppFactory(service).dispatchers.values():
            assert found.max_latency >= 10 * load(DEFAULT_FILE, {}).limits.request_timeout_s


# ── what is counted and named by the path ──


@PLACEMENTS
def test_the_app_of_each_service_counts_and_traces_by_these(placement: Placement) -> None:
    for service in services(placement):
        service.inject_config()
        classes = [middleware.cls for middleware in ServiceAppFactory(service).middlewares]
        assert BoundedMetrics in classes
        assert FreshTraces in classes


def answer(_: Any) -> PlainTextResponse:
    return PlainTextResponse("yes")


def app_of(*middlewares: Middleware) -> Starlette:
    inner = Starlette(routes=[Route("/health", answer), Route("/", answer)])
    routes = [
        Route("/pose-analyze", answer, methods=["POST"]),
        Route("/models/status", answer),
        Route("/models/{name}", answer),
        PassiveMount("/", inner),
        Mount("/files", StaticFiles(directory=Path(__file__).parent)),
    ]
    return Starlette(routes=routes, middleware=list(middlewares))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/pose-analyze", "/pose-analyze"),
        ("/models/status", "/models/status"),
        ("/models/a", "/models/{name}"),
        ("/models/" + "b" * 500, "/models/{name}"),
        ("/models/a/b", "unmatched"),
        ("/health", "/health"),
        ("/", "/"),
        ("/files/a", "/files"),
        ("/files/a/b/c", "/files"),
        ("/nope", "unmatched"),
        ("*", "unmatched"),
        ("", "unmatched"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "BREW"])
def test_a_request_is_labelled_by_the_route_that_has_its_path(path: str, expected: str, method: str) -> None:
    scope = {"type": "http", "path": path, "method": method, "root_path": "", "headers": [], "app": app_of()}
    before = dict(scope)
    assert bentoml_cures.endpoint(scope) == expected
    assert scope == before


def test_a_websocket_has_no_route() -> None:
    scope = {"type": "websocket", "path": "/x" * 50, "root_path": "", "headers": [], "app": app_of()}
    assert bentoml_cures.endpoint(scope) == "unmatched"


def endpoints_after(middleware: Any, namespace: str) -> set[str]:
    """The labels `endpoint` after requests for two routes and twenty paths that do not exist."""
    with TestClient(app_of(Middleware(middleware, namespace=namespace))) as client:
        assert client.get("/health").text == "yes"
        assert client.get("/models/a?b=c").text == "yes"
        for number in range(20):
            assert client.get(f"/nope/{number}").status_code == 404
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    return {sample.labels["endpoint"] for sample in samples if sample.name == f"{namespace}_request_total"}


def test_the_middleware_keeps_no_path_that_does_not_exist() -> None:
    assert endpoints_after(BoundedMetrics, "bounded") == {"/health", "/models/{name}", "unmatched"}


def test_the_defect_is_there_the_middleware_keeps_every_path() -> None:
    original = as_shipped(instruments.__name__).RunnerTrafficMetricsMiddleware
    assert len(endpoints_after(original, "unbounded")) == 22


@pytest.mark.parametrize(
    ("path", "name"), [("/models/a", "GET /models/{name}"), ("/nope/1", "GET unmatched"), ("/health", "GET /health")]
)
def test_a_span_is_named_by_the_route(path: str, name: str) -> None:
    scope = {"type": "http", "path": path, "method": "GET", "root_path": "", "headers": [], "app": app_of()}
    assert FreshTraces(app_of(), default_span_details=None).default_span_details(scope) == (name, {})


# ── processes that ended ──


def test_a_scrape_leaves_out_the_gauges_of_processes_that_ended() -> None:  # see test_metric_files.py
    services("shared")
    assert PrometheusClient.generate_latest is bentoml_cures.generate_latest


# ── the API's HTTP server ──

# BentoML's worker as it is started by the supervisor, up to where the server would run.
WORKER: Final = """
import json, sys, uvicorn
def report(server, sockets):
    config = server.config
    config.load()
    protocol = getattr(config.http_protocol_class, "func", config.http_protocol_class)
    ours = {"protocol": protocol.__module__, "keep_alive_s": config.timeout_keep_alive, "ws": config.ws_protocol_class,
            "loop": config.get_loop_factory().__module__, "app": type(config.app).__module__}
    print("REPORT", json.dumps(ours, default=str))
uvicorn.Server.run = report
from _bentoml_impl.worker.service import main
main()
"""


def worker(*arguments: str) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-c", WORKER, "service:EnrichmentLight", "--fd", str(listening.fileno()), *arguments]
        done = subprocess.run(
            command, cwd=DEFAULT_FILE.parent, pass_fds=[listening.fileno()], capture_output=True, text=True, check=False
        )
    _, found, report = done.stdout.partition("REPORT ")
    assert found, done.stderr
    answer: dict[str, Any] = json.loads(report.splitlines()[0])
    return answer


def test_the_api_is_served_by_our_protocol_however_it_is_started() -> None:
    assert worker() == {
        "protocol": "api.protocol",
        "keep_alive_s": load(DEFAULT_FILE, {}).server.keep_alive_s,
        "ws": None,
        "loop": "uvloop",
        "app": "api.paths",
    }


def test_the_command_line_wins_over_our_keep_alive() -> None:
    found = worker("--timeout-keep-alive", "5")  # as BentoML's own default
    assert (found["keep_alive_s"], found["protocol"]) == (5, "api.protocol")


def test_a_runner_is_served_as_bentoml_has_it() -> None:
    found = worker("--service-name", "enrichment-runner")
    assert found["protocol"].startswith("uvicorn.protocols.http")
    assert found["app"] == "starlette.applications"
