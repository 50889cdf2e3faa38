"""Who gets an engine and how: over a made-up export process (exporter.py) and made-up engines."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from engines.device import Gpu
from engines.engine import Engine
from engines.errors import EngineError, OutOfMemory
from engines.tensorrt import build
from engines.tensorrt import cache as caches
from models.catalogue import ModelName
from models.state import State
from models.store import StoredModel
from runners.residency import tensorrt as engines
from runners.residency.budget import Policy
from runners.residency.memory import CpuMemory
from runners.residency.residency import Residency
from runners.residency.tensorrt import TensorRtEngines
from settings import DEFAULT_FILE, load
from tests.engines.tensorrt.test_build import EXPORTER
from tests.runners.residency.loader import Loads
from tests.serving import fake

GPU = Gpu(1, "NVIDIA RTX A400", "GPU-bbbb", 4295, "580.95.05", "8.6")
VERSION = "10.16.1.11"


class EngineUnreadable(EngineError):
    """Stands in for engines.tensorrt.engine's, which can't be imported without the library."""


@pytest.fixture(autouse=True)
def boundary(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The library, the export process and the loading of an engine file are made up."""
    monkeypatch.setattr(build, "EXPORT", EXPORTER)
    module: Any = ModuleType("engines.tensorrt.engine")
    module.EngineUnreadable = EngineUnreadable

    def open_engine(file: Path, precision: str, model: str) -> Engine:
        assert model == "pose_estimator"
        if b"unreadable" in file.read_bytes():
            raise EngineUnreadable(f"can't read {file.name}")
        if b"toolarge" in file.read_bytes():
            raise OutOfMemory("no room for its context")
        return fake.FakeEngine("pose_estimator", "tensorrt")

    module.TensorRtEngine = open_engine
    monkeypatch.setitem(sys.modules, "engines.tensorrt.engine", module)
    library: Any = ModuleType("tensorrt")
    library.__version__ = VERSION
    library.__spec__ = ModuleSpec("tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    return module  # type: ignore[no-any-return]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class World:
    """A runner's residency of the pose estimator, with TensorRT as runners.runner puts them together."""

    def __init__(self, folder: Path, cache: Path, version: str = VERSION, checksum: str | None = None) -> None:
        """checksum: of the checkpoint, as the model store has it."""
        self.folder = folder
        self.handled = threading.Event()
        self.checksum = checksum
        settings = load(DEFAULT_FILE, {"TENSORRT_CACHE": str(cache)})
        self.tensorrt = TensorRtEngines(settings, GPU, version)
        policy = Policy(0, 0, {"pose_estimator": 0}, frozenset())
        loads = Loads(self.find, self.load, self.on_ready)
        self.residency = Residency(["pose_estimator"], loads, CpuMemory(), policy)
        self.pose = self.residency.models["pose_estimator"]

    def find(self, name: ModelName) -> StoredModel | None:
        stored = fake.find(name)
        assert stored is not None
        stored = replace(stored, folder=self.folder)
        if self.checksum is None:
            return stored
        file = stored.checkpoint.relative_to(self.folder).as_posix()
        return replace(stored, sizes={file: stored.checkpoint.stat().st_size}, checksums={file: self.checksum})

    def load(self, stored: StoredModel) -> Engine:
        return self.tensorrt.load(stored) or fake.FakeEngine(stored.card.name, "torch")

    def on_ready(self, resident: Any, swap: Any) -> None:
        if resident.loaded.engine.name == "torch":
            self.tensorrt.build(resident, swap)
        self.handled.set()

    def use(self) -> str:
        with self.pose.lease(5) as loaded:
            return loaded.engine.name

    @property
    def state(self) -> State:
        return self.pose.status()["state"]

    @property
    def detail(self) -> str:
        return self.pose.status()["detail"] or ""

    def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.pose.status(), seconds)
            time.sleep(0.01)

    def idle(self) -> None:
        """Wait until the residency has done what it was asked for so far."""
        done = threading.Event()
        self.residency._enqueue(done.set)
        assert done.wait(5)

    def settle(self) -> str:
        """Load the model and wait until nothing is being built; the engine that it ends up with."""
        self.use()
        assert self.handled.wait(5)
        self.until(lambda: self.state is State.READY)
        return self.use()

    def close(self) -> None:
        self.tensorrt.close()
        self.residency.close()


Start = Callable[..., World]


@pytest.fixture
def start(tmp_path: Path, cache: Path) -> Iterator[Start]:
    """Start a runner whose checkpoint makes the export process do `what`."""
    worlds: list[World] = []

    def start(what: str = "slow 0", version: str = VERSION, checksum: str | None = None) -> World:
        weights = tmp_path / "weights"
        weights.mkdir(exist_ok=True)
        (weights / "yolov8n-pose.pt").write_text(what)
        worlds.append(World(tmp_path, cache, version, checksum))
        return worlds[-1]

    yield start
    for world in worlds:
        world.close()


def test_torch_serves_while_the_engine_is_built_and_then_it_takes_over(
    start: Start, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bentoml.enrichment.runner")
    gate = cache.parent / "gate"
    world = start(f"gate {gate}")
    assert world.use() == "torch"
    world.until(lambda: world.state is State.BUILDING_ENGINE)
    assert "torch serves meanwhile" in world.detail
    assert world.use() == "torch"
    gate.touch()
    world.until(lambda: world.state is State.READY)
    assert world.use() == "tensorrt"
    assert world.detail == ""
    assert not world.pose.status()["engine_build_failed"]
    log = [record.message for record in caplog.records if "TensorRT build" in record.message]
    assert log[0] == "TensorRT build of pose_estimator starts; torch serves meanwhile"
    assert "TensorRT: export success" in log[-2]
    assert re.fullmatch(r"TensorRT build of pose_estimator succeeded after \d+ s", log[-1])


def test_no_engine_is_built_of_another_checkpoint_than_the_imported_one(start: Start, cache: Path) -> None:
    imported = hashlib.sha256(b"slow 0").hexdigest()
    world = start("slow 0 and somebody else's", checksum=imported)
    assert world.settle() == "torch"
    assert "weights/yolov8n-pose.pt is not the file that was imported" in world.detail
    assert not list(cache.glob("*.engine"))
    assert start(checksum=imported).settle() == "tensorrt"


def test_the_next_start_takes_the_engine_from_the_cache(start: Start) -> None:
    assert start().settle() == "tensorrt"
    world = start("fail RuntimeError: it must not be built")
    assert world.use() == "tensorrt"
    assert world.pose.status()["loads"] == 1


def test_another_version_of_tensorrt_builds_anew(start: Start, cache: Path) -> None:
    assert start().settle() == "tensorrt"
    (old,) = cache.glob("*.engine")
    assert start(version="10.17").settle() == "tensorrt"
    (new,) = cache.glob("*.engine")
    assert old.name != new.name


def test_a_damaged_engine_is_built_anew(start: Start, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert start().settle() == "tensorrt"
    (engine,) = cache.glob("*.engine")
    engine.write_bytes(b"half a")
    world = start()
    assert world.use() in ("torch", "tensorrt")
    assert world.settle() == "tensorrt"
    assert "it is damaged" in caplog.text
    assert engine.read_bytes().startswith(b"an engine out of")


def test_an_engine_that_tensorrt_can_not_read_any_more_is_built_anew(
    start: Start, cache: Path, boundary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start().settle() == "tensorrt"
    (engine,) = cache.glob("*.engine")
    made = engine.stat().st_mtime_ns
    original, tries = boundary.TensorRtEngine, []

    def unreadable_once(file: Path, precision: str, model: str) -> Any:
        tries.append(file)
        if len(tries) == 1:
            raise EngineUnreadable("of another build of the driver")
        return original(file, precision, model)

    monkeypatch.setattr(boundary, "TensorRtEngine", unreadable_once)
    assert start().settle() == "tensorrt"
    assert engine.stat().st_mtime_ns != made


def test_a_build_that_failed_for_good_is_tried_at_the_next_start_and_not_before(
    start: Start, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = start("fail RuntimeError: no kernel image")
    assert world.settle() == "torch"
    assert world.detail.startswith("no TensorRT engine, torch serves: exit code 1: RuntimeError: no kernel image (2")
    assert world.pose.status()["engine_build_failed"]
    assert not world.tensorrt._retries
    (note,) = cache.glob("*.failed.json")
    assert f"restart, or delete {note}, to try again" in world.detail
    for _ in range(2):
        leave(world)
        assert world.settle() == "torch"  # which comes back to the same note
    assert caplog.text.count("its last words") == 1
    assert start("slow 0").settle() == "tensorrt"
    assert not note.exists()


@pytest.mark.parametrize("what", ["killed", "fail torch.OutOfMemoryError: CUDA out of memory."])
def test_a_build_that_was_killed_or_found_no_memory_is_tried_again_by_itself(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    monkeypatch.setattr(caches, "FIRST_RETRY_S", 1)
    world = start(what)
    world.use()
    world.until(lambda: caplog.text.count("its last words") == 2)
    assert "it is tried again at " in world.detail or world.state is State.BUILDING_ENGINE
    (tmp_path / "weights" / "yolov8n-pose.pt").write_text("slow 0")
    world.until(lambda: world.use() == "tensorrt", 20)
    world.until(lambda: not world.pose.status()["engine_build_failed"])


def test_its_wait_holds_over_a_restart_and_ends_with_a_stop(start: Start) -> None:
    world = start("killed")
    assert world.settle() == "torch"
    again = start("slow 0")
    assert again.settle() == "torch"
    assert "exit code -9" in again.detail
    (retry,) = again.tensorrt._retries.values()
    assert retry.is_alive()
    again.close()
    retry.join(5)
    assert not retry.is_alive()


def test_a_cache_that_can_be_written_again_is_tried_again(
    start: Start, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "FIRST_RETRY_S", 0.5)
    cache.write_text("a file where the folder should be")
    world = start()
    assert world.settle() == "torch"
    cache.unlink()
    world.until(lambda: world.use() == "tensorrt", 20)


def test_a_build_that_failed_is_tried_again_with_other_inputs(start: Start) -> None:
    assert start("fail RuntimeError: no kernel image").settle() == "torch"
    assert start("slow 0", version="10.17").settle() == "tensorrt"


@pytest.mark.parametrize(("what", "remembered"), [("unreadable", True), ("toolarge", False)])
def test_an_engine_that_can_not_be_loaded_leaves_torch_serving(
    start: Start, cache: Path, what: str, remembered: bool
) -> None:
    world = start(what)
    assert world.settle() == "torch"
    assert "no TensorRT engine, torch serves: " in world.detail
    assert bool(list(cache.glob("*.failed.json"))) is remembered


def building(start: Start, tmp_path: Path) -> tuple[World, Path]:
    """A model whose build is under way, and the file that lets it go on."""
    gate = tmp_path / "gate"
    world = start(f"gate {gate}")
    world.use()
    world.until(lambda: world.state is State.BUILDING_ENGINE)
    return world, gate


def leave(world: World) -> None:
    world.residency._enqueue(lambda: world.residency._evict(world.pose, "left"))
    world.idle()


def test_a_version_that_was_loaded_during_the_former_one_s_build_gets_a_build_of_its_own(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bentoml.enrichment.runner")
    world, gate = building(start, tmp_path)
    leave(world)
    find = world.pose._find
    world.pose._find = lambda: replace(cast(Any, find()), tag="pose_estimator:newer")
    assert world.use() == "torch"
    gate.touch()
    world.until(lambda: world.pose.status()["engine"] == "tensorrt")
    assert world.use() == "tensorrt"
    assert world.pose.stored.tag == "pose_estimator:newer"
    assert caplog.text.count("TensorRT build of pose_estimator starts") == 2


def test_a_model_that_left_and_came_back_during_its_build_has_one_build(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bentoml.enrichment.runner")
    world, gate = building(start, tmp_path)
    for _ in range(3):
        leave(world)
        assert world.use() == "torch"
        assert world.state is State.BUILDING_ENGINE
    gate.touch()
    world.until(lambda: world.state is State.READY)
    assert world.use() == "tensorrt"
    world.idle()
    assert caplog.text.count("TensorRT build of pose_estimator starts") == 1
    assert caplog.text.count("pose_estimator now runs on tensorrt") == 1


def test_a_build_that_fails_after_its_model_left_does_not_hide_why_it_left(start: Start, cache: Path) -> None:
    gate = cache.parent / "gate"
    world = start(f"gate {gate} RuntimeError: no kernel image")
    world.use()
    world.until(lambda: world.state is State.BUILDING_ENGINE)
    world.residency._enqueue(lambda: world.residency._evict(world.pose, "it was idle"))
    world.idle()
    gate.touch()
    world.until(lambda: world.pose.status()["engine_build_failed"])
    assert (world.state, world.detail) == (State.UNLOADED, "it was idle")
    assert world.settle() == "torch"
    assert "RuntimeError: no kernel image" in world.detail


def test_a_process_that_waited_for_anothers_failing_build_does_not_repeat_it(
    start: Start, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Two runners that share a cache: the second waits for the lock while the first fails.
    worlds = [start("wait 1 RuntimeError: no kernel image") for _ in range(2)]
    for world in worlds:
        world.use()
    for world in worlds:
        assert world.settle() == "torch"
        assert "RuntimeError: no kernel image" in world.detail
    assert caplog.text.count("its last words") == 1


def test_a_cache_that_can_not_be_written_is_a_warning(
    start: Start, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where the folder should be")
    world = start()
    assert world.settle() == "torch"
    assert f"its cache {cache} can't be" in world.detail
    assert "WARNING" in {record.levelname for record in caplog.records}


def test_a_full_cache_is_a_warning_and_no_failure_of_the_build(
    start: Start, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    world = start()
    assert world.settle() == "torch"
    assert "No space left on device" in world.detail
    assert {path.name for path in cache.iterdir()} == {"build.lock"}
    monkeypatch.undo()


def test_a_stop_in_the_middle_of_a_build_is_no_failure(start: Start, cache: Path) -> None:
    world = start("hang")
    world.use()
    world.until(lambda: bool(list(cache.glob("building-*/*.pt"))))
    world.close()
    world.until(lambda: world.state is not State.BUILDING_ENGINE)
    assert {path.name for path in cache.iterdir()} == {"build.lock"}


def stored(name: ModelName, *, untrained: bool = False) -> StoredModel:
    found = fake.find(name)
    assert found is not None
    return replace(found, card=replace(found.card, untrained=untrained))


def test_only_yolo_models_that_are_asked_for_and_trained_get_one(cache: Path) -> None:
    environment = {"TENSORRT_CACHE": str(cache), "THREAT_USE_TENSORRT": "false"}
    tensorrt = TensorRtEngines(load(DEFAULT_FILE, environment), GPU, VERSION)
    assert tensorrt.wants(stored("pose_estimator"))
    assert not tensorrt.wants(stored("pose_estimator", untrained=True))
    for name in ("threat_detector", "person_reid", "pet_classifier", "depth_estimator"):
        assert not tensorrt.wants(stored(name))


@pytest.mark.parametrize(
    "environment",
    [
        {"POSE_USE_TENSORRT": "false", "THREAT_USE_TENSORRT": "false"},
        {"POSE_USE_TENSORRT": "false", "ENRICHMENT_THREAT_SERVICE": "heavy"},
        {"ENRICHMENT_ENGINE": "torch"},
        {"ENRICHMENT_PRECISION": "bf16"},
    ],
)
def test_without_being_asked_for_it_is_not_even_looked_for(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert engines.find(load(DEFAULT_FILE, environment), GPU) is None
    assert caplog.text == ""


def test_on_a_cpu_it_is_not_even_looked_for(caplog: pytest.LogCaptureFixture) -> None:
    assert engines.find(load(DEFAULT_FILE, {}), None) is None
    assert caplog.text == ""


def test_where_it_is_installed_it_is_used() -> None:
    assert isinstance(engines.find(load(DEFAULT_FILE, {}), GPU), TensorRtEngines)


def test_where_it_is_not_installed_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "tensorrt" else object())
    assert engines.find(load(DEFAULT_FILE, {"THREAT_USE_TENSORRT": "false"}), GPU) is None
    assert [record.message for record in caplog.records] == [
        "TensorRT can't be used (missing: tensorrt): using torch for pose_estimator"
    ]


def test_a_package_without_its_libraries_counts_as_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(sys.modules["tensorrt"], "__version__")
    assert engines.find(load(DEFAULT_FILE, {}), GPU) is None
    assert "TensorRT can't be used (missing: tensorrt (" in caplog.text
    assert "using torch for pose_estimator and threat_detector" in caplog.text
