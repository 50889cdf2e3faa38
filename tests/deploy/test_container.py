"""The CPU's image, built and run by a real Docker Engine with the compose plugin; skipped where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.agreement import difference
from benchmarks.budget import ROUTES
from tests.serving.server import REAL, ROOT, serving

pytestmark = [pytest.mark.weights, pytest.mark.container]

# Without a deploy/.env of the developer's.
COMPOSE = ("docker", "compose", "--env-file", "/dev/null", "-f", "deploy/compose.cpu.yaml")
BASE = "python:3.11-slim"
VERSION = "test"
TAG = f"{VERSION}-cpu"
IMAGE = f"ai-enrichment-light:{TAG}"
PORT = 18097
PICTURES = ("knife_board.jpg", "bus.jpg", "cat_chelsea.png")
START_S = 90  # the health check's start period


def run(*command: str, check: bool = True) -> str:
    environment = os.environ | {
        "ENRICHMENT_LIGHT_VERSION": VERSION,
        "ENRICHMENT_LIGHT_BIND": "127.0.0.1",
        "ENRICHMENT_LIGHT_PORT": str(PORT),
        "PYROSCOPE_ENABLED": "false",
        "COMPOSE_PROJECT_NAME": "enrichment-test",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(model_store: Path) -> Iterator[str]:
    """The image with all five models packed."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker Engine answers (DOCKER_HOST)")
    for way in (["docker", "image", "inspect", BASE], ["docker", "pull", "--quiet", BASE]):
        if subprocess.run(way, capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip(f"the base image {BASE} is not there and can't be pulled")
    run(sys.executable, "-m", "tools.image", "--variant", "cpu", "--tag", TAG)
    yield IMAGE
    run("docker", "rmi", "-f", IMAGE)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    """Started as an operator starts it; its URL from outside."""
    try:
        run(*COMPOSE, "up", "--wait")
        yield f"http://127.0.0.1:{PORT}"
    finally:
        run(*COMPOSE, "down", "--volumes")


def answers(url: str, shared: Path) -> dict[str, dict[str, object]]:
    found = {}
    with httpx.Client(base_url=url, timeout=60) as client:
        for name in PICTURES:
            for route in ROUTES:
                picture = (shared / "images" / name).read_bytes()
                found[f"{route} {name}"] = client.post(route, files={"image": picture}).raise_for_status().json()
    return found


def test_it_answers_as_the_service_does_outside_of_it(
    container: str, model_store: Path, shared: Path, tmp_path: Path
) -> None:
    inside = answers(container, shared)
    with serving(tmp_path, {"BENTOML_HOME": str(model_store)}, REAL) as server:
        outside = answers(server.url, shared)
    assert inside.keys() == outside.keys()
    for question, answer in inside.items():
        assert difference(question.split()[0], outside[question], answer)


def test_it_is_healthy_and_runs_as_nobody_in_particular_on_a_root_that_it_can_not_write(container: str) -> None:
    assert httpx.get(f"{container}/health", timeout=10).json()["status"] == "healthy"
    (state,) = json.loads(run("docker", "inspect", "ai-enrichment-light"))
    assert state["State"]["Health"]["Status"] == "healthy"
    assert state["HostConfig"]["ReadonlyRootfs"] is True
    assert state["HostConfig"]["CapDrop"] == ["ALL"]
    assert run("docker", "exec", "ai-enrichment-light", "id", "-u") == "1034"
    denied = run("docker", "exec", "ai-enrichment-light", "sh", "-c", "touch /home/bentoml/x || echo denied")
    assert denied == "denied"


def test_serving_on_a_cpu_needs_no_torch(container: str) -> None:
    found = run(
        "docker",
        "exec",
        "ai-enrichment-light",
        "python",
        "-c",
        "import importlib.util as u; print(u.find_spec('torch'))",
    )
    assert found == "None"


def test_without_its_models_it_has_at_most_800_mb(image: str) -> None:
    total = int(run("docker", "image", "inspect", image, "--format", "{{.Size}}"))
    models = int(
        run("docker", "run", "--rm", "--entrypoint", "du", image, "-sb", "/home/bentoml/bento/models").split()[0]
    )
    assert (total - models) / 1e6 < 800


def test_it_starts_and_answers_without_a_network(image: str, shared: Path) -> None:
    name = "enrichment-test-offline"
    run("docker", "run", "-d", "--name", name, "--network", "none", "-e", "PYROSCOPE_ENABLED=false", image)
    try:
        ask = (
            "import httpx, sys; client = httpx.Client(base_url='http://localhost:8096', timeout=60);"
            "answer = client.post('/threat-detect', files={'image': sys.stdin.buffer.read()}).json();"
            "print(client.get('/readyz').status_code, answer['is_threat'])"
        )
        picture = (shared / "images" / "knife_board.jpg").read_bytes()
        end = time.monotonic() + START_S
        said = b""
        while said.strip() != b"200 True":
            assert time.monotonic() < end, (said, run("docker", "logs", name)[-2000:])
            command = ["docker", "exec", "-i", name, "python", "-c", ask]
            said = subprocess.run(command, input=picture, capture_output=True, check=False).stdout
            time.sleep(1)
    finally:
        run("docker", "rm", "-f", name)


def test_a_runner_that_died_comes_back_without_the_container_ending(container: str) -> None:
    def health() -> dict[str, Any]:
        body: dict[str, Any] = httpx.get(f"{container}/health", timeout=10).json()
        return body

    (runner,) = health()["runners"]
    run("docker", "exec", "ai-enrichment-light", "sh", "-c", f"kill -9 {runner['pid']}")
    end = time.monotonic() + START_S
    while (body := health())["status"] != "healthy" or body["runners"][0]["restarts"] != 1:
        assert time.monotonic() < end, body
        time.sleep(0.5)
    assert run("docker", "inspect", "ai-enrichment-light", "--format", "{{.RestartCount}}") == "0"


def test_a_stop_ends_it_with_0(container: str) -> None:
    # The last test of this file: the container is gone afterwards.
    began = time.monotonic()
    run(*COMPOSE, "stop")
    assert time.monotonic() - began < 30
    assert run("docker", "inspect", "ai-enrichment-light", "--format", "{{.State.ExitCode}}") == "0"
