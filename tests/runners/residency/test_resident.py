from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from engines.engine import Engine
from engines.errors import EngineError
from models import store
from models.state import State
from models.store import StoredModel, StoreError
from runners.residency.budget import Policy
from runners.residency.memory import CpuMemory
from runners.residency.residency import Residency
from runners.residency.resident import Loaded, ModelUnavailable, Resident
from tests.runners.residency.loader import Loads
from tests.serving import fake

Make = Callable[[], Resident]
FOUND = fake.find("person_reid")
assert FOUND is not None


class World:
    """A model store that may hold something and an engine that may load: written by the test, counted by itself."""

    def __init__(self) -> None:
        self.stored: StoredModel | StoreError | None = FOUND
        self.engine: Engine | Exception = fake.FakeEngine("person_reid")
        self.may_load = threading.Event()
        self.may_load.set()
        self.loads: list[str] = []

    def find(self) -> StoredModel | None:
        if isinstance(self.stored, StoreError):
            raise self.stored
        return self.stored

    def load(self, stored: StoredModel) -> Engine:
        assert stored is FOUND
        self.loads.append(threading.current_thread().name)
        assert self.may_load.wait(10)
        if isinstance(self.engine, Exception):
            raise self.engine
        return self.engine


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make(world: World) -> Iterator[Make]:
    """Makes the one model of a runner, as it is in the beginning."""
    made: list[Residency] = []

    def make() -> Resident:
        policy = Policy(0, 0, {"person_reid": 0}, frozenset())
        loads = Loads(lambda _: world.find(), world.load)
        made.append(Residency(["person_reid"], loads, CpuMemory(), policy))
        return made[-1].models["person_reid"]

    yield make
    for residency in made:
        residency.close()


def wait(resident: Resident, seconds: float) -> Loaded:
    with resident.lease(seconds) as loaded:
        return loaded


def state(resident: Resident) -> tuple[State, Any]:
    status = resident.status()
    return status["state"], status["detail"]


def test_a_stored_model_is_unloaded_until_it_is_asked_for(make: Make, world: World) -> None:
    resident = make()
    assert FOUND is not None
    assert resident.status() == {
        "state": State.UNLOADED,
        "engine": None,
        "precision": None,
        "weights": "osnet-x0-25@0123456789ab",
        "untrained": False,
        "detail": None,
        "input": {"height": None, "width": None},
        "card": FOUND.card.summary,
        "memory_mb": None,
        "loads": 0,
        "last_used": None,
        "engine_build_failed": False,
        "last_error": None,
    }
    assert world.loads == []


def test_the_first_request_loads_it_on_the_loaders_thread(make: Make, world: World) -> None:
    resident = make()
    loaded = wait(resident, 5)
    assert loaded.engine is world.engine
    assert loaded.stored is FOUND
    assert [name.split("_")[0] for name in world.loads] == ["loader"]
    status = resident.status()
    assert (status["state"], status["engine"], status["precision"]) == (State.READY, "openvino", "f32")


def test_however_many_ask_it_is_loaded_once(make: Make, world: World) -> None:
    world.may_load.clear()
    resident = make()
    engines: list[Engine] = []
    threads = [threading.Thread(target=lambda: engines.append(wait(resident, 10).engine)) for _ in range(16)]
    for thread in threads:
        thread.start()
    while not world.loads:
        time.sleep(0.001)
    assert state(resident)[0] is State.LOADING
    world.may_load.set()
    for thread in threads:
        thread.join(10)
    assert engines == [world.engine] * 16
    assert len(world.loads) == 1
    wait(resident, 1)
    assert len(world.loads) == 1


def test_who_waits_too_long_is_told_that_it_is_loading(make: Make, world: World) -> None:
    world.may_load.clear()
    resident = make()
    with pytest.raises(ModelUnavailable, match=r"person_reid is still loading after 0\.05 s"):
        wait(resident, 0.05)
    world.may_load.set()
    assert wait(resident, 5).engine is world.engine
    assert len(world.loads) == 1


def test_a_model_that_is_not_in_the_store_is_absent_and_names_the_remedy(make: Make, world: World) -> None:
    world.stored = None
    resident = make()
    remedy = "python -m models.import_models person_reid"
    with pytest.raises(ModelUnavailable, match=f"person_reid is absent: .*{remedy}"):
        wait(resident, 1)
    assert state(resident)[0] is State.ABSENT
    assert remedy in state(resident)[1]
    assert resident.status()["input"] is None
    assert world.loads == []


def test_where_nothing_can_be_imported_the_remedy_is_another_image(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stored = None
    monkeypatch.setattr(store, "find_spec", lambda _: None)  # no torch, as in the CPU's image
    with pytest.raises(ModelUnavailable, match="build the image again") as refused:
        wait(make(), 1)
    assert "import_models" not in str(refused.value)


@pytest.mark.parametrize("before", [None, StoreError("half a copy")])
def test_a_model_that_is_imported_later_is_loaded_by_the_next_request(
    make: Make, world: World, before: StoreError | None
) -> None:
    world.stored = before
    resident = make()
    with pytest.raises(ModelUnavailable):
        wait(resident, 1)
    world.stored = FOUND
    assert wait(resident, 5).engine is world.engine
    assert state(resident) == (State.READY, None)


@pytest.mark.parametrize("before", [None, StoreError("half a copy")])
def test_a_model_that_is_imported_later_is_noticed_without_a_request(
    make: Make, world: World, before: StoreError | None
) -> None:
    world.stored = before
    resident = make()
    world.stored = FOUND
    resident.look_again()
    assert state(resident) == (State.UNLOADED, None)
    assert world.loads == []


def test_a_version_that_is_imported_while_the_model_is_unloaded_is_the_one_that_loads(make: Make, world: World) -> None:
    assert FOUND is not None
    newer = replace(FOUND, tag="person_reid:newer")
    loaded: list[StoredModel] = []

    def load(stored: StoredModel) -> Engine:
        loaded.append(stored)
        return fake.FakeEngine("person_reid")

    world.load = load  # type: ignore[method-assign]
    resident = make()
    world.stored = newer
    wait(resident, 5)
    assert loaded == [newer]


def test_a_loaded_model_is_not_looked_for_again(make: Make, world: World) -> None:
    resident = make()
    wait(resident, 5)
    world.stored = None
    resident.look_again()
    assert state(resident) == (State.READY, None)


def test_a_damaged_entry_of_the_store_has_failed_with_its_text(make: Make, world: World) -> None:
    world.stored = StoreError("person_reid:1 cannot be used")
    assert state(make()) == (State.FAILED, "person_reid:1 cannot be used")


@pytest.mark.parametrize(
    ("failure", "detail"),
    [
        (EngineError("this CPU has no bf16 instructions"), "this CPU has no bf16 instructions"),
        (RuntimeError("warm-up: out of memory"), "loading failed: RuntimeError: warm-up: out of memory"),
    ],
)
def test_a_load_that_fails_is_failed_with_its_cause_and_not_tried_again(
    make: Make, world: World, failure: Exception, detail: str
) -> None:
    world.engine = failure
    resident = make()
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            wait(resident, 5)
    assert state(resident) == (State.FAILED, detail)
    assert len(world.loads) == 1


def test_a_load_whose_file_is_lost_is_tried_again_after_a_wait(make: Make, world: World) -> None:
    world.engine = StoreError("graph.onnx is missing")
    resident = make()
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            wait(resident, 5)
    assert state(resident) == (State.FAILED, "graph.onnx is missing; the next try is in 5 s at the earliest")
    assert len(world.loads) == 1
    world.engine = fake.FakeEngine("person_reid")
    resident._back_off._due = 0
    wait(resident, 5)
    assert state(resident) == (State.READY, None)


def test_what_a_caller_is_told_of_a_failure_holds_no_path(make: Make, world: World) -> None:
    world.engine = RuntimeError("cannot open /home/bentoml/models/graph.onnx")
    with pytest.raises(ModelUnavailable) as caught:
        wait(make(), 5)
    assert str(caught.value) == "person_reid has failed: /health says why"


def last_error(resident: Resident) -> Any:
    error = resident.status()["last_error"]
    return error and error["message"]


def test_the_last_error_stays_after_a_success(make: Make, world: World) -> None:
    world.engine = MemoryError("not now")
    resident = make()
    before = time.time()
    with pytest.raises(ModelUnavailable):
        wait(resident, 5)
    error = resident.status()["last_error"]
    assert error is not None
    assert before <= error["at"] <= time.time()
    assert "not now" in error["message"]
    world.engine = fake.FakeEngine("person_reid")
    resident._back_off._due = 0
    wait(resident, 5)
    assert state(resident) == (State.READY, None)
    assert resident.status()["last_error"] == error


def test_a_damaged_entry_is_one_error_however_often_it_is_looked_at(make: Make, world: World) -> None:
    world.stored = StoreError("half a copy")
    resident = make()
    first = resident.status()["last_error"]
    assert last_error(resident) == "half a copy"
    resident.look_again()
    assert resident.status()["last_error"] == first
    world.stored = StoreError("nothing of it is left")
    resident.look_again()
    assert last_error(resident) == "nothing of it is left"


def test_a_failed_engine_build_is_an_error_and_the_next_build_does_not_hide_it(make: Make) -> None:
    resident = make()
    wait(resident, 5)
    resident.set_building(None, failure="no kernel image")
    assert last_error(resident) == "no kernel image"
    resident.set_building("building again")
    assert last_error(resident) == "no kernel image"
