"""Pillow as a decoder of bytes whose headers were checked: its images as arrays, its errors as ours."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.bands import Rows, in_bands
from vision.errors import DamagedImage

# Judged from the header, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

# What Pillow's decoders raise on damaged files: none of them has an error class of its own for all of it.
_DAMAGED: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


def samples(data: bytes, form: str, mode: str | None = None) -> NDArray[Any]:
    """Decode a file of one format (Pillow's name) into an array, in a mode of Pillow or in its own.

    Raises DamagedImage.
    """
    image = decoded(data, form)
    return in_bands(rows_of(image, mode), image.height, image.width)


def decoded(data: bytes, form: str) -> Image.Image:
    """Decode a file of one format. Raises DamagedImage."""
    try:
        image = Image.open(io.BytesIO(data), formats=(form,))
        image.load()
    except _DAMAGED:
        raise DamagedImage(f"the {form} image is damaged or truncated") from None
    return image


def rows_of(image: Image.Image, mode: str | None = None) -> Rows:
    """A decoded image a few rows at a time: the array of a whole one takes its memory twice over."""

    def rows(part: slice) -> NDArray[Any]:
        band = image.crop((0, part.start, image.width, part.stop))
        return np.asarray(band if mode in (None, image.mode) else band.convert(mode))

    return rows
