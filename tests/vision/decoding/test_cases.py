"""The files of shared/cases, each as its README says it is right."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from vision.arrays import RGB
from vision.decoding import DamagedImage, ImageTooLarge, Limits, open_image

LIMITS = Limits(pixels=50_000_000, pass_pixels=1_000_000_000)


@pytest.fixture
def cases(shared: Path) -> Path:
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it holds files that once failed")
    return folder


def decode(path: Path) -> RGB:
    return open_image(path.read_bytes(), LIMITS).decode()


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("jpeg-without-eoi.jpg", "right.jpg"),
        ("jpeg-orientation-in-xmp-only.jpg", "right.jpg"),
        ("png-wrong-crc-in-phys.png", "right.png"),
        ("png-ztxt-2mb.png", "right.png"),
        ("tiff-16bit-min-is-white.tif", "right-grey.png"),
        ("tiff-16bit-rgb-planar.tif", "right.png"),
        ("tiff-uint32-grey.tif", "right-grey.png"),
    ],
)
def test_a_file_is_shown_as_a_careful_viewer_shows_it(cases: Path, name: str, right: str) -> None:
    assert np.abs(decode(cases / name).astype(int) - decode(cases / right)).max() <= 1


def test_a_jpeg_of_which_half_is_lost_is_damaged(cases: Path) -> None:
    with pytest.raises(DamagedImage):
        decode(cases / "jpeg-half-with-eoi.jpg")


def test_a_jpeg_of_3000_empty_scans_is_refused_at_once(cases: Path) -> None:
    data = (cases / "jpeg-3000-empty-scans.jpg").read_bytes()
    took = []
    for _ in range(5):
        began = time.thread_time()
        with pytest.raises(ImageTooLarge):
            open_image(data, LIMITS)
        took.append(time.thread_time() - began)
    assert min(took) < 0.05
