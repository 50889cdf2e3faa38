from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vision.depth_map import normalise, region, rendered


def ramp(height: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))


def test_a_map_is_scaled_to_the_whole_range() -> None:
    depth = np.array([[-3, 1], [5, 0]], np.float32)
    scaled = normalise(depth)
    assert scaled.tolist() == [[0, 0.5], [1, 0.375]]
    assert scaled.dtype == np.float32


def test_a_constant_map_is_all_far() -> None:
    assert normalise(np.full((3, 4), 7, np.float32)).tolist() == [[0] * 4] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        normalise(np.array([[0, bad]], np.float32))


def test_the_region_of_the_whole_image_has_the_images_size_and_the_maps_range() -> None:
    whole = region(ramp(14, 28), (280, 140), (0, 0, 280, 140))
    assert whole.shape == (140, 280)
    assert whole.dtype == np.float32
    assert whole.min() == 0
    assert whole.max() == 1
    np.testing.assert_allclose(whole.mean(), 0.5, atol=1e-3)


@pytest.mark.parametrize("image_size", [(280, 140), (21, 9)], ids=["enlarged", "reduced"])
def test_a_box_gives_just_the_values_that_the_whole_map_has_there(image_size: tuple[int, int]) -> None:
    depth = np.random.default_rng(0).uniform(0, 1, size=(14, 28)).astype(np.float32)
    width, height = image_size
    whole = region(depth, image_size, (0, 0, width, height))
    for box in [(0, 0, width // 3, height), (width // 2, height // 3, width, height), (2, 3, 3, 4)]:
        left, top, right, bottom = box
        np.testing.assert_allclose(region(depth, image_size, box), whole[top:bottom, left:right], atol=1e-4)


def test_a_region_of_every_size_stays_inside_the_map() -> None:
    # left + width × (map / image) may exceed the map by a rounding error, which the resizing would refuse.
    depth = ramp(7, 11)
    for side in range(1, 400):
        assert region(depth, (side, side), (0, 0, side, side)).shape == (side, side)
        last = region(depth, (side, side), (side - 1, side - 1, side, side))
        assert last.shape == (1, 1)
        assert 0 <= last[0, 0] <= 1


def test_one_pixel_of_a_large_image_has_a_value() -> None:
    assert region(ramp(518, 518), (65535, 700), (40000, 3, 40001, 4))[0, 0] == pytest.approx(40000 / 65535, abs=0.01)


def test_the_png_is_grey_with_eight_bits_and_bright_is_near() -> None:
    image = Image.open(io.BytesIO(rendered(np.array([[0, 0.5, 1]], np.float32), (3, 1), (0, 0, 3, 1)).png))
    assert image.format == "PNG"
    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[0, 128, 255]]


def test_a_picture_made_a_few_rows_at_a_time_is_the_region() -> None:
    depth = np.random.default_rng(1).random((37, 49), np.float32)
    for box in ((0, 0, 1900, 1080), (300, 200, 1501, 1001), (7, 7, 8, 8)):
        found = rendered(depth, (1900, 1080), box)
        values = region(depth, (1900, 1080), box)
        shown = np.asarray(Image.open(io.BytesIO(found.png)))
        assert shown.shape == values.shape
        assert np.abs(shown - values * 255).max() <= 0.51
        assert (found.low, found.high) == pytest.approx((values.min(), values.max()), abs=1e-6)
        assert found.mean == pytest.approx(values.mean(dtype=np.float64), abs=1e-6)


def test_a_large_picture_takes_little_more_than_itself() -> None:
    depth = np.random.default_rng(1).random((37, 49), np.float32)
    tracemalloc.start()
    found = rendered(depth, (7000, 7000), (0, 0, 7000, 7000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 49 MB of grey, the PNG twice, and a band of floats; it was 561 MB.
    assert peak - 49e6 - 2 * len(found.png) < 20e6
