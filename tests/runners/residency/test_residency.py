"""Who is in memory, over a made-up memory in which each engine takes a fixed part."""

from __future__ import annotations

import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from engines.engine import Engine
from engines.errors import DeviceLost, EngineError, OutOfMemory
from models.state import State
from models.store import StoredModel
from runners.residency import back_off
from runners.residency import residency as residencies
from runners.residency import resident as residents
from runners.residency.residency import Residency
from runners.residency.resident import ModelUnavailable, Resident
from tests.runners.residency.world import (
    CONTEXT_MB,
    NAMES,
    POSE,
    REID,
    SIZES,
    THREAT,
    FakeEngine,
    Make,
    World,
    resident_ones,
    states,
    swap,
    until,
    use,
)


def test_without_a_budget_everything_stays(make: Make, world: World) -> None:
    residency = make()
    use(residency, *NAMES, *NAMES)
    assert world.loads == [*NAMES]
    assert world.ready == [*NAMES]
    assert world.used_mb() == CONTEXT_MB + sum(SIZES.values())


def test_what_a_model_takes_is_measured_at_its_load_and_the_context_is_nobodys(make: Make) -> None:
    residency = make()
    assert residency.models[POSE].status()["memory_mb"] is None
    use(residency, *NAMES)
    assert {name: model.status()["memory_mb"] for name, model in residency.models.items()} == SIZES


def test_what_warming_up_took_for_a_while_is_no_models(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[FakeEngine] = []
    monkeypatch.setattr(world, "warm_up", lambda stored, _: kept.append(FakeEngine(world, stored.card.name)))

    def give_back() -> None:
        while kept:
            kept.pop().close()

    monkeypatch.setattr(world, "give_back", give_back)
    residency = make()
    use(residency, POSE, THREAT)
    assert {name: residency.models[name].status()["memory_mb"] for name in (POSE, THREAT)} == {POSE: 300, THREAT: 400}


def test_what_others_merely_keep_is_not_taken_off_a_models_size(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = make()
    use(residency, POSE)
    kept = FakeEngine(world, POSE, "kept for later", size=440)
    monkeypatch.setattr(world, "give_back", lambda: world.engines.pop(kept, None))
    use(residency, THREAT)
    assert residency.models[THREAT].status()["memory_mb"] == 400


def test_a_model_serves_while_others_are_still_to_be_evicted_for_it(make: Make, world: World) -> None:
    residency = make(budget_mb=500, stay_s=1, names=[POSE, THREAT])
    use(residency, POSE)
    began = time.monotonic()
    use(residency, THREAT)  # of unknown size: it is loaded beside the other
    assert time.monotonic() - began < 0.5
    assert states(residency) == {POSE: "ready", THREAT: "ready"}
    use(residency, POSE)
    assert resident_ones(residency) == [THREAT]
    assert residency.models[THREAT].status()["detail"] is None
    assert time.monotonic() - began > 0.9


def test_a_model_in_use_is_closed_only_when_the_call_has_ended(make: Make, world: World) -> None:
    residency = make(budget_mb=500, names=[POSE, THREAT])
    with residency.models[POSE].lease(5) as pose:
        thread = threading.Thread(target=use, args=(residency, THREAT))
        thread.start()
        until(lambda: states(residency)[POSE] == "unloaded")
        time.sleep(0.1)
        assert pose.engine in world.engines  # but nobody new gets it
    thread.join()
    until(lambda: [engine.model for engine in world.engines] == [THREAT])
    assert world.given_back >= 1


def test_one_that_is_idle_for_its_time_is_evicted_and_comes_back(make: Make, world: World) -> None:
    residency = make(ttl_s=0.3, names=[POSE])
    use(residency, POSE)
    assert world.used_mb() == CONTEXT_MB + 300
    until(lambda: states(residency)[POSE] == "unloaded", 3)
    assert residency.models[POSE].status()["detail"] == "evicted after 0.3 s without a request"
    assert world.used_mb() == CONTEXT_MB
    use(residency, POSE)
    assert residency.models[POSE].status()["loads"] == 2


def test_one_that_is_used_is_not_evicted_for_being_idle(make: Make, world: World) -> None:
    residency = make(ttl_s=0.3, names=[POSE])
    with residency.models[POSE].lease(5):
        time.sleep(residencies._TICK_S * 2 + 0.3)
    assert resident_ones(residency) == [POSE]


def test_a_preloaded_one_that_was_unloaded_by_request_stays_out_until_it_is_asked_for(make: Make, world: World) -> None:
    residency = make(preloaded=[REID])
    residency.refresh()
    until(lambda: residency.models[REID].loaded is not None)
    residency.unload(REID, 5)
    residency.refresh()  # each heartbeat does
    assert residency.models[REID].status()["state"] is State.UNLOADED
    assert residency.models[REID].status()["detail"] == "unloaded on request"
    assert not world.engines
    residency.unload(REID, 5)  # nothing to do
    residency.load(REID, 5)
    assert residency.models[REID].status()["state"] is State.READY
    assert world.loads == [REID, REID]
    residency.refresh()
    assert residency.models[REID].status()["loads"] == 2


def test_an_unload_that_takes_too_long_is_told_and_happens_later(make: Make, world: World) -> None:
    residency = make()
    with residency.models[REID].lease(5):
        with pytest.raises(ModelUnavailable, match=r"person_reid was not unloaded within 0.1 s"):
            residency.unload(REID, 0.1)
        assert world.engines
    until(lambda: not world.engines)


def test_when_a_model_was_used_last_is_known_while_it_is_loaded(make: Make) -> None:
    residency = make()
    assert residency.models[REID].status()["last_used"] is None
    began = time.time()
    with residency.models[REID].lease(5):
        pass
    used = residency.models[REID].status()["last_used"]
    assert used is not None
    assert began - 1 <= used <= time.time() + 1


def test_what_was_left_before_and_after_is_in_the_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bentoml.enrichment.runner")
    residency = make(budget_mb=500, names=[POSE, THREAT])
    use(residency, POSE, THREAT)
    assert resident_ones(residency) == [THREAT]
    assert "pose_estimator evicted to make room for threat_detector: 750 MB before, 450 MB after" in caplog.text


def test_a_load_that_finds_no_memory_fails_for_a_while(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "FIRST_RETRY_S", 0.2)
    world.failures = [OutOfMemory("CUDA out of memory: 96 MiB")]
    residency = make()
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=r"^pose_estimator does not fit into the device's memory now$"):
            use(residency, POSE)
    assert world.loads == [POSE]
    assert "96 MiB" in (residency.models[POSE].status()["detail"] or "")
    assert world.given_back == 2  # before the load, to measure it, and after
    time.sleep(0.25)
    use(residency, POSE)


def fail(resident: Resident, world: World, residency: Residency, heartbeats: int) -> None:
    """Let a heartbeat load a preloaded model that fails, and more heartbeats come."""
    loads = len(world.loads)
    residency.refresh()
    until(lambda: len(world.loads) == loads + 1 and resident.status()["state"] is State.FAILED)
    for _ in range(heartbeats):
        residency.refresh()
        resident_ones(residency)
    assert len(world.loads) == loads + 1


@pytest.mark.parametrize("failure", [OutOfMemory("96 MiB"), MemoryError()])
def test_a_preloaded_one_that_failed_for_memory_is_tried_by_heartbeats_ever_more_rarely(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    now = 1000.0
    monkeypatch.setattr(back_off, "time", SimpleNamespace(monotonic=lambda: now))
    residency = make(preloaded=[POSE])
    pose = residency.models[POSE]
    for _ in range(2):
        for wait_s in (5, 10, 20, 40, 80, 160, 300, 300):
            world.failures = [failure]
            fail(pose, world, residency, heartbeats=3)
            assert f"; the next try is in {wait_s} s at the earliest" in (pose.status()["detail"] or "")
            now += wait_s - 0.5
            assert "is in 1 s at" in (pose.status()["detail"] or "")
            residency.refresh()
            assert pose.status()["state"] is State.FAILED
            now += 0.5
        residency.refresh()
        until(lambda: pose.status()["state"] is State.READY)
        assert pose.status()["detail"] is None
        residency._enqueue(lambda: residency._evict(pose, "left"))  # what comes back later begins with 5 s again
        resident_ones(residency)


def test_a_preloaded_one_that_did_not_fit_comes_when_there_is_room(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "FIRST_RETRY_S", 0.05)
    other = FakeEngine(world, POSE, "what is not ours", size=400)
    residency = make(budget_mb=700, preloaded=[POSE, REID])
    residency.refresh()
    until(lambda: states(residency)[POSE] == "failed" and states(residency)[REID] == "ready")
    other.close()
    until(lambda: residency.refresh() or states(residency)[POSE] == "ready")  # type: ignore[func-returns-value]


def test_a_context_that_found_no_room_is_tried_again_with_the_model(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "FIRST_RETRY_S", 0.05)
    full = [OutOfMemory("CUDA error: out of memory") for _ in range(3)]

    def start() -> None:
        if full:
            raise full.pop()
        world.started = True

    monkeypatch.setattr(world, "start", start)
    residency = make(preloaded=[POSE, REID])
    residency.refresh()
    until(lambda: states(residency)[POSE] == "failed")
    until(lambda: residency.refresh() or resident_ones(residency) == [POSE, REID])  # type: ignore[func-returns-value]
    assert not full


@pytest.mark.parametrize("failure", [EngineError("no such precision"), RuntimeError("broken")])
def test_a_preloaded_one_that_failed_for_good_is_not_tried_again(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    now = 1000.0
    monkeypatch.setattr(back_off, "time", SimpleNamespace(monotonic=lambda: now))
    world.failures = [failure]
    residency = make(preloaded=[POSE])
    fail(residency.models[POSE], world, residency, heartbeats=1)
    now += 10_000
    residency.refresh()
    resident_ones(residency)
    assert world.loads == [POSE]
    assert "next try" not in (residency.models[POSE].status()["detail"] or "")


def test_neither_one_on_demand_nor_one_that_an_operator_unloaded_is_tried_by_heartbeats(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(back_off, "time", SimpleNamespace(monotonic=lambda: now))
    world.failures = [OutOfMemory("96 MiB"), OutOfMemory("96 MiB")]
    residency = make(preloaded=[POSE])
    for name in (POSE, THREAT):
        with pytest.raises(ModelUnavailable):
            use(residency, name)
    residency.unload(POSE, 5)
    now += 10
    residency.refresh()
    resident_ones(residency)
    assert world.loads == [POSE, THREAT]
    use(residency, POSE, THREAT)  # requests do


def test_a_lost_device_is_told_to_the_runner(make: Make, world: World) -> None:
    lost = DeviceLost("illegal memory access")
    world.failures = [lost]
    residency = make()
    with pytest.raises(ModelUnavailable):
        use(residency, POSE)
    assert world.lost == [lost]
    assert states(residency)[POSE] == "failed"


def test_an_engine_whose_warm_up_fails_gives_its_memory_back(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warm_up(stored: StoredModel, engine: Engine) -> None:
        raise OutOfMemory("batch of 8")

    monkeypatch.setattr(world, "warm_up", warm_up)
    residency = make()
    with pytest.raises(ModelUnavailable):
        use(residency, POSE)
    assert world.used_mb() == CONTEXT_MB


def test_another_engine_takes_the_place_of_the_present_one_when_it_is_warm(make: Make, world: World) -> None:
    residency = make()
    use(residency, POSE)
    with residency.models[POSE].lease(5) as before:
        thread = threading.Thread(target=swap, args=(residency, lambda: FakeEngine(world, POSE, "tensorrt", size=200)))
        thread.start()
        until(lambda: residency.models[POSE].status()["engine"] == "tensorrt")
        assert before.engine in world.engines  # the call under way ends on the former
    thread.join()
    assert resident_ones(residency)[0] == POSE
    assert world.warm == ["torch", "tensorrt"]
    assert [(engine.name, engine.model) for engine in world.engines] == [("tensorrt", POSE)]
    assert residency.models[POSE].status()["memory_mb"] == 200


@pytest.mark.parametrize("failure", [EngineError("unreadable"), OutOfMemory("full"), RuntimeError("no kernel")])
def test_where_that_fails_the_present_one_goes_on(make: Make, world: World, failure: Exception) -> None:
    def load() -> Engine:
        raise failure

    residency = make()
    use(residency, POSE)
    assert swap(residency, load) is failure
    assert residency.models[POSE].status()["engine"] == "torch"
    use(residency, POSE)


def test_one_that_has_such_an_engine_already_gets_no_second(make: Make, world: World) -> None:
    residency = make()
    use(residency, POSE)
    for _ in range(2):
        assert swap(residency, lambda: FakeEngine(world, POSE, "tensorrt", size=200)) is None
    assert world.warm == ["torch", "tensorrt"]


def test_a_model_that_has_left_gets_no_other_engine(make: Make, world: World) -> None:
    residency = make()
    assert swap(residency, lambda: FakeEngine(world, POSE, "tensorrt")) is None
    assert world.engines == {}


def test_a_driver_that_fails_once_does_not_end_the_thread(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = make(ttl_s=0.05, names=[POSE])
    use(residency, POSE)
    calls: list[Any] = []

    def used_mb() -> float:
        calls.append(1)
        raise RuntimeError("NVML: unknown error")

    monkeypatch.setattr(world, "used_mb", used_mb)
    until(lambda: bool(calls), 3)
    monkeypatch.undo()
    until(lambda: states(residency)[POSE] == "unloaded", 3)
    use(residency, POSE)


def test_every_transition_of_the_state_diagram(make: Make, world: World) -> None:
    """As one model's status shows them; over HTTP, and with absent and disabled: tests/serving/test_states.py."""
    seen: list[State] = []
    residency = make(budget_mb=500, names=[POSE, THREAT])
    pose = residency.models[POSE]

    def note() -> None:
        state = pose.status()["state"]
        if not seen or seen[-1] is not state:
            seen.append(state)

    original = pose._request_load

    def request_load(resident: Resident) -> None:
        note()
        original(resident)

    pose._request_load = request_load
    note()
    use(residency, POSE)
    note()
    pose.set_building("…")
    note()
    pose.set_building(None)
    note()
    use(residency, THREAT)
    note()
    world.failures = [RuntimeError("broken")]
    with pytest.raises(ModelUnavailable):
        use(residency, POSE)
    note()
    assert [re.sub("_.*", "", state) for state in seen] == [
        "unloaded",
        "loading",
        "ready",
        "building",
        "ready",
        "unloaded",
        "loading",
        "failed",
    ]
