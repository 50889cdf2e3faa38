"""A model's answer must not depend on what else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest

from models.catalogue import CATALOGUE, ModelName
from settings import EngineChoice
from tests.parity.conftest import ENGINES, Make
from vision.arrays import RGB

NAMES = [
    "bus.jpg",
    "pose_sitting.jpg",
    "knife_board.jpg",
    "cat_chelsea.png",
    "street_crowd.jpg",
    "knife_dark_table.jpg",
    "children_football.jpg",
    "gun_person_rifle.jpg",
]


@ENGINES
@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=pytest.mark.slow) if name == "depth_estimator" else name for name in CATALOGUE],
)
def test_the_same_alone_and_in_a_batch_of_eight(
    engine: EngineChoice, model: ModelName, make: Make, images: dict[str, RGB]
) -> None:
    pipeline = make(model, engine, "f32")
    names = (
        NAMES[:4] if model == "depth_estimator" else NAMES
    )  # depth takes ten times the others; of these some share a batch
    together = pipeline.run([images[name] for name in names])
    for name, (result, _) in zip(names, together, strict=True):
        ((alone, _),) = pipeline.run([images[name]])
        assert alone.keys() == result.keys()
        for key, value in alone.items():
            other = result[key]  # type: ignore[literal-required]
            if isinstance(value, np.ndarray):
                assert value.shape == other.shape, (name, key)
                np.testing.assert_allclose(value, other, atol=2e-2 if key in {"boxes", "keypoints"} else 1e-4)
            elif isinstance(value, dict):
                assert value == pytest.approx(other, abs=1e-4)
            else:
                assert value == other


@pytest.mark.parametrize("model", ["pose_estimator", "threat_detector"])
def test_eight_of_one_shape_really_run_as_one_batch(model: ModelName, make: Make, images: dict[str, RGB]) -> None:
    pipeline = make(model, "openvino", "f32")
    picture = images["bus.jpg"]
    views = [np.ascontiguousarray(np.roll(picture, 40 * step, axis=1)) for step in range(8)]
    together = [result for result, _ in pipeline.run(views)]
    alone = [pipeline.run([view])[0][0] for view in views]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one["boxes"], other["boxes"], atol=2e-2)  # type: ignore[typeddict-item]
