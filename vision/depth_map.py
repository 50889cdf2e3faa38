"""Normalises relative depth maps, cuts regions out of them and encodes them as PNG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.arrays import F32
from vision.bands import bands


@dataclass(frozen=True)
class Rendered:
    """A region of a depth map as a PNG, 8-bit grey, bright is near.

    low, high, mean: of the region's depth, 0…1, before rounding to 8 bits.
    """

    png: bytes
    low: float
    high: float
    mean: float


def normalise(depth: F32) -> F32:
    """Scale a (h, w) map of relative inverse depth to 0…1: 1 is the map's nearest point, 0 its farthest.

    A constant map becomes all 0. Raises ValueError for NaN or infinite values.
    """
    low, high = float(depth.min()), float(depth.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("the depth map has values that are not finite")
    if high == low:
        return np.zeros_like(depth, dtype=np.float32)
    return ((depth - low) / (high - low)).astype(np.float32)


def region(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int]) -> F32:
    """The depth within a box of the image: (bottom - top, right - left) float32, from a normalised (h, w) map.

    image_size: width, height of the image in pixels. box: left, top, right, bottom in whole pixels of the image.
    Bilinear sampling from the whole map: a box has the same values as the whole map at that place.
    """
    height, width = depth.shape
    left, top, right, bottom = box
    per_x, per_y = width / image_size[0], height / image_size[1]
    source = (left * per_x, top * per_y, right * per_x, bottom * per_y)
    size = (right - left, bottom - top)
    return np.asarray(Image.fromarray(depth).resize(size, Image.Resampling.BILINEAR, box=source), dtype=np.float32)


def rendered(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int]) -> Rendered:
    """Render the same part as `region`, as a PNG. It works in strips, because a full float32 map needs more memory.

    Raises ValueError if the PNG can't be encoded.
    """
    left, top, right, bottom = box
    wide = region(depth, (image_size[0], len(depth)), (left, 0, right, len(depth)))
    grey = np.empty((bottom - top, right - left), np.uint8)
    low, high, total = np.inf, -np.inf, 0.0
    for rows in bands(*grey.shape):
        strip = _rows(wide, image_size[1], top + rows.start, top + rows.stop)
        low, high = min(low, float(strip.min())), max(high, float(strip.max()))
        total += float(strip.sum(dtype=np.float64))
        strip *= 255
        grey[rows] = np.rint(strip, out=strip)
    return Rendered(_png(grey), low, high, total / grey.size)


def answer_bytes(box: tuple[int, int, int, int]) -> int:
    """An upper bound in bytes for the peak memory of `rendered`, and of its PNG as base64 and JSON."""
    left, top, right, bottom = box
    return 5 * (right - left) * (bottom - top)


def _rows(wide: F32, image_height: int, top: int, bottom: int) -> F32:
    """Rows top…bottom of the image, writable. wide: (h, image width), scaled to the image in width only."""
    height, width = wide.shape
    if image_height < height:
        return region(wide, (width, image_height), (0, top, width, bottom)).copy()
    # The same arithmetic as Pillow's enlarging, but faster.
    positions = ((np.arange(top, bottom) + 0.5) * (height / image_height) - 0.5).clip(0, height - 1)
    above = positions.astype(np.intp)
    upper: F32 = wide[above]
    strip: F32 = wide[np.minimum(above + 1, height - 1)]
    strip -= upper
    strip *= (positions - above).astype(np.float32)[:, None]
    strip += upper
    return strip


def _png(grey: NDArray[np.uint8]) -> bytes:
    done, png = cv2.imencode(".png", grey)
    if not done:
        raise ValueError(f"no PNG could be made of a map of {grey.shape[1]}×{grey.shape[0]} pixels")
    return png.tobytes()
