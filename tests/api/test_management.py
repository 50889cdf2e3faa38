"""What /models/status says, and who may load and unload."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import ApiError
from api.link import RunnerLink
from api.management import Management
from models.catalogue import CATALOGUE, ModelName
from models.state import State
from tests.api.test_health import link_of, status

NAMES = tuple(CATALOGUE)
STATES: dict[ModelName, State] = {
    "pose_estimator": State.READY,
    "threat_detector": State.UNLOADED,
    "person_reid": State.BUILDING_ENGINE,
    "pet_classifier": State.LOADING,
}


async def management(*, gpu: str | None = "NVIDIA RTX A400", enabled: bool = True) -> tuple[Management, RunnerLink]:
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


@pytest.mark.parametrize("name", ["osnet-x0-25", "person_reid"])
async def test_a_model_goes_by_both_of_its_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("yolo", "not_found", "there is no model 'yolo'; there are pose, threat, reid"),
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
        with pytest.raises(ApiError, match="ENRICHMENT_MODEL_MANAGEMENT=true") as caught:
            await attempt
        assert caught.value.status == 403
