"""A detector's head, of which only what counts is computed (of the real ones: tests/parity/test_heads.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as operations

from runners.engines.lanes import Chain
from runners.engines.openvino import OpenVinoEngine
from runners.engines.parts import detector
from tests.runners.engines.test_openvino import first_tensor as first_tensor

BOX, CLASSES = 4, 2
STRIDES: Final = (8, 16)
F32 = NDArray[np.float32]


def network(file: Path, scores: str = "cv3") -> Path:
    """Two scales, of which the coarser one scores higher, and whose boxes grow with the picture's width."""
    image = operations.parameter([-1, -1, -1, 3], openvino.Type.u8, name="image")
    centred = operations.subtract(operations.convert(image, "f32"), operations.constant(np.float32(128)))
    pixels = operations.transpose(centred, operations.constant([0, 3, 1, 2]))
    random = np.random.default_rng(0)
    classes = np.abs(random.normal(size=(CLASSES, 3))) / 200
    scales = []
    for scale, stride in enumerate(STRIDES):
        features = operations.avg_pool(pixels, [stride] * 2, [0, 0], [0, 0], [stride] * 2, exclude_pad=True)
        boxes = branch(f"cv2.{scale}", features, random.normal(size=(BOX, 3)))
        logits = branch(f"{scores}.{scale}", features, classes * (scale + 1))
        width = operations.gather(operations.shape_of(features), operations.constant(3), operations.constant(0))
        grown = operations.multiply(boxes, operations.convert(width, "f32"))
        said = operations.concat([grown, operations.sigmoid(logits)], axis=1)
        scales.append(operations.reshape(said, operations.constant([0, BOX + CLASSES, -1]), special_zero=True))
    openvino.save_model(openvino.Model([operations.concat(scales, axis=2)], [image]), file, compress_to_fp16=False)
    return file


def branch(name: str, features: Any, weights: NDArray[np.float64]) -> Any:
    for place, filters in (("0/conv", np.eye(3)), ("2", weights)):
        constant = operations.constant(filters[..., None, None].astype(np.float32))
        features = operations.convolution(features, constant, [1, 1], [0, 0], [0, 0], [1, 1])
        features.set_friendly_name(f"/model.22/{name}/{name}.{place}/Conv")
    return features


def whole(graph: Path, image: NDArray[np.uint8]) -> F32:
    """What OpenVINO gives for the graph as it is."""
    model = openvino.Core().read_model(graph)
    model.reshape({model.input(0): [1, *model.input(0).partial_shape[1:]]})
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32})
    output: F32 = compiled([image[None]])[0][0]
    return output


def test_the_scales_below_the_score_that_counts_are_left_out_and_nothing_else_changes(tmp_path: Path) -> None:
    graph = network(tmp_path / "graph.xml")
    engine = OpenVinoEngine(graph, "f32", model="threat_detector", threads=0)
    random = np.random.default_rng(1)
    left_out = []
    for height, width in [(32, 32), (64, 96), (32, 64), (128, 128), (64, 96)]:  # memory that grows, and does not
        image = random.integers(150, 190, (height, width, 3), dtype=np.uint8)
        expected = whole(graph, image)
        fine = height * width // STRIDES[0] ** 2
        best = [float(scores.max()) for scores in (expected[BOX:, :fine], expected[BOX:, fine:])]
        assert best[0] * 1.05 < best[1]
        for min_score, columns in [(best[0] * 0.99, 0), (best[0] * 1.04, fine), (min(1, best[1] * 1.04), None)]:
            found = np.array(expected)
            found[:BOX, :columns] = 0
            for count in (1, 3):
                (outputs,) = engine.run([image] * count, min_score)
                for output in outputs:
                    assert np.array_equal(output, found)
            left_out.append(columns)
        assert np.array_equal(engine.run([image])[0][0], expected)
    assert set(left_out) > {0, None}


def test_a_score_that_may_be_rounded_otherwise_counts(tmp_path: Path) -> None:
    graph = network(tmp_path / "graph.xml")
    image = np.full((32, 32, 3), 140, dtype=np.uint8)
    expected = whole(graph, image)
    engine = OpenVinoEngine(graph, "f32", model="threat_detector", threads=0)
    (output,) = engine.run([image], float(expected[BOX:].max()) * 1.01)[0]
    coarse = slice(16, None)
    assert np.array_equal(output[:, coarse], expected[:, coarse])


def test_a_graph_without_such_a_head_stays_whole(tmp_path: Path) -> None:
    graph = network(tmp_path / "graph.xml", scores="cv7")
    assert detector(graph) is None
    engine = OpenVinoEngine(graph, "f32", model="threat_detector", threads=0)
    assert isinstance(engine._lanes.get(), Chain)
    image = np.full((32, 64, 3), 99, dtype=np.uint8)
    assert np.array_equal(engine.run([image], 1)[0][0], whole(graph, image))


def test_the_parts_take_no_more_than_they_need(tmp_path: Path) -> None:
    found = detector(network(tmp_path / "graph.xml"))
    assert found is not None
    assert [len(found.trunk.outputs), *(len(rest.inputs) for rest in found.rests)] == [4, 4, 3, 2]
