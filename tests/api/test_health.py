from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from api.health import is_ready, model_statuses, readiness, report
from api.remote import RemoteLink
from models.card import CardSummary, ModelInput
from models.catalogue import CATALOGUE, ModelName
from models.state import ModelStatus, State
from runners.contract import DeviceStatus, MemoryStatus, RunnerStatus
from settings import Watchdog

WATCHDOG = Watchdog(silence_s=5, hung_s=20)

NAMES = tuple(CATALOGUE)
CARD: CardSummary = {"sha256": "0123456789abcdef" * 4, "source": "/zoo/w.pt", "licence": "MIT", "labels": ["a", "b"]}


def status(state: State, *, untrained: bool = False) -> ModelStatus:
    found = state not in (State.ABSENT, State.DISABLED)
    return {
        "state": state,
        "engine": "openvino" if state is State.READY else None,
        "precision": "f32" if state is State.READY else None,
        "weights": ("untrained" if untrained else "weights@0123456789ab") if found else None,
        "untrained": untrained,
        "detail": None if state in (State.READY, State.UNLOADED, State.LOADING) else "why",
        "input": cast("ModelInput", {"height": 256, "width": None}) if found else None,
        "card": CARD if found else None,
        "memory_mb": 123 if state is State.READY else None,
        "loads": 1 if state is State.READY else 0,
        "last_used": 1.8e9 if state is State.READY else None,
        "engine_build_failed": False,
        "last_error": {"at": 1.8e9, "message": "why"} if state is State.FAILED else None,
    }


async def link_of(
    models: Mapping[ModelName, ModelStatus],
    *,
    up: bool = True,
    gpu: str | None = None,
    preload: Sequence[ModelName] = NAMES,
) -> RemoteLink:
    """A link as the heartbeat leaves it. It makes no calls."""
    link = RemoteLink("runner", tuple(models), print, WATCHDOG, [name for name in preload if name in models])
    device: DeviceStatus = {"name": "CPU", "index": None, "memory_gb": None, "driver": None}
    if gpu:
        device = {"name": gpu, "index": 1, "memory_gb": 4.3, "driver": "580.95"}
    memory: MemoryStatus = {"used_mb": 500, "budget_mb": 1200 if gpu else None, "out_of_memory": 0}
    runner: RunnerStatus = {"pid": 1, "device": device, "memory": memory, "fault": None, "models": dict(models)}
    link._up(runner)
    if not up:
        link._down("it died")
    return link


async def links_of(states: Sequence[State | None], preload: Sequence[ModelName] = NAMES) -> list[RemoteLink]:
    """One runner for all models; None: assigned to the heavy service."""
    pairs = zip(NAMES, states, strict=True)
    return [await link_of({name: status(state) for name, state in pairs if state is not None}, preload=preload)]


READY, UNLOADED, LOADING, ABSENT, FAILED = State.READY, State.UNLOADED, State.LOADING, State.ABSENT, State.FAILED


@pytest.mark.parametrize(
    ("states", "summary", "code"),
    [
        ((READY,) * 5, "healthy", 200),
        ((READY, READY, UNLOADED, UNLOADED, UNLOADED), "healthy", 200),
        ((UNLOADED,) * 5, "healthy", 200),
        ((READY, None, READY, None, READY), "healthy", 200),
        ((READY, READY, READY, READY, ABSENT), "degraded", 200),
        ((FAILED, READY, READY, READY, READY), "degraded", 200),
        ((UNLOADED, ABSENT, FAILED, ABSENT, None), "degraded", 200),
        ((ABSENT,) * 5, "unhealthy", 503),
        ((FAILED, ABSENT, FAILED, None, None), "unhealthy", 503),
        ((None,) * 5, "unhealthy", 503),
    ],
)
async def test_the_summary_of_all_models(states: Sequence[State | None], summary: str, code: int) -> None:
    found, body = report(await links_of(states), 1)
    assert (body["status"], found) == (summary, code)


async def test_who_only_tries_again_to_load_can_not_serve() -> None:
    """As where another process holds the GPU's memory: each try is a state of loading."""
    again: ModelStatus = {**status(LOADING), "last_error": {"at": 1.8e9, "message": "out of memory"}}
    links = [await link_of(dict.fromkeys(NAMES, status(FAILED)))]
    assert links[0].settled
    links[0]._up({**_runner_of(links[0]), "models": {**dict.fromkeys(NAMES, status(FAILED)), "pose_estimator": again}})
    assert not is_ready(links)
    assert report(links, 1)[1]["status"] == "unhealthy"
    once_loaded: ModelStatus = {**again, "loads": 1}  # evicted since, and wanted again
    links[0]._up(
        {**_runner_of(links[0]), "models": {**dict.fromkeys(NAMES, status(FAILED)), "pose_estimator": once_loaded}}
    )
    assert is_ready(links)


def _runner_of(link: RemoteLink) -> RunnerStatus:
    assert link.status is not None
    return link.status


async def test_the_document_has_the_contracts_keys_and_values() -> None:
    states = {**dict.fromkeys(NAMES, status(READY)), "person_reid": status(ABSENT), "pet_classifier": status(LOADING)}
    _, body = report([await link_of(states, gpu="NVIDIA RTX A400")], 3600.51)
    assert {key: value for key, value in body.items() if key not in ("models", "runners")} == {
        "status": "degraded",
        "models_loaded": {
            "pose_estimator": True,
            "threat_detector": True,
            "person_reid": False,
            "pet_classifier": False,
            "depth_estimator": True,
        },
        "gpu_available": True,
        "gpu_memory_used_gb": 0.5,
        "uptime_seconds": 3600.5,
    }
    assert list(body["models"]) == [*NAMES, "pose", "threat", "reid", "pet", "depth"]
    assert body["models"]["pose"] is True
    assert body["models"]["reid"] is False
    assert body["models"]["pose_estimator"] == {
        "state": "ready",
        "engine": "openvino",
        "precision": "f32",
        "weights": "weights@0123456789ab",
        "detail": None,
        "memory_mb": 123,
        "loads": 1,
        "engine_build_failed": False,
    }
    assert body["models"]["person_reid"]["detail"] == "why"
    assert body["runners"] == [
        {
            "name": "runner",
            "pid": 1,
            "restarts": 0,
            "last_fault": None,
            "device": {"name": "NVIDIA RTX A400", "index": 1, "memory_gb": 4.3, "driver": "580.95"},
            "memory": {"used_mb": 500, "budget_mb": 1200, "out_of_memory": 0},
        }
    ]
    assert json.loads(json.dumps(body)) == body


async def test_a_model_that_serves_while_its_engine_is_built_counts_as_loaded() -> None:
    link = await link_of({**dict.fromkeys(NAMES, status(READY)), "pose_estimator": status(State.BUILDING_ENGINE)})
    code, body = report([link], 1)
    assert (code, body["status"]) == (200, "healthy")
    assert body["models"]["pose_estimator"]["state"] == "building_engine"
    assert body["models_loaded"] == dict.fromkeys(NAMES, True)
    assert is_ready([link])


async def test_a_cpu_has_no_gpu_memory() -> None:
    _, body = report(await links_of((READY,) * 5), 1)
    assert (body["gpu_available"], body["gpu_memory_used_gb"]) == (False, 0)
    assert body["runners"][0]["memory"]["used_mb"] == 500


async def test_models_for_the_heavy_service_are_disabled() -> None:
    _, body = report(await links_of((READY, None, READY, READY, READY)), 1)
    assert body["models"]["threat_detector"]["state"] == "disabled"
    assert body["models_loaded"]["threat_detector"] is False


async def test_stand_ins_are_never_healthy() -> None:
    states = {**dict.fromkeys(NAMES, status(READY)), "depth_estimator": status(READY, untrained=True)}
    code, body = report([await link_of(states)], 1)
    assert (code, body["status"]) == (200, "degraded")
    assert body["models"]["depth_estimator"]["weights"] == "untrained"


async def test_a_runner_that_is_gone_takes_its_models_along() -> None:
    everything = dict.fromkeys(NAMES, status(READY))
    code, body = report([await link_of(everything, up=False)], 1)
    assert (code, body["status"]) == (503, "unhealthy")
    assert body["models_loaded"] == dict.fromkeys(NAMES, False)
    assert {body["models"][name]["state"] for name in NAMES} == {"failed"}
    assert body["models"]["pose"] is False


async def test_of_several_runners_one_may_be_gone() -> None:
    alone = await link_of({"depth_estimator": status(READY)}, up=False)
    others = await link_of({name: status(READY) for name in NAMES[:4]}, gpu="GPU")
    code, body = report([alone, others], 1)
    assert (code, body["status"]) == (200, "degraded")
    assert body["gpu_memory_used_gb"] == 0.5
    assert model_statuses([alone, others])["depth_estimator"]["state"] is State.FAILED


async def test_the_memory_is_that_of_all_runners() -> None:
    links = [await link_of({name: status(READY)}, gpu="GPU") for name in NAMES[:3]]
    assert report(links, 1)[1]["gpu_memory_used_gb"] == 1.5


@pytest.mark.parametrize(
    ("states", "preload", "ready"),
    [
        ((READY,) * 5, NAMES, True),
        ((LOADING, READY, READY, READY, READY), NAMES, False),
        ((UNLOADED, READY, READY, READY, READY), NAMES, False),
        ((LOADING, READY, READY, READY, READY), NAMES[1:], True),
        ((UNLOADED,) * 5, (), True),
        ((ABSENT, FAILED, READY, READY, READY), NAMES, True),
        ((ABSENT,) * 5, NAMES, False),
        ((ABSENT, ABSENT, ABSENT, ABSENT, UNLOADED), (), True),
    ],
)
async def test_ready_means_preloaded_models_are_warm_or_given_up(
    states: Sequence[State | None], preload: Sequence[ModelName], ready: bool
) -> None:
    assert is_ready(await links_of(states, preload)) is ready


async def test_not_ready_before_every_runner_was_heard_of() -> None:
    here = await link_of({name: status(READY) for name in NAMES[:4]})
    starting = await link_of({"depth_estimator": status(READY)}, up=False)
    starting.was_up = False
    assert not is_ready([here, starting])


async def test_one_runner_that_is_gone_does_not_take_the_others_out_of_service() -> None:
    here = await link_of({name: status(READY) for name in NAMES[:4]})
    gone = await link_of({"depth_estimator": status(READY)}, up=False)
    assert is_ready([here, gone])
    assert not is_ready([gone])


async def test_once_ready_a_model_that_is_tried_again_takes_nothing_out_of_service() -> None:
    (link,) = await links_of((FAILED, READY, READY, READY, READY))
    assert is_ready([link])
    assert link.status is not None
    again: RunnerStatus = {**link.status, "models": {**link.status["models"], NAMES[0]: status(LOADING)}}
    link._up(again)
    assert is_ready([link])
    link._up({**again, "pid": 2})  # a new process begins anew
    assert not is_ready([link])


async def test_the_readiness_probe_says_yes_or_which_state_each_model_is_in() -> None:
    assert readiness(await links_of((READY, READY, ABSENT, READY, None))) == (200, {"status": "ready"})
    status, body = readiness(await links_of((LOADING, READY, READY, READY, None)))
    states = dict(zip(NAMES, ("loading", "ready", "ready", "ready"), strict=False))
    assert (status, json.loads(json.dumps(body))) == (503, {"status": "not_ready", "models": states})
