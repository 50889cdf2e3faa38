"""Too little memory, a lost device, a GPU that is required: faults put in over the fake engine and device layer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from benchmarks.serving import free_port
from tests.serving import fake, fake_gpu
from tests.serving.pictures import answer, ask, check_error, encoded, plain
from tests.serving.server import FAKE, ROOT, START_S, Server, serving
from tests.serving.test_failures import BACK_S

pytestmark = pytest.mark.serve

PNG = encoded(plain((1, 2, 3)))


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gpu")
    environment = {fake_gpu.WANTED: "1", "ENRICHMENT_ENGINE": "torch", "ENRICHMENT_GPU_REQUIRED": "true"}
    with serving(folder, environment) as running:
        yield running


async def test_images_for_which_there_is_no_memory_are_refused_and_the_others_answered(gpu: Server) -> None:
    images = [encoded(plain(fake.sleeper(0.3)))]  # while it sleeps, the others queue into batches
    images += [encoded(plain(fake.HUNGRY if i == 5 else (i, 7, 7))) for i in range(24)]
    async with aiohttp.ClientSession(gpu.url) as session:

        async def post(image: bytes) -> tuple[int, dict[str, object]]:
            async with session.post("/person-reid", data=image, headers={"content-type": "image/png"}) as response:
                return response.status, await response.json()

        first = asyncio.create_task(post(images[0]))
        await asyncio.sleep(0.1)
        replies = await asyncio.gather(*(post(image) for image in images[1:]))
        assert (await first)[0] == 200
    statuses = Counter(status for status, _ in replies)
    assert set(statuses) == {200, 503}
    assert statuses[503] <= 8  # at most those that shared the batch
    for number, (status, body) in enumerate(replies):
        if status == 200:
            assert fake.colour_of(body["embedding"]) == (number, 7, 7)  # type: ignore[arg-type]
        else:
            assert body["error"]["code"] == "model_unavailable"  # type: ignore[index]
            assert "out of memory for person_reid" in body["error"]["message"]  # type: ignore[index]
    assert replies[5][0] == 503
    gpu.wait(lambda: gpu.health().json()["runners"][0]["memory"]["out_of_memory"] == 1, "told", 30)
    assert gpu.health().json()["status"] == "healthy"  # it is none of the model's
    assert fake.SECRET not in str(replies)


def test_a_lost_device_ends_the_runner_and_health_says_why(gpu: Server) -> None:
    with httpx.Client(base_url=gpu.url, timeout=30) as client:
        pid = gpu.health().json()["runners"][0]["pid"]
        assert ask(client, "/pose-analyze", PNG).status_code == 200
        began = time.monotonic()
        check_error(ask(client, "/person-reid", plain(fake.LOST)), 503, "runner_unavailable")
        check_error(ask(client, "/pose-analyze", PNG), 503, "runner_unavailable")  # nobody else's turn comes, either
        assert time.monotonic() - began < 5  # nobody waits for a new runner
        health = gpu.health()
        assert health.status_code == 503
        (runner,) = health.json()["runners"]
        assert "illegal memory access" in runner["last_fault"]
        assert runner["pid"] is None
        gpu.wait(lambda: not os.path.exists(f"/proc/{pid}"), "ended", 30)  # noqa: PTH110
        gpu.wait(gpu.is_ready, "ready again", BACK_S)
        (runner,) = gpu.health().json()["runners"]
        assert runner["restarts"] == 1
        assert runner["pid"] != pid
        assert "illegal memory access" in runner["last_fault"]
        assert fake.colour_of(answer(client, "/person-reid", PNG)["embedding"]) == (1, 2, 3)


def test_a_required_gpu_that_is_there_is_named(gpu: Server) -> None:
    (runner,) = gpu.health().json()["runners"]
    assert (runner["device"]["index"], runner["device"]["name"]) == (1, "NVIDIA RTX A400")
    assert runner["memory"]["budget_mb"] == 1490  # of auto: 1200 beside the context


def test_a_required_gpu_that_is_not_there_is_a_start_failure(tmp_path: Path) -> None:
    port = str(free_port())
    environment = os.environ | {"BENTOML_HOME": str(tmp_path), "ENRICHMENT_GPU_REQUIRED": "true", "PORT": port}
    command = [sys.executable, "-m", "bentoml", "serve", FAKE]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=START_S
    )
    assert done.returncode == 1
    assert "ai-enrichment-light can't start: device.gpu_required is true, and no GPU would be used" in done.stderr
    assert "ENRICHMENT_GPU_REQUIRED=false" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_gpu_the_log_says_loudly_that_the_cpu_computes(server: Server) -> None:
    (line,) = [line for line in server.log.splitlines() if "NO GPU IS USED" in line]
    assert "[WARNING]" in line
    assert "All models run on the CPU" in line
