"""The routes of DeepStack and CodeProject.AI over HTTP, asked by the packages that real installations use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.serving.document import Document
from tests.serving.pictures import encoded, marked
from tests.serving.server import ROOT, Server, serving

pytestmark = pytest.mark.serve

# Not among the requirements: two of them bring a package `tests` of their own, and the third wants OpenCV with X.
# What they need beside is among the requirements.
PACKAGES: Final = ("deepstack-python==0.9", "codeproject-ai-api==0.1", "deepstack-sdk==0.2.1", "validators==0.35.0")
IMAGE: Final = encoded(marked((100, 80, 300, 280), (640, 480), (200, 30, 90)))
DETECTION: Final = "/v1/vision/detection"


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with these routes on."""
    with serving(tmp_path_factory.mktemp("deepstack"), {"ENRICHMENT_DEEPSTACK": "true"}) as running:
        yield running


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{', '.join(PACKAGES)} can't be installed here: {done.stderr[-300:]}")
    return folder


def asked(server: Server, packages: Path, tmp_path: Path) -> dict[str, Any]:
    image = tmp_path / "image.png"
    image.write_bytes(IMAGE)
    script = ROOT / "tests" / "clients" / "deepstack_ways.py"
    done = subprocess.run(
        [sys.executable, str(script), str(server.address[1]), str(image)],
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + server.log[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_packages_read_predictions_and_errors(recorder: Server, packages: Path, tmp_path: Path) -> None:
    found = asked(recorder, packages, tmp_path)
    python, codeproject, sdk = (found[name] for name in ("deepstack-python", "codeproject-ai-api", "deepstack-sdk"))
    assert sum(python["summary"].values()) == len(python["detection"])
    assert {"person"} < set(python["summary"])
    assert [each["label"] for each in python["pose"]] == ["person"]
    assert codeproject["detection"] == python["detection"]
    keys = ("label", "confidence", "x_min", "y_min", "x_max", "y_max")
    assert sdk["detection"] == [[each[key] for key in keys] for each in python["detection"]]
    assert sdk["pose"] == [[each[key] for key in keys] for each in python["pose"]]
    for label, _, *box in sdk["detection"]:
        assert all(abs(here - there) <= 2 for here, there in zip(box, (100, 80, 300, 280), strict=True)), label
    assert "404" in python["unknown model"]
    assert "403" in python["faces"]
    assert "403" in codeproject["faces"]
    assert (sdk["damaged"], sdk["confidence"]) == ("Invalid image", "Invalid image")
    assert "not enabled" in sdk["faces"]


def test_an_answer_is_as_in_the_document_and_counted(recorder: Server) -> None:
    document = Document.of(recorder.url)
    hooks = {"response": [document.check_response]}
    with httpx.Client(base_url=recorder.url, timeout=30, event_hooks=hooks) as client:
        answer = client.post(DETECTION, files={"image": IMAGE}, headers={"x-request-id": "from-a-recorder"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "from-a-recorder")
        assert answer.json()["executionProvider"] == "openvino"
        assert client.post(DETECTION, files={"image": b"no image"}).status_code == 400
        for path in ("/v1/status/ping", "/v1/server/status/updateavailable", "/v1/vision/custom/list"):
            assert client.get(path).json()["success"] is True
        metrics = client.get("/metrics").text
    for status, times in ((200, 1), (400, 1)):
        line = f'enrichment_light_inference_requests_total{{endpoint="{DETECTION}",status="{status}"}} '
        (counted,) = (float(each.removeprefix(line)) for each in metrics.splitlines() if each.startswith(line))
        assert counted >= times
    assert f'bentoml_service_request_total{{endpoint="{DETECTION}"' in metrics
    assert f"from-a-recorder POST {DETECTION} 200" in recorder.log


def test_a_refused_upload_of_a_large_image_is_read_by_the_client(recorder: Server, server: Server) -> None:
    large = b"x" * (8 * 2**20)
    refused = httpx.post(f"{recorder.url}/v1/vision/face", files={"image": large}, timeout=30)
    off = httpx.post(f"{server.url}{DETECTION}", files={"image": large}, timeout=30)
    assert (refused.status_code, off.status_code) == (403, 403)
    assert "ENRICHMENT_DEEPSTACK=true" in off.json()["error"]
