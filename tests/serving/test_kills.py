"""Processes that are killed or hang while 16 callers ask: what becomes of each request, as a table."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.serving import fake
from tests.serving.callers import ANSWERED, OVERLOADED, RESET, UNAVAILABLE, Callers
from tests.serving.pictures import ROUTES, encoded, plain
from tests.serving.server import Server, configuration, serving
from tests.serving.test_restarts import check, requests, scrape, workers

pytestmark = [pytest.mark.serve, pytest.mark.slow]

CALLERS: Final = 16
SILENCE_S: Final = 3.0
HUNG_S: Final = 6.0
HANG: Final = "its engine hangs"
HANGING: Final = encoded(plain(fake.HANGS))


@dataclass(frozen=True)
class Running:
    """A server. start_s: seconds that its start took."""

    server: Server
    folder: Path
    start_s: float


@pytest.fixture(scope="module", params=["embedded", "shared"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp(request.param)
    watchdog = {"watchdog.silence_s": SILENCE_S, "watchdog.hung_s": HUNG_S}
    environment = {"ENRICHMENT_PLACEMENT": request.param, "BENTOML_CONFIG": str(configuration(folder, watchdog))}
    began = time.monotonic()
    with serving(folder, environment) as server:
        start_s = time.monotonic() - began
        requests(server)
        yield Running(server, folder, start_s)


async def _break(server: Server, name: str, fault: str) -> None:
    """Kill or stop a process, or send it an image on which its engine hangs."""
    if fault != HANG:
        os.kill(workers(server)[name], signal.Signals[fault])
        return

    async def ask() -> int:
        headers = {"content-type": "image/png"}
        async with aiohttp.request("POST", f"{server.url}/pet-classify", data=HANGING, headers=headers) as response:
            assert response.headers["retry-after"]
            return response.status

    assert await ask() == 503


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP", HANG])
@pytest.mark.parametrize("name", ["api", "runner"])
async def test_callers_are_answered_or_told_to_retry_and_all_is_well_soon(
    running: Running, name: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = running.server
    before = workers(server)
    if name not in before or (fault == HANG and name == "api" and "runner" in before):
        pytest.skip("no engines there")
    await asyncio.sleep(1.5)  # a heartbeat
    scraped = scrape(server)
    callers = Callers(server.url, CALLERS)
    await callers.answers(CALLERS, 60)
    broken = time.monotonic()
    await _break(server, name, fault)
    patience_s = running.start_s + 10 + (0 if fault == "SIGKILL" else HUNG_S)
    await callers.wait(lambda: workers(server).get(name, before[name]) != before[name], patience_s)
    restarted = time.monotonic()
    await callers.wait(lambda: any(each.what == ANSWERED and each.began > restarted for each in callers.outcomes), 60)
    back_s = time.monotonic() - broken
    await callers.answers(CALLERS, 60)
    await callers.end()

    counts = callers.since(broken)
    told = sorted((each for each in callers.outcomes if each.what == UNAVAILABLE), key=lambda each: each.ended)
    known_s = told[0].ended - broken if told else None
    while_known = [each.seconds for each in told if each.began > told[0].ended and each.ended < restarted]
    late = max(while_known, default=0.0)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{'embedded' if 'runner' not in before else 'shared'} | {name} | {fault} | {dict(counts)}"
            f" | first 503 after {known_s and round(known_s, 1)} s, then within {late:.2f} s"
            f" | back after {back_s:.1f} s, start {running.start_s:.1f} s"
        )
    # A process that is killed takes its connections with it; one that only computes does not.
    assert set(counts) <= {ANSWERED, OVERLOADED, UNAVAILABLE} | ({RESET} if name == "api" else set())
    if name == "runner":  # "503 at once", by half a minute at most on a busy machine
        assert known_s is not None
        assert known_s < {"SIGKILL": 5, "SIGSTOP": SILENCE_S + 10}.get(fault, HUNG_S + 15)
    assert late < 1
    assert back_s < patience_s
    requests(server)
    await asyncio.sleep(1.5)
    gauges, _ = check(server, running.folder, scraped)
    busy = {labels: value for (series, labels), value in gauges.items() if series.endswith("request_in_progress")}
    assert not any(value for labels, value in busy.items() if dict(labels)["endpoint"] in ROUTES)
    assert all(value == 1 for (series, _), value in gauges.items() if series == "enrichment_light_model_loaded")
