"""Reads EXIF's orientation and turns pictures upright. Orientation in XMP and the like is ignored."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from vision.arrays import RGB
from vision.decoding.directory import Directory
from vision.errors import DamagedImage

ORIENTATION: Final = 0x0112  # the tag of EXIF and TIFF
UPRIGHT: Final = 1

_PREFIX: Final = b"Exif\0\0"  # in JPEG; some writers also put it into PNG and WebP


def orientation_of(exif: bytes | None) -> int:
    """EXIF's orientation, 1…8; 1 (upright) if EXIF is missing or damaged, as in viewers."""
    if exif is None:
        return UPRIGHT
    try:
        return Directory(exif.removeprefix(_PREFIX)).integer(ORIENTATION, UPRIGHT)
    except DamagedImage:
        return UPRIGHT


def turn(pixels: RGB, orientation: int) -> RGB:
    """Turn a picture (h, w, 3) upright. Values that EXIF does not define change nothing."""
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.transpose(pixels)
            for axis in (0, 1):
                cv2.flip(turned, axis, dst=turned)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            turned = pixels
    return np.ascontiguousarray(turned, dtype=np.uint8)
