from __future__ import annotations

import re
import threading
import time

import httpx
import psutil
import pytest

from models.catalogue import CATALOGUE
from tests.serving.fake import sleeper
from tests.serving.pictures import ROUTES, ask, encoded, plain
from tests.serving.server import Server

pytestmark = pytest.mark.serve


def test_the_health_document_of_a_healthy_service(client: httpx.Client) -> None:
    response = client.get("/health")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert 0 < body.pop("uptime_seconds") < 86_400
    weights = {name: f"{spec.weights}@0123456789ab" for name, spec in CATALOGUE.items()}
    assert all(0 <= body["models"][name].pop("memory_mb") < 200 for name in CATALOGUE)  # measured; the fakes take none
    (runner,) = body.pop("runners")
    assert 0 < runner.pop("memory").pop("used_mb") < 500
    assert psutil.pid_exists(runner.pop("pid"))
    assert runner.pop("restarts") >= 0  # test_failures.py kills it
    assert runner == {
        "name": "enrichment-runner",
        "last_fault": None,
        "device": {"name": "CPU", "index": None, "memory_gb": None, "driver": None},
    }
    assert body == {
        "status": "healthy",
        "models_loaded": dict.fromkeys(CATALOGUE, True),
        "gpu_available": False,
        "gpu_memory_used_gb": 0.0,
        "models": {
            name: {
                "state": "ready",
                "engine": "openvino",
                "precision": "f32",
                "weights": weights[name],
                "detail": None,
                "loads": 1,
                "engine_build_failed": False,
            }
            for name in CATALOGUE
        }
        | dict.fromkeys(("pose", "threat", "reid", "pet", "depth"), True),
    }


def test_alive_ready_and_healthy_have_routes_of_their_own(client: httpx.Client) -> None:
    assert [client.get(path).status_code for path in ("/livez", "/readyz", "/health", "/metrics")] == [200] * 4


def test_health_answers_within_100_ms_while_models_are_busy(server: Server, client: httpx.Client) -> None:
    def keep_busy(route: str) -> None:
        assert httpx.post(f"{server.url}{route}", content=slow, headers=png, timeout=30).status_code == 200

    def median_s(count: int) -> float:
        seconds = []
        for _ in range(count):
            asked = time.perf_counter()
            assert client.get("/health").json()["status"] == "healthy"
            seconds.append(time.perf_counter() - asked)
            time.sleep(0.02)
        return sorted(seconds)[count // 2]

    quiet_s = median_s(20)  # of this machine, which others may keep busy
    slow, png = encoded(plain(sleeper(5))), {"content-type": "image/png"}
    busy = [
        route for route in ROUTES if route != "/pet-classify"
    ]  # it would sleep twice: it asks the pose estimator, too
    threads = [threading.Thread(target=keep_busy, args=(route,)) for route in busy]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    busy_s = median_s(20)
    assert all(thread.is_alive() for thread in threads)  # they were busy all the time
    for thread in threads:
        thread.join()
    assert busy_s < 0.1 + 5 * quiet_s


def test_a_slow_image_of_one_model_does_not_hold_up_another(server: Server, client: httpx.Client) -> None:
    statuses: list[int] = []

    def ask_slowly() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as other:
            statuses.append(ask(other, "/depth-estimate", plain(sleeper(5))).status_code)

    slow = threading.Thread(target=ask_slowly)
    slow.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert ask(client, "/person-reid", plain((1, 2, 3))).status_code == 200
    assert time.monotonic() - began < 4
    assert slow.is_alive()
    slow.join()
    assert statuses == [200]


def test_the_index_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", response.text)
