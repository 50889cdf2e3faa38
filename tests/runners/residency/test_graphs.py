"""Who gets CUDA graphs and who gives them back, over the made-up memory of test_residency."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from engines.engine import Engine
from engines.errors import DeviceLost, OutOfMemory
from models.catalogue import ModelName
from models.store import StoredModel
from runners.residency import residency as residencies
from runners.residency import resident as residents
from runners.residency.budget import Policy
from runners.residency.residency import Residency
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
    World,
    resident_ones,
    states,
    until,
    use,
)

GRAPHS: tuple[float, ...] = (100, 40)  # MB of a model's graphs, the largest first
ALL = CONTEXT_MB + sum(SIZES.values())


class GraphedEngine(FakeEngine):
    """Has the graphs GRAPHS, each of which takes its part of the made-up memory."""

    def __init__(self, world: GraphedWorld, model: ModelName) -> None:
        super().__init__(world, model)
        self._of = world
        self.graphs: list[float] = []

    def capture(self, room_mb: Callable[[], float]) -> int:
        assert threading.current_thread().name == "loader"
        self._of.captures.append(self.model)
        self._of.seen.append(len(self._of.engines))
        if self._of.breaks is not None:
            raise self._of.breaks
        for graph in GRAPHS:
            if graph not in self.graphs and room_mb() >= graph:
                self._grow(graph)
        return len(self.graphs)

    def give_back(self) -> bool:
        had = bool(self.graphs)
        self._of.engines[self] -= sum(self.graphs)
        self.graphs.clear()
        return had

    def _grow(self, graph: float) -> None:
        self.graphs.append(graph)
        self._of.engines[self] += graph
        self._of.peak_mb = max(self._of.peak_mb, self._of.used_mb())


class GraphedWorld(World):
    """device_mb: with what is used so far, a load beyond that finds no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.captures: list[ModelName] = []
        self.seen: list[int] = []  # engines that were there at each of them
        self.breaks: Exception | None = None
        self.device_mb = 1e9

    def load(self, stored: StoredModel) -> Engine:
        name = stored.card.name
        self.loads.append(name)
        if self.used_mb() + SIZES[name] > self.device_mb:
            raise OutOfMemory(f"CUDA out of memory: {SIZES[name]} MB")
        return GraphedEngine(self, name)

    def graphs(self) -> dict[str, list[float]]:
        return {engine.model: engine.graphs for engine in self.engines if isinstance(engine, GraphedEngine)}


@pytest.fixture
def world() -> GraphedWorld:
    return GraphedWorld()


Make = Callable[..., Residency]


@pytest.fixture
def make(world: GraphedWorld) -> Iterator[Make]:
    made: list[Residency] = []

    def make(budget_mb: float, preloaded: Sequence[ModelName] = NAMES) -> Residency:
        policy = Policy(budget_mb, 0, dict.fromkeys(NAMES, 0), frozenset(preloaded))
        made.append(Residency(NAMES, world, world, policy))
        return made[-1]

    yield make
    for residency in made:
        residency.close()


def preload(residency: Residency) -> None:
    residency.refresh()
    until(lambda: not {"loading", "unloaded"} & set(states(residency).values()))
    resident_ones(residency)


def every(names: Sequence[ModelName], *graphs: float) -> dict[str, list[float]]:
    return {name: [*graphs] for name in names}


@pytest.mark.parametrize(
    ("left_mb", "expected"),
    [
        (0, [[], [], [], [], []]),
        (39, [[], [], [], [], []]),
        (40, [[40], [], [], [], []]),
        (140, [[100, 40], [], [], [], []]),
        (330, [[100, 40], [100, 40], [40], [], []]),
        (5000, [[100, 40]] * 5),
    ],
)
def test_graphs_take_what_all_preloaded_models_leave_in_the_catalogues_order(
    make: Make, world: GraphedWorld, left_mb: float, expected: list[list[float]]
) -> None:
    residency = make(ALL + left_mb)
    preload(residency)
    assert set(states(residency).values()) == {"ready"}
    assert world.graphs() == dict(zip(NAMES, expected, strict=True))
    assert world.peak_mb <= ALL + left_mb
    assert set(world.seen) == {5}  # nothing was captured before the last one was in


def test_without_a_budget_all_are_captured(make: Make, world: GraphedWorld) -> None:
    preload(make(0))
    assert world.graphs() == every(NAMES, *GRAPHS)


def test_they_are_there_before_the_last_preloaded_model_is_said_to_be(
    make: Make, world: GraphedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = make(0)
    seen: list[str] = []
    original = GraphedEngine.capture

    def capture(engine: GraphedEngine, room_mb: Callable[[], float]) -> int:
        seen.append(states(residency)[DEPTH])
        return original(engine, room_mb)

    monkeypatch.setattr(GraphedEngine, "capture", capture)
    preload(residency)
    assert seen[:5] == ["loading"] * 5


def test_they_are_given_back_before_a_model_is_evicted_or_is_refused(make: Make, world: GraphedWorld) -> None:
    residency = make(ALL, preloaded=[POSE, THREAT, REID, PET])
    residency.refresh()
    until(lambda: len(resident_ones(residency)) == 4)
    assert world.graphs() == {POSE: [100, 40], THREAT: [], REID: [], PET: []}
    use(residency, DEPTH)
    assert len(resident_ones(residency)) == 5
    assert world.graphs() == every(NAMES)


def test_only_as_many_as_needed_are_given_back_the_last_ones_first(make: Make, world: GraphedWorld) -> None:
    residency = make(CONTEXT_MB + 300 + 100 + 3 * 140, preloaded=[POSE, REID])
    residency.refresh()
    until(lambda: world.graphs() == {POSE: [100, 40], REID: [100, 40]})
    use(residency, PET)  # 820 of 870 with pose's graphs
    assert resident_ones(residency) == [POSE, REID, PET]
    assert world.graphs()[POSE] == [100, 40]
    assert world.graphs()[REID] == [40]  # again


def test_a_device_that_is_full_of_graphs_has_room_for_a_model(make: Make, world: GraphedWorld) -> None:
    world.device_mb = ALL + 100
    residency = make(0, preloaded=[POSE, THREAT, REID, PET])
    residency.refresh()
    until(lambda: len(world.graphs()) == 4 and all(world.graphs().values()))
    resident_ones(residency)
    use(residency, DEPTH)  # without them: 1200 of 1300
    assert world.loads.count(DEPTH) == 2
    assert residency.models[DEPTH].status()["memory_mb"] == SIZES[DEPTH]


def test_one_that_finds_no_room_even_so_is_refused_and_the_others_get_theirs_again(
    make: Make, world: GraphedWorld
) -> None:
    world.device_mb = ALL - 1
    residency = make(0, preloaded=[POSE, THREAT, REID, PET])
    residency.refresh()
    until(lambda: len(world.graphs()) == 4 and all(world.graphs().values()))
    with pytest.raises(ModelUnavailable, match="does not fit into the device's memory"):
        use(residency, DEPTH)
    resident_ones(residency)
    assert world.graphs() == every(NAMES[:4], *GRAPHS)


def test_a_preloaded_one_that_comes_late_comes_though_graphs_took_its_room(
    make: Make, world: GraphedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "FIRST_RETRY_S", 0.05)
    world.device_mb = 500
    residency = make(ALL)
    preload(residency)
    assert "failed" in states(residency).values()
    world.device_mb = ALL
    until(lambda: residency.refresh() or set(states(residency).values()) == {"ready"})  # type: ignore[func-returns-value]


@pytest.mark.parametrize("error", [DeviceLost("illegal access"), RuntimeError("NVML: unknown error")])
def test_a_capture_that_fails_leaves_no_model_loading(make: Make, world: GraphedWorld, error: Exception) -> None:
    world.breaks = error
    residency = make(0)
    preload(residency)
    assert set(states(residency).values()) == {"ready"}
    assert (error in world.lost) is isinstance(error, DeviceLost)


def test_a_call_that_finds_too_little_memory_gets_that_of_the_graphs_and_they_come_back(
    make: Make, world: GraphedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residencies, "_GRAPHS_AGAIN_S", (4.0, 8.0))
    monkeypatch.setattr(residencies, "_CAPTURE_S", 0.05)
    residency = make(0, preloaded=[POSE, REID])
    residency.refresh()
    until(lambda: world.graphs() == every((POSE, REID), *GRAPHS))
    resident_ones(residency)
    given_back = world.given_back
    residency.free_memory()  # on this thread, as a call does
    assert world.graphs() == every((POSE, REID))
    residency.free_memory()
    assert (world.given_back, world.trimmed) == (given_back + 1, 1)
    use(residency, PET)  # a load brings none back before the wait is over
    resident_ones(residency)
    assert world.graphs() == every((POSE, REID, PET))
    until(lambda: world.graphs() == every((POSE, REID, PET), *GRAPHS))


def test_graphs_that_had_no_room_beside_calls_are_captured_when_it_is_quiet(
    make: Make, world: GraphedWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bentoml.enrichment.runner")
    monkeypatch.setattr(residencies, "_CAPTURE_S", 0.05)
    calls = FakeEngine(world, POSE, "calls under way", size=700)
    residency = make(CONTEXT_MB + 300 + 700, preloaded=[POSE])
    residency.refresh()
    until(lambda: states(residency)[POSE] == "ready")
    assert world.graphs() == every([POSE])
    calls.close()
    until(lambda: world.graphs() == every([POSE], *GRAPHS))
    time.sleep(0.7)
    assert caplog.text.count("has 2 CUDA graphs") == 1  # though it is looked at again and again


def test_the_wait_is_short_again_after_quiet_hours(make: Make, world: GraphedWorld) -> None:
    residency = make(0, preloaded=[POSE])
    residency.refresh()
    until(lambda: world.graphs() == every([POSE], *GRAPHS))
    for _ in range(5):
        residency._graphs_again.failed()
    residency._squeezed -= 7200
    residency.free_memory()
    assert 50 < (residency._graphs_again.left_s or 0) <= 60


def test_what_calls_leave_behind_beyond_the_budget_is_trimmed(
    make: Make, world: GraphedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residencies, "_TRIM_S", 0.05)
    residency = make(CONTEXT_MB + SIZES[POSE], preloaded=[POSE])
    residency.refresh()
    until(lambda: states(residency)[POSE] == "ready")
    time.sleep(0.7)  # one check at least, within the budget
    assert world.trimmed == 0
    kept = FakeEngine(world, POSE, "the allocator's cache", size=1)
    until(lambda: world.trimmed > 0)
    kept.close()
    assert states(residency)[POSE] == "ready"
