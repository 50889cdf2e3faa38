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
from tests.parity.conftest import Make
from vision.arrays import RGB

NAMES = ["bus.jpg", "street_kitti.png", "astronaut.png", "children_football.jpg"]


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_the_same_map_for_the_same_input(
    engine: EngineChoice, make: Make, images: dict[str, RGB], depth_weights: Path
) -> None:
    import torch
    from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

    model = DepthAnythingForDepthEstimation.from_pretrained(depth_weights).eval()
    processor = AutoImageProcessor.from_pretrained(depth_weights)
    pipeline = make("depth_estimator", engine, "f32")
    upright = np.ascontiguousarray(np.rot90(images["street_crowd.jpg"]))  # a camera hung on its side
    pictures = [images[name] for name in NAMES] + [upright]
    shapes = set()
    for picture, (result, _) in zip(pictures, pipeline.run(pictures), strict=True):
        tensor = pipeline.task.prepare(Picture.of(picture, None), Options(), None).items[0]["image"].copy()
        shapes.add(tensor.shape)
        with torch.inference_mode():
            inputs = processor(tensor, do_resize=False, return_tensors="pt")
            expected = model(**inputs).predicted_depth[0].numpy()
        depth = cast(DepthResult, result)["depth"]
        assert np.corrcoef(expected.ravel(), depth.ravel())[0, 1] >= 0.999
    assert len(shapes) == 5  # all the inputs that there are
