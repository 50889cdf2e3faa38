"""The CPU's image, built and run by a real Docker Engine with the compose plugin; skipped where there is none."""

from __future__ import annotations

import errno
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
import yaml

from benchmarks import calls
from benchmarks.agreement import difference
from benchmarks.budget import ROUTES
from tests.serving.server import REAL, ROOT, SMALL_BATCHES, serving

pytestmark = [pytest.mark.weights, pytest.mark.container]

# Without a deploy/.env of the developer's.
COMPOSE = ("docker", "compose", "--env-file", "/dev/null", "-f", "deploy/compose.cpu.yaml")
MONITORED = (*COMPOSE, "-f", "deploy/compose.monitoring.yaml")
BASE = "python:3.11-slim"
PROJECT = "enrichment-test"
VERSION = "test"
TAG = f"{VERSION}-cpu"
IMAGE = f"ai-enrichment-light:{TAG}"
PORT = 18097
PICTURES = ("knife_board.jpg", "bus.jpg", "cat_chelsea.png")
START_S = 90  # the health check's start period

STATUS_OF_PROCESSES = """
import json, pathlib
files = pathlib.Path("/proc").glob("[0-9]*/status")
print(json.dumps({f.parent.name: dict(line.split(":\\t", 1) for line in f.read_text().splitlines()) for f in files}))
"""
# Folders that can be written, without those in them.
WRITABLE = """
import json, os
found = []
for folder, folders, _ in os.walk("/"):
    folders[:] = [each for each in folders if os.path.join(folder, each) not in {"/proc", "/sys"}]
    if os.access(folder, os.W_OK):
        found.append(folder)
        folders.clear()
print(json.dumps(found))
"""
OF_DOCKER = {"/dev/shm", "/dev/mqueue"}  # memory, of each container
# The places where Docker mounts its `init: true` and the file of keys, and the folders on the way.
MOUNTED = ("/usr/sbin/docker-init", "/run/enrichment-keys")


def run(*command: str, check: bool = True) -> str:
    environment = os.environ | {
        "ENRICHMENT_LIGHT_VERSION": VERSION,
        "ENRICHMENT_LIGHT_BIND": "127.0.0.1",
        "ENRICHMENT_LIGHT_PORT": str(PORT),
        "PYROSCOPE_ENABLED": "false",
        "COMPOSE_PROJECT_NAME": PROJECT,
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def need(name: str) -> None:
    """Skip the test unless that image is there or can be pulled."""
    for way in (["docker", "image", "inspect", name], ["docker", "pull", "--quiet", name]):
        if subprocess.run(way, capture_output=True, check=False).returncode == 0:
            return
    pytest.skip(f"the image {name} is not there and can't be pulled")


@pytest.fixture(scope="module")
def image(model_store: Path) -> Iterator[str]:
    """The image with all five models packed."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker Engine answers (DOCKER_HOST)")
    need(BASE)
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
        run(*MONITORED, "down", "--volumes")


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
    found = answers(container, shared)
    on_demand = {"ENRICHMENT_PRELOAD_MODELS": "", **SMALL_BATCHES}  # as in the container, with less warming up
    with serving(tmp_path, {"BENTOML_HOME": str(model_store), **on_demand}, REAL) as server:
        expected = answers(server.url, shared)
    assert found.keys() == expected.keys()
    for question, answer in found.items():
        assert difference(question.split()[0], expected[question], answer)


def inside(code: str) -> str:
    """What Python code prints in the running container, as the user of the service."""
    return run("docker", "exec", "ai-enrichment-light", "python", "-c", code)


def test_it_is_healthy(container: str) -> None:
    assert httpx.get(f"{container}/health", timeout=10).json()["status"] == "healthy"
    assert run("docker", "inspect", "ai-enrichment-light", "--format", "{{.State.Health.Status}}") == "healthy"


def test_no_process_is_root_has_a_capability_or_can_gain_one(container: str) -> None:
    found: dict[str, dict[str, str]] = json.loads(inside(STATUS_OF_PROCESSES))
    assert len(found) > 3  # the init, BentoML's supervisor, the API and the one that asks
    assert "1" in found
    for status in found.values():
        assert status["Uid"].split() == status["Gid"].split() == ["1034"] * 4, status
        assert status["NoNewPrivs"] == "1", status
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, status


@pytest.mark.parametrize(
    "folder",
    ["/", "/home/bentoml/bento/src", "/home/bentoml/bento/models", "/app/.venv/bin", "/etc", "/var/tmp", "/cache"],
)
def test_nothing_can_be_written_into(container: str, folder: str) -> None:
    said = inside(
        f"import pathlib\ntry: pathlib.Path({folder!r}, 'x').touch()\nexcept OSError as error: print(error.errno)"
    )
    assert int(said) in {errno.EROFS, errno.EACCES}


def test_only_its_volume_and_memory_can_be_written(container: str) -> None:
    assert set(json.loads(inside(WRITABLE))) == {"/cache/bentoml", "/tmp", *OF_DOCKER}


def _sent(client: httpx.Client, call: calls.Call) -> httpx.Response:
    return client.request(call.method, call.path, content=call.body, headers={"Content-Type": call.content_type})


def test_all_routes_answer_and_leave_nothing_on_its_root(container: str) -> None:
    with httpx.Client(base_url=container, timeout=60) as client:
        for path in ("/", "/docs", "/openapi.json", "/livez", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200, path
        files = calls.pictures()[:3]
        embedded = [_sent(client, call).json() for call in calls.embeddings(files)]
        for call in calls.right(files, embedded):
            answer = _sent(client, call)
            is_off = call.path.startswith("/v1/")  # DeepStack's routes need a setting
            assert answer.status_code == (403 if is_off else call.status), (call.path, answer.text)
    changed = [line.split()[1] for line in run("docker", "diff", "ai-enrichment-light").splitlines()]
    assert [path for path in changed if not any(place.startswith(path) for place in MOUNTED)] == []


def test_prometheus_beside_it_scrapes_it_and_takes_the_rules(container: str) -> None:
    monitoring = yaml.safe_load((ROOT / "deploy" / "compose.monitoring.yaml").read_text(encoding="utf-8"))
    need(monitoring["services"]["prometheus"]["image"])
    run(*MONITORED, "up", "--detach", "prometheus")
    with httpx.Client(base_url="http://127.0.0.1:9090/api/v1", timeout=10) as prometheus:

        def scraped() -> bool:
            try:
                answer = prometheus.get("/query", params={"query": 'up{job="ai-enrichment-light"} == 1'})
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and bool(answer.json()["data"]["result"])

        end = time.monotonic() + START_S
        while not scraped():
            assert time.monotonic() < end, run("docker", "compose", "-p", PROJECT, "logs", "prometheus")[-2000:]
            time.sleep(1)
        groups = prometheus.get("/rules").json()["data"]["groups"]
    assert {Path(group["file"]).name for group in groups} == {"alerts.yml", "family.yml"}


def test_serving_on_a_cpu_needs_no_torch(container: str) -> None:
    assert inside("import importlib.util as u; print(u.find_spec('torch'))") == "None"


def test_without_its_models_it_has_at_most_800_mb(image: str) -> None:
    total = int(run("docker", "image", "inspect", image, "--format", "{{.Size}}"))
    models = int(
        run("docker", "run", "--rm", "--entrypoint", "du", image, "-sb", "/home/bentoml/bento/models").split()[0]
    )
    assert (total - models) / 1e6 < 800


def test_its_debian_packages_are_in_the_bill_of_materials(image: str) -> None:
    venv = Path(sys.executable).parents[1]
    make = ("make", "sbom", f"VENV={venv}", "--old-file", f"{venv}/.installed", f"VERSION={VERSION}")
    assert "sbom/ai-enrichment-light-cpu.debian.cdx.json" in run(*make).splitlines()
    bill = json.loads((ROOT / "sbom" / "ai-enrichment-light-cpu.debian.cdx.json").read_text(encoding="utf-8"))
    listed = {f"{each['name']}={each['version']}" for each in bill["components"] if "arch=source" not in each["purl"]}
    asked = ("-W", "-f", "${Package}=${Version}\n")
    assert listed == set(run("docker", "run", "--rm", "--entrypoint", "dpkg-query", image, *asked).split())
    assert any(each["purl"].startswith("pkg:deb/debian/libc6@") for each in bill["components"])


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
        # Callers wait meanwhile: on a CPU the engines are in the API's own process.
        body: dict[str, Any] = httpx.get(f"{container}/health", timeout=START_S).json()
        return body

    (runner,) = health()["runners"]
    run("docker", "exec", "ai-enrichment-light", "sh", "-c", f"kill -9 {runner['pid']}")
    end = time.monotonic() + START_S
    while (body := health())["status"] != "healthy" or body["runners"][0]["pid"] == runner["pid"]:
        assert time.monotonic() < end, body
        time.sleep(0.5)
    assert run("docker", "inspect", "ai-enrichment-light", "--format", "{{.RestartCount}}") == "0"


def test_a_stop_ends_it_with_0(container: str) -> None:
    # The last test of this file: the container is gone afterwards.
    began = time.monotonic()
    run(*COMPOSE, "stop")
    assert time.monotonic() - began < 30
    assert run("docker", "inspect", "ai-enrichment-light", "--format", "{{.State.ExitCode}}") == "0"
