"""What /models/status says, who may load and unload, and which path is which route."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette

from api.errors import ApiError
from api.management import Management
from api.pages import pages
from api.remote import RemoteLink
from models.catalogue import CATALOGUE, ModelName
from models.state import State
from settings import DEFAULT_FILE, load
from tests.api.asgi import ask
from tests.api.test_health import link_of, status
from tests.api.test_model_report import report_of

NAMES = tuple(CATALOGUE)
STATES: dict[ModelName, State] = {
    "pose_estimator": State.READY,
    "threat_detector": State.UNLOADED,
    "person_reid": State.BUILDING_ENGINE,
    "pet_classifier": State.LOADING,
}


async def management(*, gpu: str | None = "NVIDIA RTX A400", enabled: bool = True) -> tuple[Management, RemoteLink]:
    link = await link_of({name: status(state) for name, state in STATES.items()}, gpu=gpu)
    return Management([link], ["pose_estimator"], enabled=enabled, uptime_seconds=12.34), link


async def test_the_status_of_models_on_a_gpu() -> None:
    managed, _ = await management()
    assert managed.status() == {
        "status": "healthy",
        "vram_total_mb": 4300,
        "vram_used_mb": 500,
        "vram_available_mb": 3800,
        "vram_budget_mb": 1200,
        "loaded_models": [
            {
                "name": "yolov8n-pose",
                "loaded": True,
                "vram_mb": 123,
                "priority": "preloaded",
                "last_used": "2027-01-15T08:00:00+00:00",
            },
            {"name": "osnet-x0-25", "loaded": True, "vram_mb": 0, "priority": "on_demand", "last_used": None},
        ],
        "pending_loads": ["pet-classifier"],
        "uptime_seconds": 12.3,
    }


async def test_on_a_cpu_no_model_takes_video_memory() -> None:
    found = (await management(gpu=None))[0].status()
    assert [found[f"vram_{what}_mb"] for what in ("total", "used", "available", "budget")] == [0, 0, 0, 0]
    assert [model["vram_mb"] for model in found["loaded_models"]] == [0, 0]


@pytest.mark.parametrize("name", ["osnet-x0-25", "person_reid", "reid"])
async def test_a_model_goes_by_each_of_its_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    managed, link = await management()
    calls: list[tuple[str, str]] = []

    async def manage(action: str, model: ModelName) -> Any:
        calls.append((action, model))
        return status(State.UNLOADED)

    monkeypatch.setattr(link, "manage", manage)
    assert await managed.change("unload", name) == {"name": "osnet-x0-25", "loaded": False, "state": "unloaded"}
    assert calls == [("unload", "person_reid")]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("yolo", "not_found", "there is no model 'yolo'; there are pose_estimator \\(pose, yolov8n-pose\\), threat"),
        ("depth_estimator", "model_not_assigned", "ENRICHMENT_DEPTH_SERVICE=heavy"),
    ],
)
async def test_a_model_that_is_not_here_is_refused(name: str, code: str, said: str) -> None:
    managed, _ = await management()
    with pytest.raises(ApiError, match=said) as caught:
        await managed.change("load", name)
    assert caught.value.code == code


async def test_nothing_can_be_changed_where_that_is_off() -> None:
    managed, _ = await management(enabled=False)
    for attempt in (managed.change("unload", "person_reid"), managed.unload_all()):
        with pytest.raises(ApiError, match="ENRICHMENT_MODEL_MANAGEMENT=true and ENRICHMENT_API_KEY") as caught:
            await attempt
        assert caught.value.status == 403


async def app_of(*, enabled: bool = True) -> tuple[Starlette, RemoteLink]:
    managed, link = await management(enabled=enabled)
    app = pages(dict, load(DEFAULT_FILE, {}))
    app.state.reports = SimpleNamespace(management=lambda: managed, models=lambda: report_of(link))
    return app, link


async def test_the_path_of_a_route_is_not_read_as_a_models_name() -> None:
    app, _ = await app_of()
    assert "loaded_models" in (await ask(app, "GET", "/models/status")).json()
    for method, path, allowed in [
        ("GET", "/models/preload", {"POST"}),
        ("GET", "/models/unload-all", {"POST"}),
        ("POST", "/models/status", {"GET", "HEAD"}),
        ("POST", "/models/pose", {"GET", "HEAD"}),
        ("POST", "/models", {"GET", "HEAD"}),
        ("GET", "/models/pose/load", {"POST"}),
        ("GET", "/models/pose/unload", {"POST"}),
        ("DELETE", "/models/status", {"GET", "HEAD"}),
    ]:
        refused = await ask(app, method, path)
        assert (refused.status_code, set(refused.headers["allow"].split(", "))) == (405, allowed), path


async def test_a_model_is_a_resource() -> None:
    app, _ = await app_of()
    listed = (await ask(app, "GET", "/models")).json()["models"]
    assert [model["name"] for model in listed] == list(NAMES)
    for model in listed:
        for key in ("name", "short_name"):
            assert (await ask(app, "GET", f"/models/{model[key]}")).json() == model
        assert (await ask(app, "GET", f"/models/{model['weights']['folder']}")).json() == model
    assert (await ask(app, "HEAD", "/models/pose")).status_code == 200
    for method, path in [("GET", "/models/yolo"), ("POST", "/models/yolo/load"), ("POST", "/models/status/unload")]:
        missing = await ask(app, method, path)
        assert (missing.status_code, missing.headers["x-error-code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/models/osnet-x0-25/load", "/models/reid/load", "/models/preload?model_name=reid"])
async def test_a_model_is_loaded_by_either_route(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, link = await app_of()
    calls: list[tuple[str, str]] = []

    async def manage(action: str, model: ModelName) -> Any:
        calls.append((action, model))
        return status(State.READY)

    monkeypatch.setattr(link, "manage", manage)
    loaded = await ask(app, "POST", path)
    assert loaded.json() == {"name": "osnet-x0-25", "loaded": True, "state": "ready"}
    assert calls == [("load", "person_reid")]


@pytest.mark.parametrize(
    "path", ["/models/pose/load", "/models/pose/unload", "/models/preload?model_name=pose", "/models/unload-all"]
)
async def test_each_route_that_changes_something_can_be_off(path: str) -> None:
    app, _ = await app_of(enabled=False)
    refused = await ask(app, "POST", path)
    assert (refused.status_code, refused.headers["x-error-code"]) == (403, "forbidden")
    assert (await ask(app, "GET", "/models/pose")).status_code == 200
