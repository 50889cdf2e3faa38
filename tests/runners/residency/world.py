"""A made-up memory in which each engine takes a fixed part, and a residency over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from engines.engine import Engine, Images, Rows, Shape
from engines.errors import DeviceLost
from models.catalogue import CATALOGUE, ModelName
from models.store import StoredModel
from runners.residency.loading import EngineSwap
from runners.residency.residency import Residency
from runners.residency.resident import Resident
from tests.serving import fake

POSE, THREAT, REID, PET, DEPTH = NAMES = tuple(CATALOGUE)
SIZES: dict[ModelName, float] = {POSE: 300, THREAT: 400, REID: 100, PET: 200, DEPTH: 150}
CONTEXT_MB = 50.0


class FakeEngine:
    """Takes its part of the made-up memory from when it is made until it is closed."""

    precision = "f32"

    def __init__(self, world: World, model: ModelName, name: str = "torch", size: float | None = None) -> None:
        self.name = name
        self.model = model
        self._world = world
        world.engines[self] = SIZES[model] if size is None else size
        world.peak_mb = max(world.peak_mb, world.used_mb())

    def warm_up(self, shapes: Sequence[Shape]) -> None: ...

    def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[Rows, ...]:
        raise AssertionError("not asked for")

    def close(self) -> None:
        del self._world.engines[self]


class World:
    """The device's memory and the engines on it; what the test wrote down makes loading fail."""

    def __init__(self) -> None:
        self.engines: dict[FakeEngine, float] = {}
        self.loads: list[ModelName] = []
        self.failures: list[Exception] = []
        self.ready: list[ModelName] = []
        self.lost: list[DeviceLost] = []
        self.warm: list[str] = []
        self.given_back = 0
        self.trimmed = 0
        self.started = False
        self.peak_mb = 0.0

    @property
    def context_mb(self) -> float:
        return CONTEXT_MB if self.started else 0.0

    def used_mb(self) -> float:
        return self.context_mb + sum(self.engines.values())

    def give_back(self) -> None:
        self.given_back += 1

    def trim(self) -> None:
        self.trimmed += 1

    def start(self) -> None:
        self.started = True

    def load(self, stored: StoredModel) -> Engine:
        assert threading.current_thread().name == "loader"
        self.loads.append(stored.card.name)
        if self.failures:
            raise self.failures.pop(0)
        return FakeEngine(self, stored.card.name)

    def warm_up(self, stored: StoredModel, engine: Engine) -> None:
        self.warm.append(engine.name)

    def find(self, name: ModelName) -> StoredModel | None:
        return fake.find(name)

    def on_ready(self, resident: Resident, swap: object) -> None:
        self.ready.append(resident.name)

    def on_device_lost(self, error: DeviceLost) -> None:
        self.lost.append(error)


Make = Callable[..., Residency]


def use(residency: Residency, *names: ModelName, timeout: float = 10) -> None:
    for name in names:
        with residency.models[name].lease(timeout) as loaded:
            assert isinstance(loaded.engine, FakeEngine)
            assert loaded.engine.model == name
            assert loaded.engine in loaded.engine._world.engines


def states(residency: Residency) -> dict[str, str]:
    return {name: resident.status()["state"].value for name, resident in residency.models.items()}


def resident_ones(residency: Residency) -> list[str]:
    """Who is in memory when the residency has done what it was asked for so far."""
    done = threading.Event()
    residency._enqueue(done.set)
    assert done.wait(5)
    return [name for name, state in states(residency).items() if state == "ready"]


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def swap(residency: Residency, load: Callable[[], Engine]) -> Exception | None:
    told: list[Exception | None] = []
    done = threading.Event()

    def on_done(error: Exception | None) -> None:
        told.append(error)
        done.set()

    swap = EngineSwap(lambda loaded: loaded.engine.name != "tensorrt", load, on_done)
    residency.swap_engine(residency.models[POSE], swap)
    assert done.wait(5)
    return told[0]
