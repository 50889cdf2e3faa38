from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13 as operations

from models.catalogue import ModelName
from runners.engines import processor
from runners.engines.errors import EngineError
from runners.engines.openvino import OpenVinoEngine


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph with two outputs: each image's mean, and the image as float32."""
    image = operations.parameter([-1, -1, -1, 3], openvino.Type.u8)
    pixels = operations.convert(image, "f32")
    mean = operations.reduce_mean(pixels, operations.constant(np.array([1, 2, 3])), False)
    file = tmp_path_factory.mktemp("graph") / "graph.xml"
    openvino.save_model(openvino.Model([mean, pixels], [image]), file, compress_to_fp16=False)
    return file


def engine(graph: Path, model: ModelName = "threat_detector", threads: int = 0) -> OpenVinoEngine:
    return OpenVinoEngine(graph, "f32", model=model, threads=threads)


def pictures(count: int, height: int = 8, width: int = 6) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def sizes(loaded: OpenVinoEngine) -> list[int]:
    """The batch sizes for which it has compiled the graph."""
    return sorted(loaded._compiled)


@pytest.mark.parametrize("model", ["threat_detector", "depth_estimator"])
def test_every_batch_size_and_shape_is_answered_in_order(graph: Path, model: ModelName) -> None:
    loaded = engine(graph, model)
    for count, height, width in [
        (1, 8, 6),
        (2, 8, 6),
        (3, 5, 4),
        (4, 8, 6),
        (7, 8, 6),
        (8, 3, 9),
        (1, 3, 9),
        (9, 8, 6),
    ]:
        batch = pictures(count, height, width)
        means, pixels = loaded.run(batch)
        assert means == pytest.approx(batch.astype(np.float32).mean(axis=(1, 2, 3)))
        assert np.array_equal(pixels, batch.astype(np.float32))


def test_whatever_comes_it_is_computed_in_fours_and_ones(graph: Path) -> None:
    loaded = engine(graph)
    for count in range(1, 10):
        loaded.run(pictures(count))
    assert sizes(loaded) == [1, 4]


def test_depth_is_computed_one_by_one(graph: Path) -> None:
    loaded = engine(graph, "depth_estimator")
    loaded.run(pictures(4))
    assert sizes(loaded) == [1]


def test_where_no_four_can_come_together_none_are_compiled_for(graph: Path) -> None:
    loaded = engine(graph)
    loaded.warm_up([(1, 8, 6, 3), (2, 8, 6, 3)])
    assert sizes(loaded) == [1]


def test_warming_up_compiles_for_all_that_will_come(graph: Path) -> None:
    loaded = engine(graph)
    loaded.warm_up([(1, 8, 6, 3), (2, 8, 6, 3), (4, 8, 6, 3), (8, 8, 6, 3), (1, 3, 9, 3)])
    assert sizes(loaded) == [1, 4]


@pytest.mark.parametrize(
    ("model", "threads", "expected"),
    [("person_reid", 0, 1), ("person_reid", 2, 2), ("pose_estimator", 1, 1), ("pose_estimator", 0, os.cpu_count())],
)
def test_small_models_take_one_thread_and_others_all_unless_told(
    graph: Path, model: ModelName, threads: int, expected: int
) -> None:
    (request,) = engine(graph, model, threads)._compiled[1]
    assert request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == expected


def test_what_was_compiled_is_taken_from_the_cache_and_a_damaged_file_is_compiled_anew(
    graph: Path, tmp_path: Path
) -> None:
    expected = engine(graph).run(pictures(5))
    for damage in (False, False, True):
        for blob in tmp_path.glob("f32/*.blob") if damage else ():
            blob.chmod(0o600)
            blob.write_bytes(blob.read_bytes()[:100])
        loaded = OpenVinoEngine(graph, "f32", model="threat_detector", threads=0, cache=tmp_path)
        for one, other in zip(loaded.run(pictures(5)), expected, strict=True):
            assert np.array_equal(one, other)
        assert len(list(tmp_path.glob("f32/*.blob"))) == 2  # of one image, of four


@pytest.mark.skipif("FP16" not in processor.capabilities(), reason="this CPU has no f16 instructions")
def test_what_another_precision_left_in_the_cache_is_not_taken(graph: Path, tmp_path: Path) -> None:
    expected, _ = engine(graph).run(pictures(1))
    for precision in ("f16", "f32"):
        loaded = OpenVinoEngine(graph, precision, model="threat_detector", threads=0, cache=tmp_path)
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
    assert {name: OpenVinoEngine.auto_precision(name) for name in expected} == expected


def test_a_precision_without_instructions_is_refused(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "capabilities", lambda: ["FP32"])
    with pytest.raises(EngineError, match="no int8 instructions"):
        OpenVinoEngine(graph, "int8", model="pose_estimator", threads=0)
