"""Depth against transformers' own model, on the input that the service makes. The weights are an untrained stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from settings import EngineChoice
from tasks.depth_estimator import DepthResult
from tasks.picture import Picture
from tasks.task import Options
from tests.parity.conftest import ENGINES, Make
from vision.arrays import F32, RGB

NAMES = ("bus.jpg", "street_kitti.png")


@pytest.fixture(scope="module")
def pictures(images: dict[str, RGB]) -> list[RGB]:
    upright = np.ascontiguousarray(np.rot90(images["street_crowd.jpg"]))  # a camera hung on its side
    square, wide = (images[name] for name in NAMES)
    side = min(square.shape[:2])
    return [square[:side, :side], wide[: wide.shape[1] // 3], upright]  # the real one is wider than that


@pytest.fixture(scope="module")
def official(make: Make, pictures: list[RGB], depth_weights: Path) -> list[F32]:
    """Each picture's map, (h, w), by transformers' own model; the three inputs have different shapes."""
    import torch
    from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

    model = DepthAnythingForDepthEstimation.from_pretrained(depth_weights).eval()
    processor = AutoImageProcessor.from_pretrained(depth_weights)
    task = make("depth_estimator", "openvino", "f32").task
    maps = []
    for picture in pictures:
        tensor = task.prepare(Picture.of(picture, None), Options(), None).items[0]["image"].copy()
        with torch.inference_mode():
            inputs = processor(tensor, do_resize=False, return_tensors="pt")
            maps.append(model(**inputs).predicted_depth[0].numpy())
    assert len({expected.shape for expected in maps}) == 3
    return maps


@pytest.mark.slow
@ENGINES
def test_the_same_map_for_the_same_input(
    engine: EngineChoice, make: Make, pictures: list[RGB], official: list[F32]
) -> None:
    pipeline = make("depth_estimator", engine, "f32")
    for expected, (result, _) in zip(official, pipeline.run(pictures), strict=True):
        depth = cast(DepthResult, result)["depth"]
        assert depth.shape == expected.shape
        assert np.corrcoef(expected.ravel(), depth.ravel())[0, 1] >= 0.999
