"""Depth: input shapes, and maps from 0 to 1."""

from __future__ import annotations

import numpy as np
import pytest

from tasks import depth_estimator
from tests.tasks.made import DEPTH, ITEM, card, shape_of


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((1920, 1080), (392, 686)),
        ((640, 480), (448, 602)),
        ((500, 500), (518, 518)),
        ((480, 640), (602, 448)),
        ((1080, 1920), (686, 392)),
        ((1, 3000), (686, 392)),
        ((3000, 1), (392, 686)),
        ((1, 1), (518, 518)),
    ],
)
def test_depth_has_five_input_shapes(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert depth_estimator.input_shape(*size, 518) == shape
    assert shape_of(DEPTH, np.zeros((size[1], size[0], 3), np.uint8)) == (*shape, 3)


@pytest.mark.parametrize("size", [14, 28, 266, 518, 1036])
def test_depths_inputs_are_multiples_of_the_patch_and_about_equal_in_area(size: int) -> None:
    for ratio in depth_estimator.ASPECT_RATIOS:
        height, width = depth_estimator.input_shape(round(1000 * ratio), 1000, size)
        assert height % 14 == width % 14 == 0
        assert height >= 14
        assert size < 100 or height * width == pytest.approx(size**2, rel=0.06)


def test_depth_is_normalised_over_its_whole_map() -> None:
    result = DEPTH.interpret((np.array([[2, 4], [6, 3]], np.float32),), ITEM, card("depth_estimator"))
    assert result["depth"].tolist() == [[0, 0.5], [1, 0.25]]
