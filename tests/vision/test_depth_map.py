from __future__ import annotations

import io
import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from vision import depth_map
from vision.depth_map import Colormap, FileForm, as_file, normalise, region, rendered, sampled


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


def test_a_huge_box_is_measured_by_few_samples_of_the_same_values() -> None:
    depth = np.random.default_rng(0).uniform(0, 1, size=(37, 49)).astype(np.float32)
    few, all_of_it = sampled(depth, (8000, 6000), (0, 0, 8000, 6000)), region(depth, (980, 740), (0, 0, 980, 740))
    assert few.shape == (1024, 1024)
    for measure in (np.median, np.mean, np.max):
        assert measure(few) == pytest.approx(float(measure(all_of_it)), abs=2e-3)
    assert sampled(depth, (8000, 6000), (10, 20, 5000, 30)).shape == (10, 1024)
    box = (5, 7, 300, 200)
    assert (sampled(depth, (980, 740), box) == region(depth, (980, 740), box)).all()


def test_one_pixel_of_a_large_image_has_a_value() -> None:
    assert region(ramp(518, 518), (65535, 700), (40000, 3, 40001, 4))[0, 0] == pytest.approx(40000 / 65535, abs=0.01)


def grey(png: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.mode == "L"
    return np.asarray(image)


def test_the_png_is_grey_with_eight_bits_and_bright_is_near() -> None:
    found = rendered(np.array([[0, 0.5, 1]], np.float32), (3, 1), (0, 0, 3, 1))
    assert grey(found.png).tolist() == [[0, 128, 255]]
    assert (found.low, found.high, found.mean) == (0, 1, 0.5)


@pytest.mark.parametrize("image_size", [(28, 14), (900, 700), (21, 9), (700, 9), (21, 700), (1, 1), (40_000, 15)])
def test_a_picture_in_strips_shows_the_region(image_size: tuple[int, int]) -> None:
    depth = normalise(np.random.default_rng(0).uniform(0, 1, size=(14, 28)).astype(np.float32))
    width, height = image_size
    for box in [(0, 0, width, height), (width // 2, height // 3, width, height)]:
        found, whole = rendered(depth, image_size, box), region(depth, image_size, box)
        assert np.abs(grey(found.png) - np.float64(whole) * 255).max() <= 0.5 + 255e-4
        figures = whole.min(), whole.max(), whole.mean(dtype=np.float64)
        np.testing.assert_allclose((found.low, found.high, found.mean), figures, atol=1e-4)


def test_a_large_map_takes_little_more_than_its_own_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_map, "_png", lambda _: b"")
    tracemalloc.start()
    rendered(ramp(14, 28), (5000, 4000), (0, 0, 5000, 4000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5000 * 4000 * 1.4


def pixels(data: bytes) -> Any:
    """The pixels of a grey PNG, in its own depth."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("image_size", [(28, 14), (900, 700), (21, 9), (1, 1), (40_000, 15)])
def test_files_hold_the_region(image_size: tuple[int, int]) -> None:
    depth = normalise(np.random.default_rng(0).uniform(0, 1, size=(14, 28)).astype(np.float32))
    width, height = image_size
    for box in [(0, 0, width, height), (width // 2, height // 3, width, height)]:
        whole = region(depth, image_size, box)
        floats = np.load(io.BytesIO(as_file(depth, image_size, box, FileForm("npy"))), allow_pickle=False)
        assert (floats.dtype, floats.shape) == (np.float32, whole.shape)
        assert np.abs(floats - whole).max() <= 1 / 65_535
        deep = pixels(as_file(depth, image_size, box, FileForm("png16")))
        assert deep.dtype == np.uint16
        assert np.abs(np.float64(deep) / 65_535 - floats).max() <= 0.51 / 65_535
        assert as_file(depth, image_size, box, FileForm("png8")) == rendered(depth, image_size, box).png


@pytest.mark.parametrize(
    ("colormap", "far", "near"),  # matplotlib's first and last colours
    [
        ("inferno", (0, 0, 4), (252, 255, 164)),
        ("magma", (0, 0, 4), (252, 253, 191)),
        ("plasma", (13, 8, 135), (240, 249, 33)),
        ("viridis", (68, 1, 84), (253, 231, 37)),
        ("cividis", (0, 34, 78), (254, 232, 56)),
        ("turbo", (48, 18, 59), (122, 4, 3)),
    ],
)
def test_a_colormap_has_matplotlibs_colours(
    colormap: Colormap, far: tuple[int, int, int], near: tuple[int, int, int]
) -> None:
    data = as_file(np.array([[0, 0.5, 1]], np.float32), (3, 1), (0, 0, 3, 1), FileForm("png8", colormap))
    found = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert found.shape == (1, 3, 3)
    assert np.abs(found[0, [0, -1]] - [far, near]).max() <= 2


@pytest.mark.parametrize("form", [FileForm("npy"), FileForm("png16"), FileForm("png8"), FileForm("png8", "turbo")])
def test_the_memory_of_a_file_is_foreseen(form: FileForm) -> None:
    box = (0, 0, 3000, 2000)
    tracemalloc.start()
    as_file(ramp(14, 28), (3000, 2000), box, form)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= depth_map.answer_bytes(box, form)
