"""A detector's head, of which only what counts is computed (of the real ones: tests/parity/test_heads.py)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13 as operations

from engines import openvino as openvino_engine
from engines import processor
from engines.lanes import Chain, DetectorLane
from engines.openvino import OpenVinoEngine, OwnPrecision
from engines.parts import detector
from engines.traits import Traits
from tests.engines.test_openvino import first_tensor as first_tensor

BOX, CLASSES = 4, 2
STRIDES: Final = (8, 16)
F32 = NDArray[np.float32]


def network(file: Path, other: str = "", dimension: int = 3) -> Path:
    """Two scales, of which the coarser one scores higher, and whose boxes grow with the picture's width.

    other: branches whose names begin so have another name. dimension: of the features, by which boxes grow.
    """
    image = operations.parameter([-1, -1, -1, 3], openvino.Type.u8, name="image")
    centred = operations.subtract(operations.convert(image, "f32"), operations.constant(np.float32(128)))
    pixels = operations.transpose(centred, operations.constant([0, 3, 1, 2]))
    random = np.random.default_rng(0)
    classes = np.abs(random.normal(size=(CLASSES, 3))) / 200
    scales = []
    for scale, stride in enumerate(STRIDES):
        features = operations.avg_pool(pixels, [stride] * 2, [0, 0], [0, 0], [stride] * 2, exclude_pad=True)
        boxes = branch(f"cv2.{scale}", other, features, random.normal(size=(BOX, 3)))
        logits = branch(f"cv3.{scale}", other, features, classes * (scale + 1))
        width = operations.gather(operations.shape_of(features), operations.constant(dimension), operations.constant(0))
        grown = operations.multiply(boxes, operations.convert(width, "f32"))
        said = operations.concat([grown, operations.sigmoid(logits)], axis=1)
        scales.append(operations.reshape(said, operations.constant([0, BOX + CLASSES, -1]), special_zero=True))
    openvino.save_model(openvino.Model([operations.concat(scales, axis=2)], [image]), file, compress_to_fp16=False)
    return file


def branch(name: str, other: str, features: Any, weights: NDArray[np.float64]) -> Any:
    if other and name.startswith(other):
        name = name.replace("cv", "m")
    for place, filters in (("0/conv", np.eye(3)), ("2", weights)):
        constant = operations.constant(filters[..., None, None].astype(np.float32))
        features = operations.convolution(features, constant, [1, 1], [0, 0], [0, 0], [1, 1])
        features.set_friendly_name(f"/model.22/{name}/{name}.{place}/Conv")
    return features


def whole(graph: Path, image: NDArray[np.uint8]) -> F32:
    """What OpenVINO gives for the graph as it is."""
    output: F32 = _compiled(graph)([image[None]])[0][0]
    return output


@lru_cache(maxsize=1)
def _compiled(graph: Path) -> openvino.CompiledModel:
    model = openvino.Core().read_model(graph)
    model.reshape({model.input(0): [1, *model.input(0).partial_shape[1:]]})
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32})


@pytest.fixture(params=["f32", "bf16", "f16"])
def precision(request: pytest.FixtureRequest) -> OwnPrecision:
    chosen: OwnPrecision = request.param
    if openvino_engine._CAPABILITY[chosen] not in processor.capabilities():
        pytest.skip(f"this CPU has no {chosen} instructions")
    return chosen


def test_the_scales_below_the_score_that_counts_are_left_out_and_nothing_else_changes(
    tmp_path: Path, precision: OwnPrecision
) -> None:
    graph = network(tmp_path / "graph.xml")
    engine = OpenVinoEngine(graph, precision, Traits(bf16=True), threads=0)
    random = np.random.default_rng(1)
    for height, width in [(32, 32), (64, 96), (32, 64), (128, 128), (64, 96)]:  # memory that grows, and does not
        image = random.integers(150, 190, (height, width, 3), dtype=np.uint8)
        expected = engine.run([image])[0][0]
        assert np.allclose(expected, whole(graph, image), rtol=0.05, atol=0.05 * np.abs(expected).max())
        assert precision != "f32" or np.array_equal(expected, whole(graph, image))
        fine = height * width // STRIDES[0] ** 2
        best = [float(scores.max()) for scores in (expected[BOX:, :fine], expected[BOX:, fine:])]
        assert best[0] * 1.05 < best[1]
        for min_confidence, columns in [(best[0] * 0.99, 0), (best[0] * 1.04, fine), (min(1, best[1] * 1.06), None)]:
            found = np.array(expected)
            found[:BOX, :columns] = 0
            for count in (1, 3):
                (outputs,) = engine.run([image] * count, min_confidence)
                assert len(outputs) == count
                for output in outputs:
                    assert np.array_equal(output, found)


def test_a_score_that_may_be_rounded_otherwise_counts(tmp_path: Path) -> None:
    graph = network(tmp_path / "graph.xml")
    image = np.full((32, 32, 3), 160, dtype=np.uint8)
    expected = whole(graph, image)
    engine = OpenVinoEngine(graph, "f32", Traits(bf16=True), threads=0)
    (output,) = engine.run([image], float(expected[BOX:].max()) * 1.002)[0]
    assert np.array_equal(output[:, 16:], expected[:, 16:])


def test_a_score_that_is_no_number_hides_no_other(tmp_path: Path) -> None:
    class Asked:
        def __init__(self, *outputs: F32) -> None:
            self.outputs, self.inputs = outputs, 0

        def infer(self, inputs: Sequence[F32], **_: bool) -> dict[int, F32]:
            self.inputs = len(inputs)
            return dict(enumerate(self.outputs))

    scores = np.array([[[[np.nan, 5.0]]]], dtype=np.float32)
    trunk, rests = Asked(scores, scores), [Asked(scores) for _ in range(2)]
    lane = DetectorLane.__new__(DetectorLane)
    lane.first, lane._rests = cast(Any, trunk), cast(Any, rests)
    lane.infer(np.zeros((1, 8, 8, 3), dtype=np.uint8), 0.25, None)
    assert [rest.inputs for rest in rests] == [2, 0]


@pytest.mark.parametrize("name", ["cv3", "cv2.1", "cv3.0", "cv2"])
def test_a_graph_with_another_head_stays_whole(tmp_path: Path, name: str) -> None:
    graph = network(tmp_path / "graph.xml", other=name)
    assert detector(graph) is None
    engine = OpenVinoEngine(graph, "f32", Traits(bf16=True), threads=0)
    assert isinstance(engine._lanes.get(), Chain)
    image = np.full((32, 64, 3), 99, dtype=np.uint8)
    assert np.array_equal(engine.run([image], 1)[0][0], whole(graph, image))


def test_a_head_that_wants_more_than_sizes_stays_whole(tmp_path: Path) -> None:
    assert detector(network(tmp_path / "graph.xml", dimension=1)) is None


def test_the_parts_take_no_more_than_they_need(tmp_path: Path) -> None:
    found = detector(network(tmp_path / "graph.xml"))
    assert found is not None
    assert [len(found.trunk.outputs), *(len(rest.inputs) for rest in found.rests)] == [4, 4, 3, 2]


def test_calls_at_a_time_get_their_own_answers_and_kept_graphs_the_same(tmp_path: Path) -> None:
    graph = network(tmp_path / "graph.xml")
    random = np.random.default_rng(2)
    batches = [
        random.integers(100, 190, (1 + number % 4, 32, 32 * (1 + number % 3), 3), dtype=np.uint8)
        for number in range(100)
    ]
    expected = [[whole(graph, image) for image in batch] for batch in batches]
    for _ in range(2):
        engine = OpenVinoEngine(graph, "f32", Traits(bf16=True), threads=0, cache=tmp_path / "cache")
        with ThreadPoolExecutor(4) as callers:
            for (found,), images in zip(callers.map(engine.run, batches), expected, strict=True):
                assert np.array_equal(found, images)
        assert len(list((tmp_path / "cache").rglob("*.blob"))) == 4


@pytest.mark.parametrize(
    ("cores", "threads", "expected"),
    [
        (1, 0, [1]),
        (2, 0, [1, 1]),
        (3, 0, [1, 1, 1]),
        (7, 0, [2, 2, 2, 1]),
        (8, 0, [2] * 4),
        (4, 16, [1] * 4),
        (8, 2, [1, 1]),
    ],
)
def test_the_threads_are_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, expected: list[int]
) -> None:
    graph = network(tmp_path / "graph.xml")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    shares: list[int] = []
    compile_parts = OpenVinoEngine._compile

    def compiled(self: OpenVinoEngine, parts: Any, share: int, **config: Any) -> Any:
        shares.append(share)
        return compile_parts(self, parts, 1, **config)

    monkeypatch.setattr(OpenVinoEngine, "_compile", compiled)
    OpenVinoEngine(graph, "f32", Traits(bf16=True), threads=threads)
    assert shares == ([threads, *expected] if len(expected) > 1 else [threads])
