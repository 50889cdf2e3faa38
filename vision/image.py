"""Crops and resizes RGB arrays for the networks' inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from vision.arrays import RGB, Box
from vision.errors import BoxOutside

LETTERBOX_GREY: Final = 114  # ultralytics/data/augment.py, LetterBox(padding_value=114)

# Pillow's filter → cykooz_resizer's.
_FILTERS: Final = {
    Image.Resampling.BILINEAR: FilterType.bilinear,
    Image.Resampling.BICUBIC: FilterType.catmull_rom,
}
_MUCH_LONGER: Final = 4  # longer : shorter side from which Pillow is faster, because it scales only the part needed


def crop(image: RGB, box: Box) -> tuple[RGB, tuple[int, int]]:
    """Cut `box` out of an image (h, w, 3). Returns a view of its pixels, and x, y of the view's top left corner.

    box: x1, y1, x2, y2 in pixels; it is clamped to the image and rounded outwards. Raises BoxOutside if the box and the
    image don't overlap.
    """
    left, top, right, bottom = clamp(box, image.shape[1], image.shape[0])
    return image[top:bottom, left:right], (left, top)


def clamp(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Return a box in whole pixels of an image: clamped to it, and rounded outwards. Raises BoxOutside as `crop`."""
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if left >= right or top >= bottom:
        raise BoxOutside(f"the box {list(box)} lies outside the image of {width}×{height} pixels")
    return left, top, right, bottom


# Height, width of letterboxed camera frames of 1:1 (the largest), 16:9, 4:3, 3:4, 9:16, for size 640 and stride 32.
LETTERBOX_SIZES: Final = ((640, 640), (384, 640), (480, 640), (640, 480), (640, 384))


@dataclass(frozen=True)
class Letterbox:
    """An image scaled into a network's input, with the inverse transform.

    image: (h, w, 3) uint8. A point (x, y) of the original lies at `(x, y) * scale + (left, top)`. The two scales differ
    slightly, because each side is rounded to whole pixels. left, top: padding in pixels.
    """

    image: RGB
    scale: tuple[float, float]
    left: int
    top: int

    def to_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map points (..., 2) x, y from pixels of the network's input to pixels of the original image."""
        corner = np.array([self.left, self.top], dtype=np.float32)
        scale: NDArray[np.float32] = np.array(self.scale, dtype=np.float32)
        return (points - corner) / scale


def letterbox(image: RGB, size: int, stride: int) -> Letterbox:
    """Scale so that the longer side is `size` and pad the shorter one with grey to a multiple of `stride`.

    size, stride: pixels. The arithmetic is that of ultralytics' LetterBox(auto=True) in its predictor, so boxes are the
    same to the pixel. A 16:9 frame has only 0.6 of the pixels of a padded square.
    """
    height, width = image.shape[:2]
    scale = min(size / height, size / width)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    spare_x, spare_y = ((size - inner_width) % stride) / 2, ((size - inner_height) % stride) / 2
    if (inner_width, inner_height) != (width, height):
        image = np.asarray(
            cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
        )
    left, right = round(spare_x - 0.1), round(spare_x + 0.1)
    top, bottom = round(spare_y - 0.1), round(spare_y + 0.1)
    if top or bottom or left or right:
        grey = (LETTERBOX_GREY,) * 3
        padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey)
        image = np.asarray(padded, dtype=np.uint8)
    return Letterbox(image, (inner_width / width, inner_height / height), left, top)


def resize(image: RGB, width: int, height: int, resample: Image.Resampling) -> RGB:
    """Resize to (height, width, 3) with an antialiasing filter, bilinear or bicubic: like Pillow, but faster.

    It resizes in width first, then in height, and rounds after each, as Pillow does. Few values differ, by 1 of 255.
    """
    # Always the whole image: cykooz_resizer 4.0.1 can crash the process with a fractional crop box.
    source = ImageData(image.shape[1], image.shape[0], PixelType.U8x3, image.tobytes())
    options = ResizeOptions(ResizeAlg.convolution(_FILTERS[resample]))
    for size in ((width, image.shape[0]), (width, height)):
        resized = ImageData(*size, PixelType.U8x3)
        Resizer().resize(source, resized, options)
        source = resized
    return np.frombuffer(source.get_buffer(), dtype=np.uint8).reshape(height, width, 3)


def resize_shortest_edge(image: RGB, edge: int, crop_size: int, resample: Image.Resampling) -> RGB:
    """Scale so that the shorter side is `edge` pixels, then cut out the central (crop_size, crop_size, 3) square.

    Of a very long image only the part in the square is scaled, so its cost does not grow with the length.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    scaled_width, scaled_height = int(edge * width / shorter), int(edge * height / shorter)
    left, top = (scaled_width - crop_size) // 2, (scaled_height - crop_size) // 2
    if resample in _FILTERS and max(height, width) <= _MUCH_LONGER * shorter:
        scaled = resize(image, scaled_width, scaled_height, resample)
        return scaled[top : top + crop_size, left : left + crop_size]
    per_x, per_y = width / scaled_width, height / scaled_height
    source = (left * per_x, top * per_y, (left + crop_size) * per_x, (top + crop_size) * per_y)
    return np.asarray(Image.fromarray(image).resize((crop_size, crop_size), resample, box=source))
