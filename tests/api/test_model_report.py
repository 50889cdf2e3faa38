"""What GET /models and /models/NAME say of a model in each state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.answering import Activity
from api.errors import ApiError
from api.model_report import ModelReport
from api.model_schemas import ModelResponse, ModelsResponse
from api.remote import RemoteLink
from models.catalogue import CATALOGUE, ModelName
from models.state import State
from settings import DEFAULT_FILE, load
from tests.api.test_health import CARD, WATCHDOG, link_of, status

SETTINGS = load(DEFAULT_FILE, {})
ACTIVITY = Activity({"waiting": 2, "in_progress": 3, "expected_ms": 41.5}, {"p50": 20.5, "p95": 90.1, "samples": 200})


def report_of(*links: RemoteLink) -> ModelReport:
    assigned = {name for link in links for name in link.models}
    return ModelReport(links, SETTINGS, lambda name: ACTIVITY if name in assigned else None)


def checked(body: dict[str, Any]) -> dict[str, Any]:
    """The body, which has the keys and types of its model and no others."""
    sent: dict[str, Any] = json.loads(json.dumps(body))
    model = ModelsResponse if "models" in body else ModelResponse
    assert json.loads(model.model_validate_json(json.dumps(body)).model_dump_json()) == sent
    return sent


async def test_a_model_that_serves() -> None:
    link = await link_of({"person_reid": status(State.READY)}, gpu="NVIDIA RTX A400")
    link.batches["person_reid"].note([{"timing": {"taken": 1, "loaded": 2, "batch": 4}}])
    assert checked(report_of(link).one("person_reid")) == {
        "name": "person_reid",
        "short_name": "reid",
        "title": "OSNet x0.25",
        "route": "/person-reid",
        "state": "ready",
        "detail": None,
        "last_error": None,
        "engine": "openvino",
        "precision": "f32",
        "device": {"name": "NVIDIA RTX A400", "index": 1},
        "memory_mb": 123,
        "weights": {
            "folder": "osnet-x0-25",
            "file": "osnet_x0_25.pth",
            "sha256": CARD["sha256"],
            "source": "/zoo/w.pt",
            "licence": "MIT",
            "homepage": CATALOGUE["person_reid"].homepage,
            "untrained": False,
        },
        "labels": ["a", "b"],
        "input": {"height": 256, "width": "any"},
        "max_batch_size": SETTINGS.models["person_reid"].max_batch_size,
        "queue": {"waiting": 2, "in_progress": 3, "expected_ms": 41.5},
        "recent_batches": {"4": 1},
        "loads": 1,
        "last_used": "2027-01-15T08:00:00+00:00",
        "latency_ms": {"p50": 20.5, "p95": 90.1, "samples": 200},
    }


async def test_all_five_are_listed_whoever_serves_them() -> None:
    link = await link_of({"person_reid": status(State.READY), "pet_classifier": status(State.LOADING)})
    models = checked(report_of(link).all())["models"]
    assert [model["name"] for model in models] == list(CATALOGUE)
    assert [model["state"] for model in models] == ["disabled", "disabled", "ready", "loading", "disabled"]


@pytest.mark.parametrize("name", CATALOGUE)
async def test_a_model_goes_by_each_of_its_names(name: ModelName) -> None:
    spec, report = CATALOGUE[name], report_of(await link_of({name: status(State.READY)}))
    for sent in (name, spec.weights, spec.short_name):
        assert report.one(sent)["name"] == name
        assert report.one(sent)["state"] == "ready"


@pytest.mark.parametrize("name", ["yolo", "", "Pose", "pose_estimator ", "../pose", "x" * 5000])
async def test_an_unknown_name_is_not_found_and_the_known_ones_are_said(name: str) -> None:
    with pytest.raises(ApiError, match=r"there is no model .*person_reid \(reid, osnet-x0-25\)") as caught:
        report_of(await link_of({"person_reid": status(State.READY)})).one(name)
    assert caught.value.code == "not_found"
    assert len(caught.value.message) < 500


async def test_of_a_disabled_model_nothing_is_made_up() -> None:
    model = checked(report_of().one("person_reid"))
    assert (model["state"], model["detail"]) == ("disabled", "assigned to the heavy service")
    for key in ("engine", "precision", "device", "memory_mb", "labels", "input", "queue", "last_used", "last_error"):
        assert model[key] is None, key
    assert [model["weights"][key] for key in ("sha256", "source", "untrained")] == [None] * 3
    assert model["recent_batches"] == {}
    assert model["latency_ms"] == {"p50": None, "p95": None, "samples": 0}


async def test_without_weights_there_is_no_card() -> None:
    model = checked(report_of(await link_of({"person_reid": status(State.ABSENT)})).one("reid"))
    assert (model["state"], model["detail"]) == ("absent", "why")
    assert [model["weights"][key] for key in ("sha256", "source", "untrained")] == [None] * 3
    assert model["weights"]["licence"] == CATALOGUE["person_reid"].licence
    assert (model["labels"], model["input"]) == (None, None)
    assert model["device"] == {"name": "CPU", "index": None}


async def test_a_failed_model_says_what_happened_and_when() -> None:
    model = checked(report_of(await link_of({"person_reid": status(State.FAILED)})).one("reid"))
    assert model["state"] == "failed"
    assert model["last_error"] == {"at": "2027-01-15T08:00:00+00:00", "message": "why"}


async def test_stand_ins_are_marked() -> None:
    link = await link_of({"person_reid": status(State.READY, untrained=True)})
    assert checked(report_of(link).one("reid"))["weights"]["untrained"] is True


async def test_while_its_runner_is_down_a_model_has_failed_and_keeps_its_card() -> None:
    link = await link_of({"person_reid": status(State.READY, untrained=True)}, gpu="GPU", up=False)
    model = checked(report_of(link).one("reid"))
    assert (model["state"], model["detail"]) == ("failed", "its runner is not running; it is being restarted")
    assert (model["weights"]["sha256"], model["weights"]["untrained"]) == (CARD["sha256"], True)
    assert (model["labels"], model["input"]) == (["a", "b"], {"height": 256, "width": "any"})
    for key in ("engine", "precision", "device", "memory_mb", "last_used"):
        assert model[key] is None, key


async def test_a_runner_that_was_never_up_has_no_card() -> None:
    model = checked(report_of(RemoteLink("runner", ["person_reid"], print, WATCHDOG)).one("reid"))
    assert (model["state"], model["weights"]["sha256"], model["labels"]) == ("failed", None, None)
