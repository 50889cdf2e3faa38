"""Decodes files with Pillow after their headers were checked, and translates Pillow's errors to DamagedImage."""

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

# vision.decoding.opening checks the size before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

# The errors of Pillow's decoders on damaged files. Pillow has no common class for them.
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
    """Decode a file to an array (h, w) or (h, w, channels).

    form: Pillow's name of the format. mode: Pillow's mode; None = the image's own. Raises DamagedImage.
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
    """Access a decoded image a few rows at a time. An array of the whole image would double its memory."""

    def rows(part: slice) -> NDArray[Any]:
        band = image.crop((0, part.start, image.width, part.stop))
        return np.asarray(band if mode in (None, image.mode) else band.convert(mode))

    return rows
