"""The machine's clock is put ahead and back: no answer is late, no figure is absurd, and dead processes come back."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.machine import Clock
from tests.serving import fake
from tests.serving.pictures import ROUTES, ask, encoded, plain
from tests.serving.server import Server, serving
from tests.serving.test_failures import BACK_S
from tests.serving.test_restarts import scrape

pytestmark = pytest.mark.serve

PNG = encoded(plain((1, 2, 3)))
SLOW = encoded(plain(fake.sleeper(3)))
HOUR = 3600.0


def check(server: Server, client: httpx.Client) -> None:
    for route in ROUTES:
        response = ask(client, route, PNG)
        assert response.status_code == 200
        assert 0 <= response.json()["inference_time_ms"] < 20_000
    timings = ask(client, "/enrich", PNG).json()["timings"]
    for model in timings["models"].values():
        assert 0 <= model["queue_ms"] < 20_000
        assert 0 <= model["forward_ms"] < 20_000
    body = client.get("/health").json()
    assert body["status"] == "healthy"
    assert [runner["restarts"] for runner in body["runners"]] == [0]
    assert client.get("/readyz").status_code == 200


def seconds(server: Server) -> list[float]:
    """What the histograms have summed up."""
    _, counts = scrape(server)
    return [value for (name, _), value in counts.items() if name.endswith(("_seconds_sum", "_duration_sum"))]


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["embedded", "shared"])
def test_a_clock_that_jumps_changes_no_answer_and_no_figure(tmp_path: Path, placement: str) -> None:
    clock = Clock(tmp_path)
    environment = clock.environment | {"ENRICHMENT_PLACEMENT": placement}
    with serving(tmp_path, environment) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        check(server, client)
        for ahead in (HOUR, -HOUR, 0.0):
            clock.jump(ahead)
            check(server, client)
        assert all(0 <= each < 300 for each in seconds(server))


@pytest.mark.slow
def test_a_clock_that_jumps_within_a_request_does_not_show_in_it(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with (
        serving(tmp_path, clock.environment) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        for ahead in (HOUR, -HOUR):
            request = pool.submit(ask, client, "/enrich", SLOW, models=["person_reid"])
            time.sleep(1)
            clock.jump(ahead)
            (reid,) = request.result().json()["timings"]["models"].values()
            assert 2900 <= reid["forward_ms"] < 20_000
            assert 0 <= reid["queue_ms"] < 20_000


@pytest.mark.slow
def test_a_runner_that_dies_after_the_clock_was_put_back_starts_anew(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    environment = clock.environment | {"ENRICHMENT_PLACEMENT": "shared"}
    with serving(tmp_path, environment) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        check(server, client)
        clock.jump(-HOUR)
        time.sleep(12)  # Circus has looked after its processes, and has set a time for the next look
        killed = server.runner_pid()
        os.kill(killed, signal.SIGKILL)
        server.wait(lambda: server.runner_pid() != killed, "a new runner", BACK_S)
        server.wait(server.is_ready, "ready again")
        assert ask(client, "/person-reid", PNG).status_code == 200
