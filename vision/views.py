"""Chooses the parts of an image that a detector gets as inputs, and the detections that count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from vision.arrays import F32, RGB, Box
from vision.image import LETTERBOX_GREY, crop

# The figures below are measured on the people and knives in ../shared's pictures: docs/understand/accuracy.md has them.
SAME_SIZE_PX: Final = 2.0  # tolerance in pixels for a box that is as large as the image
_OVERHANG: Final = 0.03  # of a side; detectors place boxes so far beyond a frame's edge
_MARGIN: Final = 0.75  # scene on each side of a box, as a share of the box's longer side
_TIGHT_MARGIN: Final = 0.25  # grey on each side of an image that is a crop, as a share of that side
_UPRIGHT: Final = 1.5  # height : width from which an image smaller than the network's input counts as a crop
_MOST_ASPECT: Final = 4.0  # longer : shorter side up to which an image is not tiled
_TILE_ASPECT: Final = 16 / 9
_TILE_OVERLAP: Final = 0.25
#: An object at the border of two tiles is whole in both up to this share of a tile's length.
WHOLE: Final = _TILE_OVERLAP / 2
_NEAR: Final = 0.05  # tolerance at the border of two tiles' cores, as a share of a box's size
EVERYWHERE: Final[Box] = (-math.inf, -math.inf, math.inf, math.inf)
MOST_TILES: Final = 12  # a 16000×1080 panorama has 11; the tiles of a longer one are larger


@dataclass(frozen=True)
class View:
    """A part of an image that becomes a detector's input.

    pixels: (h, w, 3) uint8. corner: x, y of its top left corner in the image's pixels; negative if grey surrounds the
    image. core: x1, y1, x2, y2 in the image's pixels. A detection counts only in the view whose core has its centre.
    """

    pixels: RGB
    corner: tuple[int, int]
    core: Box


def means_whole(box: Box, width: int, height: int) -> bool:
    """Whether a box stands for the whole image, because it has the image's size, at whatever position.

    Callers crop a person out of a frame and send the crop with its box in the frame. A box of that size can't mean a
    part of the image. Some crop only as far as the frame reaches, and send the box that overhangs it: a part before 0
    does not count then, and a little more at the other end does no harm. box: x1, y1, x2, y2; all in pixels.
    """
    left, top, right, bottom = box
    return _has_length(left, right, width) and _has_length(top, bottom, height)


def _has_length(start: float, end: float, length: int) -> bool:
    beyond = end - max(start, 0) - length
    overhang = max(SAME_SIZE_PX, length * _OVERHANG)
    return abs(end - start - length) <= SAME_SIZE_PX or -SAME_SIZE_PX <= beyond <= overhang


def is_foreign(box: Box) -> bool:
    """Whether a box that means the whole image has another position: then the image is a crop of a larger frame."""
    return max(abs(box[0]), abs(box[1])) > SAME_SIZE_PX


def views(image: RGB, box: Box | None, *, is_crop: bool, input_size: int) -> list[View]:
    """The views of an image (h, w, 3); most images have one.

    box: the requested part, x1, y1, x2, y2 in pixels, with at least one pixel in the image; None = the whole image.
    is_crop: the image is known to be a crop. input_size: side of the network's largest input, in pixels.
    """
    height, width = image.shape[:2]
    if box is not None:
        around = _around(image, box, input_size)
        return _tiles(around) if _is_long(around.pixels, input_size) else [around]
    if is_crop or (height >= _UPRIGHT * width and height < input_size):
        return [_surrounded(image, input_size)]
    whole = View(image, (0, 0), EVERYWHERE)
    return _tiles(whole) if _is_long(image, input_size) else [whole]


def share_inside(boxes: F32, area: Box) -> F32:
    """The share (n,), 0…1, of each box (n, 4) that lies inside an area. Both x1, y1, x2, y2 in pixels."""
    low = np.maximum(boxes[:, :2], np.array(area[:2], np.float32))
    high = np.minimum(boxes[:, 2:], np.array(area[2:], np.float32))
    common = np.clip(high - low, 0, None).prod(axis=1)
    share: F32 = common / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    return share


def has_centre(boxes: F32, core: Box, whole: float = math.inf) -> NDArray[np.bool_]:
    """A mask (n,) of the boxes (n, 4) whose centre is in a view's core, or next to it.

    Two tiles place an object a bit differently. At the border of their cores each might leave it to the other. So a
    small part of the box's size is tolerated, and duplicates are merged later. whole: size in pixels up to which an
    object at the border is whole in both tiles. The cut parts of a larger one would not be merged.
    """
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    near = np.where(sizes <= whole, sizes * _NEAR, 0)
    return np.asarray(((centres >= core[:2] - near) & (centres < core[2:] + near)).all(axis=1), dtype=np.bool_)


def _is_long(image: RGB, input_size: int) -> bool:
    """Whether an image would be scaled down too far as a whole."""
    shorter, longer = sorted(image.shape[:2])
    return bool(longer > max(_MOST_ASPECT * shorter, input_size))


def _around(image: RGB, box: Box, input_size: int) -> View:
    """A square around a box, clipped to the image. YOLO was trained on scenes and misses a person who fills the view.

    The square is at least as large as the network's input, because YOLO also misses people in enlarged, blurred views.
    """
    left, top, right, bottom = box
    side = max(max(right - left, bottom - top) * (1 + 2 * _MARGIN), input_size)
    x, y = (left + right) / 2, (top + bottom) / 2
    pixels, corner = crop(image, (x - side / 2, y - side / 2, x + side / 2, y + side / 2))
    return View(pixels, corner, EVERYWHERE)


def _surrounded(image: RGB, input_size: int) -> View:
    """A crop with a grey border. It is at least as large as the network's input, so it is never enlarged."""
    height, width = image.shape[:2]
    beside = math.ceil(max(width * _TIGHT_MARGIN, (input_size - width) / 2))
    above = math.ceil(max(height * _TIGHT_MARGIN, (input_size - height) / 2))
    grey = (LETTERBOX_GREY,) * 3
    pixels = cv2.copyMakeBorder(image, above, above, beside, beside, cv2.BORDER_CONSTANT, value=grey)
    return View(np.asarray(pixels, dtype=np.uint8), (-beside, -above), EVERYWHERE)


def _tiles(view: View) -> list[View]:
    """Overlapping tiles along a long view's longer side. Scaled down as a whole, its people would be too small."""
    image, (left, top) = view.pixels, view.corner
    height, width = image.shape[:2]
    across = width > height
    longer, shorter = max(width, height), min(width, height)
    length = shorter * _TILE_ASPECT
    count = min(MOST_TILES, math.ceil((longer - length) / (length * (1 - _TILE_OVERLAP))) + 1)
    # n tiles of length t that overlap by a share o cover t·(n - (n - 1)·o).
    length = math.ceil(max(length, longer / (count - (count - 1) * _TILE_OVERLAP)))
    starts = [round(index * (longer - length) / (count - 1)) for index in range(count)]
    # The border between two cores is the middle of the tiles' overlap.
    middles = [(start + length + after) / 2 for start, after in pairwise(starts)]
    borders = [-math.inf, *middles, math.inf]
    found = []
    for start, (low, high) in zip(starts, pairwise(borders), strict=True):
        pixels = image[:, start : start + length] if across else image[start : start + length]
        if across:
            found.append(View(pixels, (left + start, top), (left + low, -math.inf, left + high, math.inf)))
        else:
            found.append(View(pixels, (left, top + start), (-math.inf, top + low, math.inf, top + high)))
    return found
