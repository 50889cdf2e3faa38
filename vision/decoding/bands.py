"""Large pictures converted a few rows at a time: what a conversion keeps meanwhile stays small, and in the caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from vision.image import RGB

_PIXELS: Final = 2**18  # of a band: a megabyte of RGBA


def in_bands(convert: Callable[[slice], RGB], height: int, width: int) -> RGB:
    """A (height, width, 3) picture out of what `convert` makes of each slice of rows."""
    rows = max(1, _PIXELS // width)
    if rows >= height:
        return convert(slice(0, height))
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        picture[top : top + rows] = convert(slice(top, top + rows))
    return picture
