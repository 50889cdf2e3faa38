"""Decodes image files to upright sRGB arrays. Each format has a module; `open_image` chooses among them."""

from __future__ import annotations

from vision.decoding.opening import FORMATS, MAX_SIDE, OWN_FILES, Limits, open_image
from vision.decoding.picture_file import PictureFile
from vision.errors import BoxOutside, DamagedImage, ImageError, ImageTooLarge, UnsupportedFormat

__all__ = [
    "FORMATS",
    "MAX_SIDE",
    "OWN_FILES",
    "BoxOutside",
    "DamagedImage",
    "ImageError",
    "ImageTooLarge",
    "Limits",
    "PictureFile",
    "UnsupportedFormat",
    "open_image",
]
