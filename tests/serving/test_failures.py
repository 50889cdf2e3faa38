"""Runners that die, and a server that is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import httpx
import psutil
import pytest

from models.catalogue import CATALOGUE
from runners.engine_choice import MOST_CALLS
from tests.serving import fake
from tests.serving.pictures import answer, ask, check_error, encoded, plain
from tests.serving.server import Server, serving
from tests.serving.test_metrics import samples

pytestmark = pytest.mark.serve

PNG = encoded(plain((1, 2, 3)))
RAW = {"content-type": "image/png"}
# BentoML looks for dead processes every ten seconds (measured: back after 0 to 10 s and the load).
BACK_S = 200


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One runner process for each of two models."""
    heavy = dict.fromkeys(("ENRICHMENT_THREAT_SERVICE", "ENRICHMENT_PET_SERVICE", "ENRICHMENT_DEPTH_SERVICE"), "heavy")
    with serving(tmp_path_factory.mktemp("isolated"), {"ENRICHMENT_PLACEMENT": "isolated", **heavy}) as running:
        yield running


def check_gone(server: Server) -> None:
    """While there is no runner, every route says so at once and in the contract's shape."""
    server.wait(lambda: server.health().status_code == 503, "unhealthy", 30)
    body = server.health().json()
    assert body["status"] == "unhealthy"
    assert {body["models"][name]["state"] for name in CATALOGUE} == {"failed"}
    assert not any(body["models_loaded"].values())
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert client.get("/livez").status_code == 200  # the process is alive, but
        assert client.get("/readyz").status_code == 503  # it may take no traffic
        for route in ("/person-reid", "/depth-estimate", "/pose-analyze"):
            began = time.monotonic()
            response = ask(client, route, PNG)
            check_error(response, 503, "runner_unavailable")
            assert response.headers["retry-after"] == "10"
            assert time.monotonic() - began < 4
        unloaded = 'enrichment_light_model_loaded{model="person_reid"} 0.0'
        server.wait(lambda: unloaded in client.get("/metrics").text, "a gauge of 0", 30)  # with the next heartbeat


async def test_a_killed_runner_is_told_at_once_and_comes_back(shared_server: Server) -> None:
    replies: list[tuple[float, int, float, str]] = []  # when it was sent, status, seconds, error code
    health: list[tuple[float, float, int]] = []  # began, ended, status
    stop = asyncio.Event()
    image = encoded(plain(fake.sleeper(0.1)))  # so that some are under way in the engine when it dies

    async def load(session: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            began = time.monotonic()
            async with session.post("/person-reid", data=image, headers=RAW) as response:
                body = await response.json()
                code = body["error"]["code"] if "error" in body else "ok"
                replies.append((began, response.status, time.monotonic() - began, code))
            # Asked again without a pause after refusals, which come at once, they would leave the successor no core.
            await asyncio.sleep(0.02 if response.status == 200 else 0.2)

    async def watch(session: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            began = time.monotonic()
            async with session.get("/health") as response:
                await response.read()
                health.append((began, time.monotonic(), response.status))
            await asyncio.sleep(0.05)

    async with aiohttp.ClientSession(shared_server.url) as session:
        tasks = [asyncio.create_task(load(session)) for _ in range(8)] + [asyncio.create_task(watch(session))]
        async with asyncio.timeout(10):
            while len(replies) < 16:
                await asyncio.sleep(0.01)
        killed = time.monotonic()
        os.kill(shared_server.runner_pid(), signal.SIGKILL)
        await asyncio.to_thread(check_gone, shared_server)
        async with asyncio.timeout(BACK_S):
            while not any(status == 200 and began > killed + 0.5 for began, status, _, _ in replies):
                await asyncio.sleep(0.05)
        stop.set()
        await asyncio.gather(*tasks)

    before = [status for began, status, seconds, _ in replies if began + seconds < killed]
    assert set(before) == {200}
    assert {(status, code) for _, status, _, code in replies} == {(200, "ok"), (503, "runner_unavailable")}
    assert max(seconds for _, status, seconds, _ in replies if status == 503) < 4
    at_once = [seconds for began, status, seconds, _ in replies if status == 503 and began > killed + 4]
    # Once it is known, nobody waits; a few may meet a machine that is busy with the new one's start.
    assert not at_once or sorted(at_once)[int(len(at_once) * 0.9)] < 1
    assert {status for _, ended, status in health if ended < killed} == {200}
    assert 503 in {status for began, _, status in health if began > killed}
    assert max(began for began, _, status in health if status == 503) - killed > 0.1

    shared_server.wait(shared_server.is_ready, "ready again", BACK_S)
    assert shared_server.health().json()["status"] == "healthy"


@pytest.mark.slow
async def test_a_killed_process_with_its_engines_is_back_by_itself(tmp_path: Path) -> None:
    # Embedded, nothing is left to say so: callers find the port closed or waiting, until BentoML has started it anew.
    with serving(tmp_path, {}) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        before = server.health().json()["runners"][0]["pid"]
        os.kill(before, signal.SIGKILL)
        await asyncio.to_thread(server.wait, server.is_ready, "ready again", BACK_S)
        assert server.health().json()["runners"][0]["pid"] != before
        assert fake.colour_of(answer(client, "/person-reid", PNG)["embedding"]) == (1, 2, 3)


@pytest.mark.slow
def test_an_image_that_crashes_one_of_two_runners_leaves_the_other(isolated: Server) -> None:
    with httpx.Client(base_url=isolated.url, timeout=30) as client:
        assert answer(client, "/pose-analyze", PNG)["num_people"] == 1
        began = time.monotonic()
        crashed = ask(client, "/person-reid", plain(fake.CRASHES))
        check_error(crashed, 503, "runner_unavailable")
        assert time.monotonic() - began < 4
        isolated.wait(lambda: isolated.health().json()["status"] == "degraded", "degraded", 5)
        assert isolated.health().status_code == 200
        assert isolated.model("person_reid")["state"] == "failed"
        assert isolated.model("pose_estimator")["state"] == "ready"
        assert answer(client, "/pose-analyze", PNG)["num_people"] == 1
        check_error(ask(client, "/person-reid", PNG), 503, "runner_unavailable")
        isolated.wait(lambda: isolated.model("person_reid")["state"] == "ready", "back", BACK_S)
        assert fake.colour_of(answer(client, "/person-reid", PNG)["embedding"]) == (1, 2, 3)


@pytest.mark.slow
def test_requests_in_flight_are_finished_when_the_server_is_told_to_end(isolated: Server) -> None:
    # The last test of this file: the server is gone afterwards.
    def post(number: int) -> httpx.Response:
        image = encoded(plain(fake.sleeper(2.0) if number < MOST_CALLS else (number, 7, 7)))
        return httpx.post(f"{isolated.url}/person-reid", content=image, headers=RAW, timeout=30)

    def in_runner() -> float:
        name = "bentoml_service_request_in_progress"
        found = samples(httpx.Client(base_url=isolated.url), name).get(name, {})
        return sum(value for labels, value in found.items() if ("endpoint", "/person_reid") in labels)

    family = psutil.Process(isolated.process.pid).children(recursive=True)
    with ThreadPoolExecutor(8) as pool:
        held = []
        for running in range(MOST_CALLS):  # one after the other, or they were one batch
            held.append(pool.submit(post, running))
            isolated.wait(lambda running=running: in_runner() == running + 1, "running", 10)  # type: ignore[misc]
        held += [pool.submit(post, number) for number in range(MOST_CALLS, 8)]
        isolated.wait(lambda: in_runner() == 8, "queued behind them", 10)
        isolated.process.send_signal(signal.SIGTERM)
        replies = [future.result() for future in held]
    assert [reply.status_code for reply in replies] == [200] * 8
    queued = replies[MOST_CALLS:]
    assert [fake.colour_of(reply.json()["embedding"]) for reply in queued] == [(i, 7, 7) for i in range(MOST_CALLS, 8)]
    assert isolated.process.wait(20) == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []
