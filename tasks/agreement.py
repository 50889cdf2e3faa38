"""Compares a model's answers on two engines or precisions, as figures with bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.card import Loss
from vision.arrays import F32
from vision.boxes import intersection

# Per-keypoint spread of human annotators, COCO's own evaluation (cocoapi, cocoeval.py, kpt_oks_sigmas).
_FACE, _ARMS, _LEGS = [0.026, 0.025, 0.025, 0.035, 0.035], [0.079, 0.079, 0.072, 0.072, 0.062, 0.062], [0.107, 0.107]
_SIGMAS: Final = np.array([*_FACE, *_ARMS, *_LEGS, 0.087, 0.087, 0.089, 0.089])
_VISIBLE: Final = 0.5
SAME_OBJECT: Final = 0.5  # least intersection over union of two boxes of one object


@dataclass(frozen=True)
class Figure:
    """One figure of a comparison, and the bounds that it must keep."""

    value: float
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def is_within(self) -> bool:
        return self.at_least <= self.value <= self.at_most


def loss(pictures: int, figures: Mapping[str, Figure]) -> Loss:
    """Return a comparison over `pictures` images, for a model card and for tables."""
    broken = tuple(name for name, figure in figures.items() if not figure.is_within)
    return Loss(pictures, {name: figure.value for name, figure in figures.items()}, broken)


def oks(reference: F32, other: F32, area: float) -> float:
    """Return the object keypoint similarity, 0…1, of two (17, 3) arrays of keypoints: x, y, confidence.

    Only keypoints that are visible in the reference count. area: of the person's box, in pixels².
    """
    seen = reference[:, 2] >= _VISIBLE
    if not seen.any():
        return 1.0
    squared = ((reference[:, :2] - other[:, :2]) ** 2).sum(axis=1)
    return float(np.exp(-squared / (2 * area * (2 * _SIGMAS) ** 2))[seen].mean())


def iou(box: F32, boxes: F32) -> F32:
    """Return the intersection over union (n,) of a box (4,) with boxes (n, 4), x1 y1 x2 y2."""
    common = intersection(box, boxes)
    area, areas = (box[2] - box[0]) * (box[3] - box[1]), (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    overlap: F32 = common / (area + areas - common)
    return overlap
