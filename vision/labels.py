"""Finds places for labels in a picture: inside it, and never on one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vision.arrays import Box

Size = tuple[float, float]  # width, height in pixels
_Corner = tuple[float, float]  # upper left, in pixels


class Places:
    """The places of labels in one picture. All boxes are in its pixels."""

    def __init__(self, size: Size, keep_clear: Sequence[Box], cell: int) -> None:
        """size: of the picture. keep_clear: areas that a label covers only if it has no other place.

        cell: pixels between two places that are tried far from a box.
        """
        self._size = size
        self._cell = cell
        self._taken = _Areas(size, cell)
        self._avoided = _Areas(size, cell)  # the taken ones and the clear ones
        for box in keep_clear:
            self._avoided.add(box)

    def take(self, size: Size, box: Box) -> Box | None:
        """Take a place for the label of a box. Returns None if the picture has no room for it.

        size: of the label. It goes above, below, beside or into its box, else to the nearest free place.
        """
        for areas in (self._avoided, self._taken):
            corner = next((near for near in _near(size, box, self._size) if self._is_free(near, size, areas)), None)
            corner = areas.nearest_free(size, box) if corner is None else corner
            if corner is not None:
                place = _placed(corner, size)
                self._taken.add(place)
                self._avoided.add(place)
                return place
        return None

    def _is_free(self, corner: _Corner, size: Size, areas: _Areas) -> bool:
        left, top, right, bottom = _placed(corner, size)
        inside = left >= 0 and top >= 0 and right <= self._size[0] and bottom <= self._size[1]
        return inside and not areas.meet((left, top, right, bottom))


class _Areas:
    """Areas of a picture, as a list and as a mask of cells."""

    def __init__(self, size: Size, cell: int) -> None:
        self._cell = cell
        self._mask: NDArray[np.int32] = np.zeros((int(size[1] // cell), int(size[0] // cell)), np.int32)
        self._boxes: NDArray[np.float64] = np.empty((0, 4))

    def add(self, box: Box) -> None:
        left, top = (max(0, math.floor(value / self._cell)) for value in box[:2])
        right, bottom = (max(0, math.ceil(value / self._cell)) for value in box[2:])
        self._mask[top:bottom, left:right] = 1
        self._boxes = np.vstack([self._boxes, box])

    def meet(self, box: Box) -> bool:
        """Whether a box covers a part of an area."""
        starts, ends = self._boxes[:, :2], self._boxes[:, 2:]
        return bool(((starts < box[2:]) & (ends > box[:2])).all(axis=1).any())

    def nearest_free(self, size: Size, box: Box) -> _Corner | None:
        """Return the corner nearest to a box at which a label of this size covers no area; None if there is none."""
        wide, high = (math.ceil(value / self._cell) for value in size)
        rows, columns = self._mask.shape
        if high > rows or wide > columns:
            return None
        sums = np.pad(self._mask, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
        covered = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
        x, y = (np.arange(count) * self._cell for count in reversed(covered.shape))
        across = np.maximum(0, np.maximum(box[0] - x - size[0], x - box[2]))
        along = np.maximum(0, np.maximum(box[1] - y - size[1], y - box[3]))
        distances = np.where(covered == 0, across**2 + along[:, None] ** 2, np.inf)
        row, column = divmod(int(distances.argmin()), distances.shape[1])
        return (float(x[column]), float(y[row])) if np.isfinite(distances[row, column]) else None


def _placed(corner: _Corner, size: Size) -> Box:
    return corner[0], corner[1], corner[0] + size[0], corner[1] + size[1]


def _near(size: Size, box: Box, picture: Size) -> Iterator[_Corner]:
    """The places at a box, best first: above, below, beside, inside."""
    (width, height), (left, top, right, bottom) = size, box
    in_width = [min(max(0, x), max(0, picture[0] - width)) for x in (left, right - width)]
    in_height = min(max(0, top), max(0, picture[1] - height))
    yield from ((x, y) for y in (top - height, bottom) for x in in_width)
    yield from ((right, in_height), (left - width, in_height))
    yield from ((x, y) for y in (top, bottom - height) for x in (left, right - width))
