"""Boxes as answers give them."""

from __future__ import annotations

from pydantic import BaseModel

from vision.arrays import F32, Box


class BoundingBox(BaseModel):
    """Upper left corner and size in pixels of the image as sent, EXIF-upright."""

    x: float
    y: float
    width: float
    height: float


def corners(box: BoundingBox) -> Box:
    """Return x1, y1, x2, y2 of a response's box."""
    return box.x, box.y, box.x + box.width, box.y + box.height


def bounding_box(box: F32) -> BoundingBox:
    """Return a box (4,) x1, y1, x2, y2 in pixels as a response gives it."""
    left, top, right, bottom = box.tolist()
    return BoundingBox(x=pixels(left), y=pixels(top), width=pixels(right - left), height=pixels(bottom - top))


def pixels(value: float) -> float:
    """Round a coordinate in pixels for a response."""
    return round(value, 2)
