"""The first two of the four BentoML defects; the others' tests are in tests/api/test_link.py and test_batches.py.

Where a test shows the defect itself, it is there to say when a new BentoML has mended it and the cure can go.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest
from _bentoml_impl.client import RemoteProxy  # type: ignore[import-untyped]
from _bentoml_impl.client.proxy2 import SessionManager  # type: ignore[import-untyped]
from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.marshal import dispatcher

import runners
from models.catalogue import CATALOGUE
from runners.bentoml_cures import RUNNER_CONNECTION, PromptOptimizer
from settings import DEFAULT_FILE, load

ORIGINAL = PromptOptimizer.__mro__[1]
PLACEMENTS = pytest.mark.parametrize("placement", ["shared", "isolated"])
Placement = Literal["shared", "isolated"]


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


# ── 2: adaptive batching holds single requests back ──


def optimizer_after_a_burst(kind: type[dispatcher.Optimizer]) -> dispatcher.Optimizer:
    optimizer = kind(300.0)
    for size in (1, 2, 4, 8, 8, 8, 8, 8):
        optimizer.log_outbound(size, wait=0.2, duration=0.005 + 0.001 * size)
    optimizer.trigger_refresh()  # type: ignore[no-untyped-call]
    return optimizer


def test_nothing_is_held_back_after_waits() -> None:
    assert optimizer_after_a_burst(PromptOptimizer).wait == 0


def test_the_durations_are_fitted_as_before() -> None:
    ours, theirs = optimizer_after_a_burst(PromptOptimizer), optimizer_after_a_burst(ORIGINAL)
    assert (ours.o_a, ours.o_b) == (theirs.o_a, theirs.o_b)
    assert (ours.o_a, ours.o_b) == pytest.approx((0.001, 0.005))


def test_the_defect_is_there_waits_are_averaged_into_the_next_one() -> None:
    assert optimizer_after_a_burst(ORIGINAL).wait == pytest.approx(0.2)


@PLACEMENTS
def test_every_dispatcher_of_a_composed_service_uses_it(placement: Placement) -> None:
    seen = Counter[str]()
    for service in services(placement):
        service.inject_config()
        for name, found in ServiceAppFactory(service).dispatchers.items():
            assert type(found.optimizer) is PromptOptimizer
            seen[name] += 1
    assert seen == Counter(list(CATALOGUE))


async def after_a_burst(kind: type[dispatcher.Optimizer]) -> tuple[float, list[int]]:
    """Seconds of a lone call of 10 ms after a burst of 128, and the batch sizes of the next burst."""
    sizes: list[int] = []

    async def infer(jobs: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        sizes.append(len(jobs))
        await asyncio.sleep(0.01)
        return jobs

    cork: dispatcher.CorkDispatcher[Any, Any] = dispatcher.CorkDispatcher(
        300_000, 8, fallback=lambda: None, get_batch_size=len
    )
    cork.optimizer = kind(300.0)
    call = cork(infer)
    try:
        for _ in range(15):  # the dispatcher's own training
            await call([1])
        for _ in range(3):
            await asyncio.gather(*(call([1]) for _ in range(128)))
        cork.optimizer.trigger_refresh()  # type: ignore[no-untyped-call]
        lone = []
        for _ in range(5):
            began = time.perf_counter()
            await call([1])
            lone.append(time.perf_counter() - began)
        sizes.clear()
        await asyncio.gather(*(call([1]) for _ in range(64)))
        return sorted(lone)[2], sizes
    finally:
        cork.shutdown()


async def test_a_lone_call_after_a_burst_is_not_held_back_and_batches_still_form() -> None:
    seconds, sizes = await after_a_burst(PromptOptimizer)
    assert seconds < 0.045
    assert sum(sizes) == 64
    assert max(sizes) == 8


async def test_the_defect_is_there_a_lone_call_after_a_burst_is_held_back() -> None:
    held_back, _ = await after_a_burst(ORIGINAL)
    assert held_back > 0.045


def test_a_batch_may_wait_longer_than_any_request() -> None:
    # BentoML drops what it expects to take longer than max_latency_ms: the API's own timeout must come first.
    for service in services("shared"):
        service.inject_config()
        for found in ServiceAppFactory(service).dispatchers.values():
            assert found.max_latency >= 10 * load(DEFAULT_FILE, {}).limits.request_timeout_s
