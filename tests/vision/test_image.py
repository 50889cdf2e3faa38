from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.vision.decoding.made import noise, scene
from vision.arrays import RGB, Box
from vision.errors import BoxOutside
from vision.image import LETTERBOX_SIZES, crop, letterbox, resize, resize_shortest_edge

# ── crop ──


@pytest.mark.parametrize(
    ("box", "corner", "size"),
    [
        ((10, 5, 30, 25), (10, 5), (20, 20)),
        ((0, 0, 60, 40), (0, 0), (60, 40)),
        ((-20, -1e6, 1e6, 7), (0, 0), (60, 7)),
        ((50, 30, 70, 50), (50, 30), (10, 10)),
        ((10.6, 5.2, 30.1, 24.9), (10, 5), (21, 20)),
        ((10.2, 5.2, 10.3, 5.3), (10, 5), (1, 1)),
        ((59.5, 39.5, 61, 41), (59, 39), (1, 1)),
    ],
)
def test_a_box_is_clamped_and_grown_to_whole_pixels(box: Box, corner: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = noise(40, 60)
    part, found = crop(pixels, box)
    assert found == corner
    np.testing.assert_array_equal(part, pixels[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]])
    assert part.shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "box", [(60, 0, 70, 40), (0, 40, 60, 50), (-10, 0, 0, 40), (0, -9, 60, -1), (900, 900, 999, 999)]
)
def test_a_box_outside_is_refused(box: Box) -> None:
    with pytest.raises(BoxOutside, match="60×40"):
        crop(noise(40, 60), box)


# ── letterbox ──


@pytest.mark.parametrize(
    ("image_size", "shape", "inner", "corner"),
    [
        # width, height → height, width of the input; width, height of the picture in it; its left upper corner.
        # The figures are those of ultralytics' LetterBox((640, 640), auto=True, stride=32).
        ((640, 640), (640, 640), (640, 640), (0, 0)),
        ((810, 1080), (640, 480), (480, 640), (0, 0)),
        ((1280, 720), (384, 640), (640, 360), (0, 12)),
        ((1920, 1080), (384, 640), (640, 360), (0, 12)),
        ((640, 361), (384, 640), (640, 361), (0, 11)),
        ((333, 641), (640, 352), (332, 640), (10, 0)),
        ((100, 50), (320, 640), (640, 320), (0, 0)),
        ((1, 1), (640, 640), (640, 640), (0, 0)),
        ((1, 3000), (640, 32), (1, 640), (15, 0)),
        ((3000, 1), (32, 640), (640, 1), (0, 15)),
        ((65535, 1), (32, 640), (640, 1), (0, 15)),
    ],
)
def test_letterbox_is_ultralytics_arithmetic(
    image_size: tuple[int, int], shape: tuple[int, int], inner: tuple[int, int], corner: tuple[int, int]
) -> None:
    fitted = letterbox(np.full((image_size[1], image_size[0], 3), 200, np.uint8), 640, 32)
    assert fitted.image.shape == (*shape, 3)
    assert (fitted.left, fitted.top) == corner
    edges = np.array([corner, (corner[0] + inner[0], corner[1] + inner[1])], np.float32)
    np.testing.assert_allclose(fitted.to_image(edges), [(0, 0), image_size], rtol=1e-5)
    picture = np.full((*shape, 3), 114, np.uint8)
    picture[corner[1] : corner[1] + inner[1], corner[0] : corner[0] + inner[0]] = 200
    np.testing.assert_array_equal(fitted.image, picture)


def test_letterbox_leaves_a_picture_of_the_right_size_alone() -> None:
    pixels = noise(480, 640)
    np.testing.assert_array_equal(letterbox(pixels, 640, 32).image, pixels)


def test_points_of_a_letterbox_go_back_to_where_they_came_from() -> None:
    rng = np.random.default_rng(0)
    for width, height in rng.integers(1, 3000, size=(20, 2)):
        fitted = letterbox(np.zeros((height, width, 3), np.uint8), 640, 32)
        points = (rng.uniform(0, 1, size=(17, 2)) * (width, height)).astype(np.float32)
        inside = points * np.array(fitted.scale) + (fitted.left, fitted.top)
        np.testing.assert_allclose(fitted.to_image(inside.astype(np.float32)), points, atol=max(width, height) / 1e4)


@pytest.mark.parametrize("ratio", [1, 16 / 9, 4 / 3, 3 / 4, 9 / 16])
def test_the_sizes_that_warm_up_uses_are_those_of_camera_frames(ratio: float) -> None:
    frame = np.zeros((1080, round(1080 * ratio), 3), np.uint8)
    assert letterbox(frame, 640, 32).image.shape[:2] in LETTERBOX_SIZES


def test_no_input_is_larger_than_the_one_that_warm_up_takes_for_the_largest() -> None:
    assert max(LETTERBOX_SIZES, key=lambda size: size[0] * size[1]) == LETTERBOX_SIZES[0] == (640, 640)


# ── resize ──


def naive_shortest_edge(pixels: RGB, edge: int, side: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    scaled = Image.fromarray(pixels).resize(
        (int(edge * width / shorter), int(edge * height / shorter)), Image.Resampling.BICUBIC
    )
    left, top = (scaled.width - side) // 2, (scaled.height - side) // 2
    return np.asarray(scaled.crop((left, top, left + side, top + side)))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (40, 90), (1200, 400)])
def test_the_shortest_edge_is_scaled_and_the_centre_cut_out(size: tuple[int, int]) -> None:
    pixels = scene(size[1], size[0])
    cut = resize_shortest_edge(pixels, 256, 224, Image.Resampling.BICUBIC)
    assert cut.shape == (224, 224, 3)
    assert np.abs(cut.astype(int) - naive_shortest_edge(pixels, 256, 224)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (1, 65535)])
def test_extreme_shapes_cost_no_more_than_others(size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 3), 99, np.uint8)
    began = time.perf_counter()
    assert np.all(resize_shortest_edge(pixels, 256, 224, Image.Resampling.BICUBIC) == 99)
    assert time.perf_counter() - began < 0.5


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, 16, 16, Image.Resampling.BILINEAR)
    assert small.shape == (16, 16, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (60, 150), (128, 256), (1, 1), (1, 3000), (65_535, 1)])
def test_resizing_is_pillow_s_but_for_rounding(size: tuple[int, int], resample: Image.Resampling) -> None:
    pixels = scene(*size[::-1])
    for width, height in [(128, 256), (686, 518)]:
        expected = np.asarray(Image.fromarray(pixels).resize((width, height), resample))
        assert np.abs(resize(pixels, width, height, resample).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.LANCZOS])
def test_a_checkpoint_may_want_any_of_pillow_s_filters(resample: Image.Resampling) -> None:
    pixels = noise(60, 80)
    expected = np.asarray(Image.fromarray(pixels).resize((32, 24), resample))[:24, 4:28]
    assert np.abs(resize_shortest_edge(pixels, 24, 24, resample).astype(int) - expected).max() <= 1


def test_a_part_of_an_image_is_resized_as_a_copy_of_it() -> None:
    pixels = scene(480, 640)
    part = pixels[50:400, 100:250]
    assert np.array_equal(
        resize(part, 128, 256, Image.Resampling.BILINEAR), resize(part.copy(), 128, 256, Image.Resampling.BILINEAR)
    )


def test_what_was_resized_is_held_by_nothing_else() -> None:
    """Many threads resize at once: none may write into what another was given."""
    scenes = [np.full((480, 640, 3), value, np.uint8) for value in range(64)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda pixels: resize(pixels, 128, 256, Image.Resampling.BILINEAR), scenes))
    assert [np.unique(image).tolist() for image in made] == [[value] for value in range(64)]
