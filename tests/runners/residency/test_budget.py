"""Which models are evicted so that another model fits, over a made-up memory."""

from __future__ import annotations

import threading
import time

import pytest

from engines.engine import Engine
from models.catalogue import ModelName
from models.store import StoredModel
from runners.residency import residency as residencies
from runners.residency import resident as residents
from runners.residency.resident import ModelUnavailable
from tests.runners.residency.world import (
    CONTEXT_MB,
    DEPTH,
    NAMES,
    PET,
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


def test_the_least_recently_used_is_evicted_first(make: Make, world: World) -> None:
    residency = make(budget_mb=800)
    use(residency, POSE, THREAT, POSE)  # 50 + 300 + 400
    use(residency, REID)  # 850: one is evicted
    assert resident_ones(residency) == [POSE, REID]
    assert residency.models[THREAT].status()["detail"] == "evicted to make room for person_reid"
    use(residency, PET, DEPTH)  # 50 + 300 + 100 + 200, and 150 more fit exactly
    assert resident_ones(residency) == [POSE, REID, PET, DEPTH]
    use(residency, POSE, THREAT)  # 400: re-id, pet and depth are older than pose, and all are evicted
    assert resident_ones(residency) == [POSE, THREAT]


def test_one_of_unknown_size_may_pass_the_budget_by_itself_and_once(make: Make, world: World) -> None:
    residency = make(budget_mb=800)
    use(residency, POSE, THREAT, PET)
    assert world.peak_mb == CONTEXT_MB + 300 + 400 + 200
    assert resident_ones(residency) == [THREAT, PET]
    assert world.used_mb() <= 800
    use(residency, REID, DEPTH)
    assert len(resident_ones(residency)) == 3
    world.peak_mb = 0
    for _ in range(3):
        use(residency, *NAMES)  # now all have been measured
    assert world.peak_mb <= 800


def test_preloaded_ones_are_never_evicted(make: Make, world: World) -> None:
    residency = make(budget_mb=800, preloaded=[POSE, REID], ttl_s=0.01)
    residency.refresh()
    until(lambda: resident_ones(residency) == [POSE, REID])
    for _ in range(3):
        use(residency, PET, DEPTH)
    time.sleep(residencies._TICK_S * 2)
    assert resident_ones(residency)[:2] == [POSE, REID]
    assert world.loads.count(POSE) == world.loads.count(REID) == 1


def test_one_that_can_never_fit_is_refused_with_the_figures_and_not_loaded_again(make: Make, world: World) -> None:
    residency = make(budget_mb=700, preloaded=[POSE])
    use(residency, POSE)
    for _ in range(5):
        with pytest.raises(ModelUnavailable) as caught:
            use(residency, THREAT)
        assert str(caught.value) == (
            "threat_detector does not fit: it takes 400 MB, with it the process would take 750 MB, and the budget is "
            "700 MB; preloaded and staying: pose_estimator (300 MB)"
        )
    assert world.loads == [POSE, THREAT]  # once, to be measured
    assert world.used_mb() == CONTEXT_MB + 300
    assert states(residency)[THREAT] == "failed"
    detail = residency.models[THREAT].status()["detail"]
    assert detail == f"{caught.value}; the next try is in 5 s at the earliest"
    use(residency, REID)  # the others are none the worse


def test_a_budget_beside_the_context_is_the_models_alone(make: Make, world: World) -> None:
    residency = make(budget_mb=699, preloaded=[POSE], beside_context=True)
    assert residency.budget_mb == 699  # there is no context yet
    use(residency, POSE)
    assert residency.budget_mb == 699 + CONTEXT_MB
    with pytest.raises(ModelUnavailable, match=r"would take 750 MB, and the budget is 749 MB"):
        use(residency, THREAT)
    residency = make(budget_mb=700, preloaded=[POSE], beside_context=True)
    world.engines.clear()
    use(residency, POSE, THREAT)
    assert make(budget_mb=0, beside_context=True).budget_mb == 0  # no limit
    assert world.used_mb() == CONTEXT_MB + 300 + 400


def test_one_that_did_not_fit_is_measured_again_a_while_later(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "FIRST_RETRY_S", 0.3)
    monkeypatch.setattr(residents, "LONGEST_RETRY_S", 0.3)
    residency = make(budget_mb=700, preloaded=[POSE])
    use(residency, POSE, REID)
    for _ in range(3):
        for _ in range(5):
            with pytest.raises(ModelUnavailable, match="takes 400 MB"):
                use(residency, THREAT)
        time.sleep(0.35)
    assert world.loads == [POSE, REID, THREAT, THREAT, THREAT]
    assert resident_ones(residency) == [POSE, REID]  # none was evicted for one that would not fit even so
    monkeypatch.setitem(SIZES, THREAT, 300)  # what was measured was too much
    use(residency, THREAT)
    assert resident_ones(residency) == [POSE, THREAT]


def test_one_that_was_just_loaded_stays_and_the_next_one_waits_for_it(make: Make, world: World) -> None:
    residency = make(budget_mb=500, stay_s=1.5, names=[POSE, THREAT])
    use(residency, POSE, THREAT)  # now both have been measured
    assert resident_ones(residency) == [THREAT]
    asked = time.monotonic()
    use(residency, POSE)
    thread = threading.Thread(target=use, args=(residency, THREAT))
    thread.start()
    until(lambda: "just loaded" in (residency.models[THREAT].status()["detail"] or ""), 1.4)
    assert states(residency) == {POSE: "ready", THREAT: "loading"}
    use(residency, POSE)  # meanwhile it serves
    thread.join()
    assert time.monotonic() - asked >= 1.5
    assert resident_ones(residency) == [THREAT]


def test_a_stop_does_not_wait_for_room(make: Make, world: World) -> None:
    residency = make(budget_mb=500, stay_s=60, names=[POSE, THREAT])
    use(residency, POSE, THREAT)
    began = time.monotonic()
    residency.close()
    assert time.monotonic() - began < 1
    assert not residency._thread.is_alive()
    assert states(residency) == {POSE: "ready", THREAT: "ready"}


def test_alternating_requests_cause_a_bounded_number_of_reloads(make: Make, world: World) -> None:
    stay_s, seconds = 0.25, 2.0
    residency = make(budget_mb=500, stay_s=stay_s, names=[POSE, THREAT])
    end = time.monotonic() + seconds
    served = {POSE: 0, THREAT: 0}

    def ask(name: ModelName) -> None:
        while time.monotonic() < end:
            use(residency, name)
            served[name] += 1
            time.sleep(0.001)

    threads = [threading.Thread(target=ask, args=(name,)) for name in (POSE, THREAT) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The first two may replace each other at once, being measured; from then on each stays its time.
    assert 4 <= len(world.loads) <= seconds / stay_s + 3
    assert min(served.values()) > 100
    assert {name: model.status()["loads"] for name, model in residency.models.items()} == {
        name: world.loads.count(name) for name in (POSE, THREAT)
    }


def test_others_are_evicted_where_another_engine_takes_more(make: Make, world: World) -> None:
    residency = make(budget_mb=800)
    use(residency, REID, POSE, PET)  # 650
    assert swap(residency, lambda: FakeEngine(world, POSE, "tensorrt", size=500)) is None
    assert resident_ones(residency) == [POSE, PET]
    assert world.used_mb() == CONTEXT_MB + 500 + 200


def test_what_is_merely_kept_for_later_is_given_back_before_any_is_evicted(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = make(budget_mb=800)
    use(residency, POSE, REID, PET)  # 650
    kept = [FakeEngine(world, PET)]  # an allocator's cache: 850

    def give_back() -> None:
        while kept:
            kept.pop().close()

    monkeypatch.setattr(world, "give_back", give_back)
    use(residency, DEPTH)
    assert kept == []
    assert resident_ones(residency) == [POSE, REID, PET, DEPTH]


def test_a_model_stays_where_the_others_gave_back_less_than_they_took(
    make: Make, world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = make(budget_mb=500, names=[POSE, THREAT])
    use(residency, POSE)
    leak = FakeEngine(world, DEPTH, size=0)
    close = FakeEngine.close

    def leaking(engine: FakeEngine) -> None:
        close(engine)
        world.engines[leak] = 150.0

    monkeypatch.setattr(FakeEngine, "close", leaking)
    use(residency, THREAT)
    assert resident_ones(residency) == [THREAT]
    assert "the memory budget is exceeded: threat_detector does not fit" in caplog.text
    use(residency, THREAT)


def test_a_model_takes_what_it_gave_back_not_what_its_first_load_left_for_good(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA's kernels: they are loaded with the first model that needs them, and stay."""
    load = world.load

    def load_with_kernels(stored: StoredModel) -> Engine:
        if stored.card.name not in world.loads:
            FakeEngine(world, stored.card.name, "kernels", size=60)
        return load(stored)

    monkeypatch.setattr(world, "load", load_with_kernels)
    residency = make(budget_mb=CONTEXT_MB + 300 + 4 * 60 + 205, preloaded=[POSE])
    residency.refresh()
    for name in (REID, PET, DEPTH, PET, REID, DEPTH):
        use(residency, name)
    assert resident_ones(residency)[0] == POSE
