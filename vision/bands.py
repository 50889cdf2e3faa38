"""Converts large pictures a few rows at a time, so that intermediate arrays stay small and in the CPU's caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Rows = Callable[[slice], NDArray[Any]]  # slice of rows → (rows, width) or (rows, width, channels)
T = TypeVar("T", bound=np.generic)

_PIXELS: Final = 2**18  # per band: 1 MiB of RGBA
_BYTES_OF_PIXEL: Final = 96  # the intermediate arrays of a band, at worst in float64
_TABLES: Final = 8 * 2**20  # bytes, of profiles and curves


def band_bytes(height: int, width: int) -> int:
    """The most memory in bytes that a conversion in bands takes beside the picture. height, width: in pixels."""
    return min(max(_PIXELS, width), height * width) * _BYTES_OF_PIXEL + _TABLES


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that together cover a picture."""
    rows = max(1, _PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def in_bands(convert: Callable[[slice], NDArray[T]], height: int, width: int) -> NDArray[T]:
    """Convert a picture band by band. convert: slice of rows → (rows, width, …). Returns (height, width, …)."""
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
