"""The 17 joints of COCO, and the geometry of points in the plane."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

# fmt: off
# COCO-17 order (cocodataset.org, the person category's "keypoints"), the output order of YOLOv8-pose.
KEYPOINT_NAMES: Final[tuple[str, ...]] = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)
# fmt: on
FACE, SHOULDERS, ELBOWS, WRISTS = (0, 1, 2, 3, 4), (5, 6), (7, 8), (9, 10)
HIPS, KNEES, ANKLES = (11, 12), (13, 14), (15, 16)

# A point or a vector: x to the right, y up. An unseen joint is NaN, so that every comparison with it is false. Python's
# complex numbers, because numpy is slow on single values.
Vector = complex
UNSEEN: Final = complex(math.nan, math.nan)


def visible_points(keypoints: NDArray[np.float32], min_confidence: float) -> tuple[list[Vector], list[float]]:
    """Return points and confidences of the 17 joints. See `assess` for which count; ValueError for another shape."""
    values = np.asarray(keypoints, dtype=np.float64)
    if values.shape != (len(KEYPOINT_NAMES), 3):
        raise ValueError(f"keypoints must have shape (17, 3): x, y, confidence; got {values.shape}")
    joints = values.tolist()
    points = [
        complex(x, -y)
        if math.isfinite(x + y + confidence) and confidence >= min_confidence and confidence > 0
        else UNSEEN
        for x, y, confidence in joints
    ]
    return points, [confidence for _, _, confidence in joints]


def seen(point: Vector) -> bool:
    return not math.isnan(point.real)


def mean(vectors: Sequence[Vector]) -> Vector:
    return sum(vectors) / len(vectors)


def angle(a: Vector, b: Vector) -> float:
    """Degrees between two vectors, 0 to 180."""
    turn = b * a.conjugate()
    return math.degrees(math.atan2(abs(turn.imag), turn.real))


def tilt(vector: Vector) -> float:
    """Degrees to the vertical: 0 points up, 180 down."""
    return angle(vector, 1j)


def across(points: Sequence[Vector], pair: tuple[int, int]) -> float:
    """How far apart two joints are across the image."""
    return abs(points[pair[0]].real - points[pair[1]].real)


def heights(points: Sequence[Vector], joints: Iterable[int]) -> list[float]:
    """The heights of the seen joints."""
    return [points[joint].imag for joint in joints if seen(points[joint])]


def elbow(points: Sequence[Vector], side: int) -> float:
    """Degrees between upper arm and forearm; 180 is straight."""
    joint = points[ELBOWS[side]]
    return angle(points[SHOULDERS[side]] - joint, points[WRISTS[side]] - joint)


def elbows(points: Sequence[Vector]) -> list[float]:
    """`elbow` of the seen arms."""
    return [bent for side in (0, 1) if math.isfinite(bent := elbow(points, side))]


def head_height(points: Sequence[Vector], torso: float) -> float:
    """The median of eyes, ears and nose; without a face, slightly above the expected eyes."""
    face = heights(points, FACE)
    return median(face) if face else shoulder_height(points) + 0.5 * torso


def shoulder_height(points: Sequence[Vector]) -> float:
    return max(heights(points, SHOULDERS), default=math.nan)
