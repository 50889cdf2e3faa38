"""The image that a caller sent, and the part of it that the caller's box requests."""

from __future__ import annotations

from dataclasses import dataclass

from vision.arrays import RGB, Box
from vision.image import clamp
from vision.views import is_foreign, means_whole


@dataclass(frozen=True)
class Frame:
    """The geometry of a picture, which the answer needs after the pixels are freed.

    size: width, height of the upright image as sent. area: left, top, right, bottom of the requested part, in whole
    pixels of the image. box: as requested, None for the whole image.
    """

    size: tuple[int, int]
    area: tuple[int, int, int, int]
    box: Box | None


@dataclass(frozen=True)
class Picture:
    """The upright image as sent, and the requested part of it.

    part: a view into `whole`. is_crop: the box shows that the caller has already cut the image out of a larger frame.
    """

    whole: RGB
    part: RGB
    frame: Frame
    is_crop: bool

    @classmethod
    def of(cls, image: RGB, box: Box | None) -> Picture:
        """Make a picture of an image (h, w, 3) and a box. Raises vision.errors.BoxOutside."""
        height, width = image.shape[:2]
        area = part_of(box, width, height)
        if area is None:
            frame = Frame((width, height), (0, 0, width, height), None)
            return cls(image, image, frame, box is not None and is_foreign(box))
        left, top, right, bottom = area
        return cls(image, image[top:bottom, left:right], Frame((width, height), area, box), is_crop=False)


def part_of(box: Box | None, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the part of an image that a box requests, None for the whole. Raises vision.errors.BoxOutside."""
    return None if box is None or means_whole(box, width, height) else clamp(box, width, height)


def area_of(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Return what a box requests of an image, as Frame.area. Raises vision.errors.BoxOutside."""
    return part_of(box, width, height) or (0, 0, width, height)
