"""Measures the distance of the object in a box, from the relative depth of its scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np

from vision.arrays import F32

Method = Literal["center", "mean", "median", "min"]
Proximity = Literal["very close", "close", "moderate distance", "far", "very far"]
Nearness = Literal["near", "middle", "far"]

METHODS: Final[tuple[Method, ...]] = get_args(Method)
# Upper limits of relative depth. It has no unit, so the labels are parts of the scene's own range: thirds for /enrich,
# and those that callers of /object-distance know from the server before.
_NEARNESSES: Final[tuple[tuple[float, Nearness], ...]] = ((1 / 3, "near"), (2 / 3, "middle"))
_PROXIMITIES: Final[tuple[tuple[float, Proximity], ...]] = (
    (0.15, "very close"),
    (0.35, "close"),
    (0.55, "moderate distance"),
    (0.75, "far"),
)


def _centre(region: F32) -> float:
    return float(region[region.shape[0] // 2, region.shape[1] // 2])


_MEASURES: Final[Mapping[Method, Callable[[F32], float]]] = MappingProxyType(
    {
        "center": _centre,
        "mean": lambda region: float(region.mean(dtype=np.float64)),
        "median": lambda region: float(np.median(region)),
        "min": lambda region: float(region.max()),  # the least distance has the largest nearness
    }
)


@dataclass(frozen=True)
class Calibration:
    """The distances of the scene's nearest and farthest point in metres; near_m < far_m."""

    near_m: float
    far_m: float

    def metres(self, relative_depth: float) -> float:
        """Return the distance in metres at a relative depth. The network's output is linear in 1 / distance."""
        return 1 / ((1 - relative_depth) / self.near_m + relative_depth / self.far_m)


@dataclass(frozen=True)
class DistanceOptions:
    """The options of /object-distance."""

    method: Method
    calibration: Calibration | None


@dataclass(frozen=True)
class Distance:
    """relative_depth: 0 at the scene's nearest point, 1 at its farthest. metres: None without a calibration."""

    relative_depth: float
    metres: float | None

    @property
    def proximity(self) -> Proximity:
        """The label of /object-distance."""
        return next((label for limit, label in _PROXIMITIES if self.relative_depth < limit), "very far")

    @property
    def nearness(self) -> Nearness:
        """The label of /enrich."""
        return next((label for limit, label in _NEARNESSES if self.relative_depth <= limit), "far")


def measure(nearness: F32, options: DistanceOptions) -> Distance:
    """Measure the distance of the object in a region of a depth map.

    nearness: (h, w) float32, normalised over the scene, 1 is near and 0 far (vision.depth_map).
    """
    relative = 1 - _MEASURES[options.method](nearness)
    calibration = options.calibration
    return Distance(relative, None if calibration is None else calibration.metres(relative))
