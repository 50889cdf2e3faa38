"""Models that are loaded and unloaded over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import yaml

from api import recent
from models.catalogue import CATALOGUE
from tests.serving.pictures import answer, check_error, plain
from tests.serving.server import ROOT, Server, serving

pytestmark = pytest.mark.serve

KEY = {"X-API-Key": "k1"}


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {"ENRICHMENT_MODEL_MANAGEMENT": "true", "ENRICHMENT_API_KEY": KEY["X-API-Key"]}
    with serving(tmp_path_factory.mktemp("managed"), environment) as running:
        yield running


def test_a_preloaded_model_leaves_on_request_and_comes_back(managed: Server) -> None:
    with httpx.Client(base_url=managed.url, timeout=30, headers=KEY) as client:
        loaded = client.get("/models/status").json()["loaded_models"]
        assert [model["name"] for model in loaded] == [spec.weights for spec in CATALOGUE.values()]
        assert {model["priority"] for model in loaded} == {"preloaded"}

        left = client.post("/models/osnet-x0-25/unload")
        assert left.json() == {"name": "osnet-x0-25", "loaded": False, "state": "unloaded"}
        assert client.get("/health").json()["models"]["reid"] is False
        assert client.get("/readyz").status_code == 200

        back = client.post("/models/preload", params={"model_name": "person_reid"})
        assert back.json() == {"name": "osnet-x0-25", "loaded": True, "state": "ready"}
        assert client.get("/health").json()["models"]["reid"] is True


def test_all_models_leave_on_request_and_each_comes_back_when_it_is_asked(managed: Server) -> None:
    with httpx.Client(base_url=managed.url, timeout=30, headers=KEY) as client:
        assert len(client.post("/models/unload-all").json()["models"]) == 5
        assert client.get("/models/status").json()["loaded_models"] == []
        answer(client, "/person-reid", plain((10, 20, 30)))
        # By the next heartbeat.
        managed.wait(lambda: client.get("/models/reid").json()["state"] == "ready", "loaded", 30)
        assert [model["name"] for model in client.get("/models/status").json()["loaded_models"]] == ["osnet-x0-25"]


def test_home_assistants_example_loads_a_model(managed: Server) -> None:
    file = ROOT / "examples" / "home-assistant" / "configuration.yaml"
    command = yaml.safe_load(file.read_text(encoding="utf-8"))["rest_command"]["enrichment_preload"]
    url = command["url"].replace("http://ADDRESS:8096", managed.url).replace("{{ model }}", "pose")
    headers = {name: value.replace("KEY", KEY["X-API-Key"]) for name, value in command["headers"].items()}
    answer = httpx.request(command["method"], url, headers=headers, timeout=command["timeout"])
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")


@pytest.mark.parametrize("path", ["/models/reid/unload", "/models/unload-all", "/models/preload?model_name=reid"])
def test_a_page_in_somebodys_browser_changes_nothing_where_models_are_managed(managed: Server, path: str) -> None:
    with httpx.Client(base_url=managed.url, timeout=30) as client:
        before = client.get("/models/status", headers=KEY).json()["loaded_models"]
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            headers = {
                "Origin": "https://evil.example",
                "Content-Type": kind,
                "Cookie": f"X-API-Key={KEY['X-API-Key']}",
            }
            assert client.post(path, headers=headers).status_code == 401
        after = client.get("/models/status", headers=KEY).json()["loaded_models"]
        assert [model["name"] for model in after] == [model["name"] for model in before]


def test_mistakes_have_the_shape_of_errors(managed: Server, client: httpx.Client) -> None:
    with httpx.Client(base_url=managed.url, timeout=30, headers=KEY) as own:
        check_error(own.post("/models/yolo/unload"), 404, "not_found")
        check_error(own.post("/models/preload"), 422, "invalid_request")
        check_error(own.get("/models/preload"), 405, "method_not_allowed")
    for path in ("/models/preload?model_name=person_reid", "/models/person_reid/unload", "/models/unload-all"):
        check_error(client.post(path), 403, "forbidden")  # of a service as it is delivered


def test_each_model_is_described_as_the_document_says(client: httpx.Client) -> None:
    answer(client, "/person-reid", plain((10, 20, 30)))
    models = client.get("/models").json()["models"]
    assert [model["name"] for model in models] == list(CATALOGUE)
    for name, spec in CATALOGUE.items():
        for sent in (name, spec.weights, spec.short_name):
            model = client.get(f"/models/{sent}").json()
            assert (model["name"], model["state"], model["weights"]["sha256"][:4]) == (name, "ready", "0123")
    check_error(client.get("/models/yolo"), 404, "not_found")


def test_models_of_a_runner_process_are_described_too(shared_server: Server) -> None:
    with httpx.Client(base_url=shared_server.url, timeout=30) as client:
        before = client.get("/models/reid").json()
        answer(client, "/person-reid", plain((10, 20, 30)))
        model = client.get("/models/reid").json()
        batches = sum(before["recent_batches"].values()) + 1
        assert sum(model["recent_batches"].values()) == min(batches, recent.BATCHES)
        assert model["latency_ms"]["samples"] == min(before["latency_ms"]["samples"] + 1, recent.LATENCIES)
        assert model["queue"]["expected_ms"] > 0
        assert (model["weights"]["source"], model["device"]) == ("made up", {"name": "CPU", "index": None})


def test_models_in_every_state_are_described(limited_client: httpx.Client) -> None:
    models = {model["short_name"]: model for model in limited_client.get("/models").json()["models"]}
    states = {name: model["state"] for name, model in models.items()}
    assert states["threat"] in {"absent", "ready"}  # other tests of this server import and load the two
    assert states["reid"] in {"unloaded", "ready"}
    assert (states["pose"], states["pet"], states["depth"]) == ("ready", "disabled", "failed")
    assert models["pose"]["weights"]["untrained"] is True
    assert models["depth"]["last_error"]["message"] == models["depth"]["detail"]
