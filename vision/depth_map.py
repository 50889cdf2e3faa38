"""Relative depth: normalised maps, regions of them, and their PNG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.decoding.bands import bands

F32 = NDArray[np.float32]


def normalise(depth: F32) -> F32:
    """Scale a (h, w) map of relative inverse depth to 0…1 over the whole of it: 1 is nearest, 0 farthest.

    A constant map, of a picture without any depth, becomes all 0. Raises ValueError for NaN or infinite values.
    """
    low, high = float(depth.min()), float(depth.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("the depth map has values that are not finite")
    if high == low:
        return np.zeros_like(depth, dtype=np.float32)
    return ((depth - low) / (high - low)).astype(np.float32)


def region(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int]) -> F32:
    """The part of a normalised (h, w) map that belongs to a box of the image, in the box's own size.

    image_size: width, height of the image in pixels. box: left, top, right, bottom in whole pixels of the image.
    Bilinear, sampled from the whole map, so a box gives just the values that the whole map has in that place.
    """
    height, width = depth.shape
    left, top, right, bottom = box
    per_x, per_y = width / image_size[0], height / image_size[1]
    source = (left * per_x, top * per_y, right * per_x, bottom * per_y)
    size = (right - left, bottom - top)
    return np.asarray(Image.fromarray(depth).resize(size, Image.Resampling.BILINEAR, box=source), dtype=np.float32)


@dataclass(frozen=True)
class Rendered:
    """A region of a map to look at. png: 8-bit grey, bright is near. low, high, mean: of its values, 0…1."""

    png: bytes
    low: float
    high: float
    mean: float


def rendered(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int]) -> Rendered:
    """`region` as a picture with its figures, made a few rows at a time: as floats it takes eleven times the picture.

    Raises ValueError where no PNG can be made of it.
    """
    left, top, right, bottom = box
    picture = np.empty((bottom - top, right - left), np.uint8)
    low, high, total = 1.0, 0.0, 0.0
    for rows in bands(*picture.shape):
        part = region(depth, image_size, (left, top + rows.start, right, top + rows.stop))
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        total += float(part.sum(dtype=np.float64))
        picture[rows] = np.rint(part * 255)
    done, png = cv2.imencode(".png", picture)
    if not done:
        raise ValueError(f"no PNG could be made of a map of {picture.shape[1]}×{picture.shape[0]} pixels")
    return Rendered(png.tobytes(), low, high, total / picture.size)


def answer_bytes(box: tuple[int, int, int, int]) -> int:
    """What `rendered` and its base64 take of memory at their peak: an upper bound."""
    left, top, right, bottom = box
    return 5 * (right - left) * (bottom - top)
