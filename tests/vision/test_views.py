from __future__ import annotations

import math

import numpy as np
import pytest

from vision.arrays import RGB, Box
from vision.image import LETTERBOX_GREY
from vision.views import MOST_TILES, View, has_centre, is_foreign, means_whole, share_inside, views

SIZE = 640


def image(width: int, height: int) -> RGB:
    """Each pixel tells where it is: x in the first two channels, y in the third and what is left of the second."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x % 256, x // 256 * 16 + y // 256, y % 256], axis=2).astype(np.uint8)


def looked_at(picture: RGB, box: Box | None = None, *, is_crop: bool = False) -> list[View]:
    return views(picture, box, is_crop=is_crop, input_size=SIZE)


@pytest.mark.parametrize(
    ("box", "whole", "foreign"),
    [
        ((0, 0, 80, 240), True, False),
        ((-1, 1, 79, 242), True, False),
        ((500, 300, 580, 540), True, True),
        ((0, 300, 82, 538), True, True),
        ((500, 300, 585, 540), False, True),
        ((-4, 300, 80, 540), True, True),  # cut at the frame's left edge, and the box as the detector gave it
        ((500, -6, 580, 240), True, True),
        ((500, 300, 582.3, 547), True, True),  # at the right and the lower edge
        ((-4, 300, 60, 540), False, True),
        ((10, 10, 60, 200), False, True),
    ],
)
def test_a_box_of_the_images_size_is_the_image_wherever_it_lies(box: Box, whole: bool, foreign: bool) -> None:
    assert means_whole(box, 80, 240) is whole
    assert is_foreign(box) is foreign


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (1920, 1080), (320, 240), (720, 1280), (360, 640), (480, 600)]
)
def test_a_frame_is_looked_at_as_it_is(width: int, height: int) -> None:
    picture = image(width, height)
    (view,) = looked_at(picture)
    assert view.pixels is picture
    assert view.corner == (0, 0)


@pytest.mark.parametrize(
    ("box", "corner", "size"),
    [
        ((1000, 400, 1100, 600), (730, 180), (640, 640)),  # small: as much scene as the network takes
        ((600, 100, 1000, 900), (0, 0), (1800, 1080)),  # large: 2.5 times as long, cut off above and below
        ((0, 0, 60, 100), (0, 0), (350, 370)),  # at the corner
    ],
)
def test_a_box_is_seen_with_scene_around_it(box: Box, corner: tuple[int, int], size: tuple[int, int]) -> None:
    picture = image(1920, 1080)
    (view,) = looked_at(picture, box)
    assert view.corner == corner
    np.testing.assert_array_equal(
        view.pixels, picture[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]]
    )


@pytest.mark.parametrize(
    ("size", "is_crop", "canvas"),
    [
        ((80, 240), True, (640, 640)),
        ((80, 240), False, (640, 640)),  # upright and small: a crop of a person
        ((240, 80), True, (640, 640)),
        ((500, 900), True, (750, 1350)),
        ((81, 241), True, (641, 641)),
    ],
)
def test_a_crop_stands_in_grey_and_is_not_enlarged(
    size: tuple[int, int], is_crop: bool, canvas: tuple[int, int]
) -> None:
    picture = image(*size)
    (view,) = looked_at(picture, is_crop=is_crop)
    left, top = -view.corner[0], -view.corner[1]
    assert view.pixels.shape == (canvas[1], canvas[0], 3)
    np.testing.assert_array_equal(view.pixels[top : top + size[1], left : left + size[0]], picture)
    grey = view.pixels.copy()
    grey[top : top + size[1], left : left + size[0]] = LETTERBOX_GREY
    assert (grey == LETTERBOX_GREY).all()


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("longer", [810, 1000, 2963, 12_000])
def test_the_tiles_of_a_panorama_cover_it_and_their_cores_divide_it(longer: int, upright: bool) -> None:
    shorter = 200
    picture = image(shorter, longer) if upright else image(longer, shorter)
    found = looked_at(picture)
    assert 2 < len(found) <= MOST_TILES
    axis = 0 if upright else 1
    for view in found:
        start, length = view.corner[1 - axis], view.pixels.shape[axis]
        part = picture[start : start + length] if upright else picture[:, start : start + length]
        assert np.shares_memory(view.pixels, picture)
        np.testing.assert_array_equal(view.pixels, part)
        low, high = view.core[1 - axis], view.core[3 - axis]
        # Who is no wider than a quarter of a tile's overlap beyond the border is whole in this tile.
        assert math.isinf(low) or start < low - 0.1 * shorter
        assert math.isinf(high) or high + 0.1 * shorter < start + length
    assert found[0].corner == (0, 0)
    assert found[-1].corner[1 - axis] + found[-1].pixels.shape[axis] == longer
    centres = np.arange(0, longer, 7.0, dtype=np.float32)
    across = np.full_like(centres, shorter / 2)
    points = np.stack([across, centres] if upright else [centres, across], axis=1)
    boxes = np.concatenate([points, points], axis=1)
    counted = np.array([has_centre(boxes, view.core) for view in found]).sum(axis=0)
    assert counted.tolist() == [1] * len(boxes)


@pytest.mark.parametrize("upright", [False, True])
def test_a_long_part_of_a_panorama_is_tiled_as_the_whole_is(upright: bool) -> None:
    picture = image(1080, 8000) if upright else image(8000, 1080)
    box = (540, 0, 1080, 8000) if upright else (0, 540, 8000, 1080)
    found = looked_at(picture, box)
    assert [(view.corner, view.core) for view in found] == [(view.corner, view.core) for view in looked_at(picture)]
    longer = image(1080, 16000) if upright else image(16000, 1080)
    part, axis = (longer[2700:8700], 1) if upright else (longer[:, 2700:8700], 0)
    moved = looked_at(longer, (0, 4500, 1080, 6900) if upright else (4500, 0, 6900, 1080))
    for view, alone in zip(moved, looked_at(part), strict=True):
        np.testing.assert_array_equal(view.pixels, alone.pixels)
        assert view.corner[axis] == alone.corner[axis] + 2700
        assert view.core[axis::2] == tuple(side + 2700 for side in alone.core[axis::2])


@pytest.mark.parametrize("size", [(3000, 750), (750, 3000), (640, 100), (600, 2)])
def test_what_is_not_too_long_or_small_enough_is_one_view(size: tuple[int, int]) -> None:
    assert len(looked_at(image(*size))) == 1


def test_the_share_of_a_box_inside_an_area() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [-10, -10, 30, 30], [3, 3, 3, 3]], np.float32)
    assert share_inside(boxes, (0, 0, 10, 10)).tolist() == pytest.approx([1, 0.5, 0, 100 / 1600, 0])
