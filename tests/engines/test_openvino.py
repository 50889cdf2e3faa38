from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13 as operations

from engines import openvino as openvino_engine
from engines import processor
from engines.batched import BatchLane
from engines.deadline import Abandoned, Deadline
from engines.errors import EngineError
from engines.lanes import Lane
from engines.openvino import OpenVinoEngine
from models.catalogue import CATALOGUE, ModelName
from runners.profiling import Profiler
from settings import Pyroscope

T = TypeVar("T")
CORES: Final = len(os.sched_getaffinity(0))
several_cores = pytest.mark.skipif(CORES == 1, reason="there is one core")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph with two outputs: each image's mean, and the image as float32."""
    image = operations.parameter([-1, -1, -1, 3], openvino.Type.u8)
    pixels = operations.convert(image, "f32")
    mean = operations.reduce_mean(pixels, operations.constant(np.array([1, 2, 3])), False)
    file = tmp_path_factory.mktemp("graph") / "graph.xml"
    openvino.save_model(openvino.Model([mean, pixels], [image]), file, compress_to_fp16=False)
    return file


@pytest.fixture(scope="module", autouse=True)
def first_tensor() -> None:
    """As the warm-up makes it: alone (engines/openvino.py, warm_up)."""
    openvino.Tensor(np.zeros(1, np.float32))


def engine(graph: Path, model: ModelName = "threat_detector", threads: int = 0) -> OpenVinoEngine:
    return OpenVinoEngine(graph, "f32", CATALOGUE[model].traits, threads=threads)


def pictures(count: int, height: int = 8, width: int = 6) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


class Seen:
    """What is computed where: of each image its lane's streams and threads; of all how many were at it at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lanes: list[tuple[int, int]] = []
        self.at_a_time = 0
        self.hold_s = 0.0
        self._now = 0
        self._lock = threading.Lock()
        for work in (openvino_engine._infer, openvino_engine._warm_up):
            monkeypatch.setattr(openvino_engine, work.__name__, partial(self._see, work))

    def _see(self, work: Callable[..., T], lane: Lane, *arguments: Any) -> T:
        compiled = lane.first.get_compiled_model()
        with self._lock:
            self.lanes.append((compiled.get_property("NUM_STREAMS"), compiled.get_property("INFERENCE_NUM_THREADS")))
            self._now += 1
            self.at_a_time = max(self.at_a_time, self._now)
        try:
            time.sleep(self.hold_s)
            return work(lane, *arguments)
        finally:
            with self._lock:
                self._now -= 1

    @property
    def undivided(self) -> list[bool]:
        """Of each image whether it had all threads for itself."""
        return [streams == 1 and threads > 1 for streams, threads in self.lanes]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


def call(loaded: OpenVinoEngine, *sizes: int) -> None:
    """A call for each of so many images, all at a time."""
    with ThreadPoolExecutor(len(sizes)) as callers:
        for answer in [callers.submit(loaded.run, pictures(size)) for size in sizes]:
            answer.result()


@pytest.mark.parametrize("model", ["threat_detector", "person_reid", "depth_estimator"])
def test_every_batch_size_and_shape_is_answered_in_order(graph: Path, model: ModelName) -> None:
    loaded = engine(graph, model)
    for count, height, width in [(1, 8, 6), (2, 8, 6), (3, 5, 4), (7, 8, 6), (8, 3, 9), (1, 3, 9), (9, 8, 6)]:
        batch = pictures(count, height, width)
        means, pixels = loaded.run(batch)
        assert means == pytest.approx(batch.astype(np.float32).mean(axis=(1, 2, 3)))
        assert np.array_equal(pixels, batch.astype(np.float32))


def test_a_graph_that_gives_another_number_of_results_than_it_got_images_is_an_error(tmp_path: Path) -> None:
    image = operations.parameter([-1, -1, -1, 3], openvino.Type.u8)
    twice = operations.concat([operations.convert(image, "f32")] * 2, axis=0)
    openvino.save_model(openvino.Model([twice], [image]), tmp_path / "graph.xml")
    for model in ("threat_detector", "person_reid"):
        loaded = engine(tmp_path / "graph.xml", model)
        for count in (1, 2):
            with pytest.raises(ValueError, match=r"too many values|results for"):
                loaded.run(pictures(count))


def test_calls_at_a_time_get_their_own_answers(graph: Path) -> None:
    loaded = engine(graph)
    batches = [pictures(1 + number % 5, 8 + number % 3) for number in range(200)]
    with ThreadPoolExecutor(4) as callers:
        for batch, (_, pixels) in zip(batches, callers.map(loaded.run, batches), strict=True):
            assert np.array_equal(pixels, batch.astype(np.float32))


@several_cores
def test_an_image_that_is_alone_gets_all_threads_and_others_are_computed_side_by_side(graph: Path, seen: Seen) -> None:
    loaded = engine(graph)
    lanes = loaded._lanes.qsize()
    assert 1 < lanes <= 4
    seen.hold_s = 0.05
    for count in (1, 5, 1):
        call(loaded, count)
    assert seen.undivided == [True, *[False] * 5, True]
    assert seen.at_a_time == lanes


@several_cores
def test_nothing_is_computed_beside_an_image_that_has_all_threads(graph: Path, seen: Seen) -> None:
    loaded = engine(graph)
    seen.hold_s = 0.5
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(loaded.run, pictures(1))
        while not seen.lanes:
            time.sleep(0.001)
        second = callers.submit(loaded.run, pictures(1))
        assert not second.done()
        first.result()
        assert seen.at_a_time == 1
        second.result()
    assert seen.undivided == [True, False]


@several_cores
def test_a_shape_gets_lanes_of_its_own_when_images_of_it_come_together(graph: Path, seen: Seen) -> None:
    loaded = engine(graph, "depth_estimator")
    assert loaded._side_by_side is not None
    compiled, go = loaded._side_by_side._compile, threading.Event()

    def compile_late(*arguments: Any) -> Any:
        assert go.wait(10)
        return compiled(*arguments)

    loaded._side_by_side._compile = compile_late
    call(loaded, 2, 2)  # on all threads one after the other, as nobody waits for what is compiled meanwhile
    assert set(seen.undivided) == {True}
    go.set()
    while loaded._side_by_side.lanes((8, 6, 3)) is None:
        time.sleep(0.01)
    seen.lanes.clear()
    seen.hold_s = 0.05
    call(loaded, 2, 2)
    assert {streams for streams, _ in seen.lanes} == {2 if CORES == 2 else min(4, CORES)}
    assert seen.at_a_time > 1
    seen.lanes.clear()
    call(loaded, 1)
    assert seen.undivided == [True]  # alone it has all threads


@several_cores
def test_no_more_than_two_shapes_have_lanes(graph: Path) -> None:
    loaded = engine(graph, "depth_estimator")
    side = loaded._side_by_side
    assert side is not None
    for height in (8, 9, 10, 8):
        while side.lanes((height, 6, 3)) is None:
            time.sleep(0.01)
    assert list(side._sides) == [(10, 6, 3), (8, 6, 3)]  # the ones that came last
    loaded.close()


@several_cores
def test_images_of_a_small_graph_are_computed_as_one_batch(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    loaded = engine(graph, "person_reid")
    infer = BatchLane.infer

    def counted(self: BatchLane, images: Any) -> Any:
        sizes.append(len(images))
        return infer(self, images)

    monkeypatch.setattr(BatchLane, "infer", counted)
    loaded.run(pictures(1))  # alone: on all threads
    loaded.run(pictures(1), alone=False)
    loaded.run(pictures(7))
    assert sizes == [1, 7]


@pytest.mark.parametrize("model", ["threat_detector", "depth_estimator"])
def test_what_nobody_waits_for_is_not_computed(graph: Path, seen: Seen, model: ModelName) -> None:
    loaded = engine(graph, model)
    deadline = Deadline.after(60)
    deadline.abandon()
    for alone in (True, False):
        with pytest.raises(Abandoned):
            loaded.run(pictures(1), alone=alone, deadline=deadline)
    assert loaded._lanes.qsize() == loaded._count


def test_a_long_computation_is_stopped_where_its_caller_has_gone(tmp_path: Path) -> None:
    # Forty convolutions of 96 channels, one after the other: about a second.
    image = operations.parameter([-1, -1, -1, 3], openvino.Type.u8)
    node = operations.transpose(operations.convert(image, "f32"), operations.constant(np.array([0, 3, 1, 2])))
    for number in range(40):
        kernel = np.full((96, 96 if number else 3, 3, 3), 1e-3, np.float32)
        ones = [1, 1]
        node = operations.relu(operations.convolution(node, operations.constant(kernel), ones, ones, ones, ones))
    openvino.save_model(openvino.Model([node], [image]), tmp_path / "graph.xml", compress_to_fp16=False)
    loaded = engine(tmp_path / "graph.xml", "depth_estimator")
    picture = [np.zeros((128, 128, 3), np.uint8)]
    loaded.run(picture)
    runs_s = []
    for _ in range(3):
        began = time.monotonic()
        loaded.run(picture)
        runs_s.append(time.monotonic() - began)
    whole_s = max(runs_s)
    deadline = Deadline.after(60)
    threading.Timer(min(runs_s) / 20, deadline.abandon).start()
    began = time.monotonic()
    with pytest.raises(Abandoned):
        loaded.run(picture, deadline=deadline)
    assert time.monotonic() - began < whole_s * 0.7
    loaded.run(picture)  # and the lane works on


@pytest.mark.parametrize("model", ["threat_detector", "pet_classifier"])
def test_no_more_threads_than_it_was_told(graph: Path, seen: Seen, model: ModelName) -> None:
    loaded = engine(graph, model, threads=1)
    seen.hold_s = 0.02
    call(loaded, 1, 3)
    assert set(seen.lanes) == {(1, 1)}
    assert seen.at_a_time == 1


@several_cores
@pytest.mark.parametrize(
    ("model", "undivided", "rounds"), [("threat_detector", 2, 1), ("person_reid", 2, 0), ("depth_estimator", 2, 0)]
)
def test_warming_up_reaches_every_lane(graph: Path, seen: Seen, model: ModelName, undivided: int, rounds: int) -> None:
    loaded = engine(graph, model)
    lanes = loaded._lanes.qsize()
    seen.hold_s = 0.05
    loaded.warm_up([(1, 8, 6, 3), (2, 8, 6, 3), (4, 8, 6, 3), (8, 8, 6, 3), (1, 3, 9, 3)])
    assert sum(seen.undivided) == undivided
    assert len(seen.lanes) == undivided + rounds * lanes
    assert seen.at_a_time == (lanes if rounds else 1)


@several_cores
def test_a_warm_up_for_which_threads_are_missing_fails_in_time(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = engine(graph)
    monkeypatch.setattr(openvino_engine, "_WARM_UP_S", 0.1)
    loaded._pool = ThreadPoolExecutor(1)
    with pytest.raises(threading.BrokenBarrierError):
        loaded.warm_up([(1, 8, 6, 3)])


@pytest.mark.parametrize("count", [1, 9])
def test_an_image_that_fails_takes_no_lane_with_it(graph: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = engine(graph)
    lanes = loaded._lanes.qsize()
    with monkeypatch.context() as patch:
        patch.delattr(openvino_engine, "_infer")
        with pytest.raises(NameError):
            loaded.run(pictures(count))
        loaded._pool.shutdown()  # waits for the images that had begun
    assert loaded._lanes.qsize() == lanes


def test_other_threads_are_marked_as_the_one_that_calls(graph: Path) -> None:
    marked: list[str] = []

    class Client:
        @contextmanager
        def tag_wrapper(self, tags: dict[str, str]) -> Iterator[None]:
            marked.append(threading.current_thread().name)
            yield

    profiler = Profiler(
        Pyroscope.model_validate({"enabled": False, "url": "http://127.0.0.1", "application_name": "x"}), ""
    )
    profiler._client = Client()  # type: ignore[assignment]
    loaded = engine(graph)
    with profiler.tagged(model="threat_detector"):
        loaded.run(pictures(3))
    loaded.run(pictures(3))
    assert [name.startswith("lane") for name in marked] == [False, True, True, True]


def test_what_was_compiled_is_taken_from_the_cache_and_a_damaged_file_is_compiled_anew(
    graph: Path, tmp_path: Path, seen: Seen
) -> None:
    expected = [engine(graph).run(pictures(count)) for count in (1, 5)]
    lanes = sorted(seen.lanes)
    assert len(set(lanes)) == min(CORES, 2)
    for damage in (False, False, True):
        for blob in tmp_path.rglob("*.blob") if damage else ():
            blob.chmod(0o600)
            blob.write_bytes(blob.read_bytes()[:100])
        seen.lanes.clear()
        loaded = OpenVinoEngine(graph, "f32", CATALOGUE["threat_detector"].traits, threads=0, cache=tmp_path)
        for count, outputs in zip((1, 5), expected, strict=True):
            for one, other in zip(loaded.run(pictures(count)), outputs, strict=True):
                assert np.array_equal(one, other)
        assert sorted(seen.lanes) == lanes  # what was kept serves one image on all threads, and several side by side
        assert len(list(tmp_path.rglob("*.blob"))) == 1


@pytest.mark.skipif("BF16" not in processor.capabilities(), reason="this CPU has no bf16 instructions")
def test_what_was_compiled_of_two_parts_is_taken_from_the_cache(tmp_path: Path) -> None:
    image = operations.parameter([-1, -1, -1, 3], openvino.Type.u8)
    until = operations.relu(operations.convert(image, "f32"))
    until.set_friendly_name(CATALOGUE["pet_classifier"].traits.f32_until)
    mean = operations.reduce_mean(until, operations.constant(np.array([1, 2, 3])), False)
    openvino.save_model(openvino.Model([mean], [image]), tmp_path / "graph.xml", compress_to_fp16=False)
    for _ in range(2):
        OpenVinoEngine(
            tmp_path / "graph.xml", "f32+bf16", CATALOGUE["pet_classifier"].traits, threads=0, cache=tmp_path
        )
        assert len(list(tmp_path.rglob("*.blob"))) == 2


@pytest.mark.skipif("FP16" not in processor.capabilities(), reason="this CPU has no f16 instructions")
def test_what_another_precision_left_in_the_cache_is_not_taken(graph: Path, tmp_path: Path) -> None:
    expected, _ = engine(graph).run(pictures(1))
    for precision in ("f16", "f32"):
        loaded = OpenVinoEngine(graph, precision, CATALOGUE["threat_detector"].traits, threads=0, cache=tmp_path)
        mean, _ = loaded.run(pictures(1))
        assert np.array_equal(mean, expected) == (precision == "f32")


@pytest.mark.parametrize(
    ("pays", "expected"),
    [
        (True, {"pose_estimator": "f32", "threat_detector": "bf16", "pet_classifier": "f32+bf16"}),
        (False, {"pose_estimator": "f32", "threat_detector": "f32", "pet_classifier": "f32"}),
    ],
)
def test_auto_takes_bf16_where_it_pays_and_costs_little(
    pays: bool, expected: dict[ModelName, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "bf16_pays", lambda: pays)
    assert {name: OpenVinoEngine.auto_precision(CATALOGUE[name].traits) for name in expected} == expected


def test_a_precision_without_instructions_is_refused(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "capabilities", lambda: ["FP32"])
    with pytest.raises(EngineError, match="no int8 instructions"):
        OpenVinoEngine(graph, "int8", CATALOGUE["pose_estimator"].traits, threads=0)


def test_weights_of_a_file_that_may_be_cut_are_not_mapped(tmp_path: Path) -> None:
    image = operations.parameter([-1, 8], openvino.Type.f32)
    product = operations.matmul(image, operations.constant(np.ones((8, 5000), np.float32)), False, False)
    file = tmp_path / "graph.xml"
    openvino.save_model(openvino.Model([product], [image]), file, compress_to_fp16=False)
    _, parts = openvino_engine._cut_graph(file, "int8", CATALOGUE["person_reid"].traits)
    assert parts
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
