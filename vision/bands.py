"""Large pictures converted a few rows at a time: what a conversion keeps meanwhile stays small, and in the caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Rows = Callable[[slice], NDArray[Any]]  # of a picture: (rows, width) or (rows, width, channels)
T = TypeVar("T", bound=np.generic)

_PIXELS: Final = 2**18  # of a band: a megabyte of RGBA
_BYTES_OF_PIXEL: Final = 96  # of a band: what its conversion keeps, in doubles at worst
_TABLES: Final = 8 * 2**20  # of profiles and curves


def band_bytes(height: int, width: int) -> int:
    """The most memory that a picture's conversion in bands takes beside the picture."""
    return min(max(_PIXELS, width), height * width) * _BYTES_OF_PIXEL + _TABLES


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that cover a picture."""
    rows = max(1, _PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def in_bands(convert: Callable[[slice], NDArray[T]], height: int, width: int) -> NDArray[T]:
    """A (height, width, …) picture out of what `convert` makes of each slice of rows."""
    slices = bands(height, width)
    first = next(slices)
    part = convert(first)
    if len(part) == height:
        return part
    picture = np.empty((height, *part.shape[1:]), part.dtype)
    picture[first] = part
    for rows in slices:
        picture[rows] = convert(rows)
    return picture
