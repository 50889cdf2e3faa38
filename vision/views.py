"""Where a detector looks: which parts of an image become its inputs, and which of its detections count."""

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
SAME_SIZE_PX: Final = 2.0  # a box as large as the image to within this many pixels means the whole image
_MARGIN: Final = 0.75  # scene on each side of a box, as a share of the box's longer side
_TIGHT_MARGIN: Final = 0.25  # grey on each side of a picture that is itself a crop, as a share of each side
_UPRIGHT: Final = 1.5  # height : width from which a picture smaller than the network's input is taken for a crop
_MOST_ASPECT: Final = 4.0  # longer : shorter side up to which an image is looked at whole
_TILE_ASPECT: Final = 16 / 9
_TILE_OVERLAP: Final = 0.25
EVERYWHERE: Final[Box] = (-math.inf, -math.inf, math.inf, math.inf)
MOST_TILES: Final = 12  # a 16000×1080 panorama takes 11; of a longer one the tiles grow


@dataclass(frozen=True)
class View:
    """A part of an image that a detector looks at.

    pixels: (h, w, 3). corner: x, y of its left upper corner in the image's pixels; negative where grey surrounds the
    image. core: x1, y1, x2, y2 in the image's pixels: a detection counts in the view that has its centre there.
    """

    pixels: RGB
    corner: tuple[int, int]
    core: Box


def means_whole(box: Box, width: int, height: int) -> bool:
    """Whether a box stands for the whole image: its size is the image's, wherever it lies.

    Callers crop a person out of a frame and send the crop with the box that it had in the frame. No box inside the
    image can have that size and mean anything else.
    """
    left, top, right, bottom = box
    return abs(right - left - width) <= SAME_SIZE_PX and abs(bottom - top - height) <= SAME_SIZE_PX


def is_foreign(box: Box) -> bool:
    """Whether a box that means the whole image lies elsewhere: then the image is a crop out of a larger frame."""
    return max(abs(box[0]), abs(box[1])) > SAME_SIZE_PX


def views(image: RGB, box: Box | None, *, is_crop: bool, input_size: int) -> list[View]:
    """The views of an image, one for most.

    box: the part that was asked for, in pixels, with at least one pixel in the image; None is the whole image.
    is_crop: the whole image is known to be a crop. input_size: side of the network's largest input, in pixels.
    """
    height, width = image.shape[:2]
    if box is not None:
        return [_around(image, box, input_size)]
    if is_crop or (height >= _UPRIGHT * width and height < input_size):
        return [_surrounded(image, input_size)]
    if max(width, height) > max(_MOST_ASPECT * min(width, height), input_size):
        return _tiles(image)
    return [View(image, (0, 0), EVERYWHERE)]


def share_inside(boxes: F32, area: Box) -> F32:
    """Which share (n,) of each of boxes (n, 4) lies inside an area; both x1, y1, x2, y2 in pixels."""
    low = np.maximum(boxes[:, :2], np.array(area[:2], np.float32))
    high = np.minimum(boxes[:, 2:], np.array(area[2:], np.float32))
    common = np.clip(high - low, 0, None).prod(axis=1)
    share: F32 = common / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    return share


def has_centre(boxes: F32, core: Box) -> NDArray[np.bool_]:
    """Which (n,) of boxes (n, 4) have their centre in a view's core."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.asarray(((centres >= core[:2]) & (centres < core[2:])).all(axis=1), dtype=np.bool_)


def _around(image: RGB, box: Box, input_size: int) -> View:
    """A square around a box, cut off at the image's edges: YOLO was trained on scenes, and loses who fills the view.

    The square is at least as large as the network's input: enlarging a person blurs and loses them, too.
    """
    left, top, right, bottom = box
    side = max(max(right - left, bottom - top) * (1 + 2 * _MARGIN), input_size)
    x, y = (left + right) / 2, (top + bottom) / 2
    pixels, corner = crop(image, (x - side / 2, y - side / 2, x + side / 2, y + side / 2))
    return View(pixels, corner, EVERYWHERE)


def _surrounded(image: RGB, input_size: int) -> View:
    """A crop in the middle of grey, as large as the network's input or larger, so that it is not enlarged."""
    height, width = image.shape[:2]
    beside = math.ceil(max(width * _TIGHT_MARGIN, (input_size - width) / 2))
    above = math.ceil(max(height * _TIGHT_MARGIN, (input_size - height) / 2))
    grey = (LETTERBOX_GREY,) * 3
    pixels = cv2.copyMakeBorder(image, above, above, beside, beside, cv2.BORDER_CONSTANT, value=grey)
    return View(np.asarray(pixels, dtype=np.uint8), (-beside, -above), EVERYWHERE)


def _tiles(image: RGB) -> list[View]:
    """A panorama in overlapping tiles along its longer side; scaled down as a whole, its people would vanish."""
    height, width = image.shape[:2]
    across = width > height
    longer, shorter = max(width, height), min(width, height)
    length = shorter * _TILE_ASPECT
    count = min(MOST_TILES, math.ceil((longer - length) / (length * (1 - _TILE_OVERLAP))) + 1)
    # n tiles of length t that overlap by a share o cover t·(n - (n - 1)·o).
    length = math.ceil(max(length, longer / (count - (count - 1) * _TILE_OVERLAP)))
    starts = [round(index * (longer - length) / (count - 1)) for index in range(count)]
    # Between two tiles the border is the middle of what both see.
    middles = [(start + length + after) / 2 for start, after in pairwise(starts)]
    borders = [-math.inf, *middles, math.inf]
    found = []
    for start, (low, high) in zip(starts, pairwise(borders), strict=True):
        pixels = image[:, start : start + length] if across else image[start : start + length]
        core = (low, -math.inf, high, math.inf) if across else (-math.inf, low, math.inf, high)
        found.append(View(pixels, (start, 0) if across else (0, start), core))
    return found
