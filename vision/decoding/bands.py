"""Large pictures converted a few rows at a time: what a conversion keeps meanwhile stays small, and in the caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from vision.image import RGB

_PIXELS: Final = 2**18  # of a band: a megabyte of RGBA


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows, of a few at a time, that make up a picture."""
    rows = max(1, _PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def in_bands(convert: Callable[[slice], RGB], height: int, width: int) -> RGB:
    """A (height, width, 3) picture out of what `convert` makes of each slice of rows."""
    first, *others = bands(height, width)
    if not others:
        return convert(first)
    picture = np.empty((height, width, 3), np.uint8)
    for rows in (first, *others):
        picture[rows] = convert(rows)
    return picture
