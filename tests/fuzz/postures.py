"""Keypoints of people as no body has them: is each posture a known one, with a sound confidence and reason?"""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.pose_estimator import Person, _person
from tests.fuzz.findings import Finding
from vision.posture import KEYPOINT_NAMES, Posture

_SCALES: Final = (1e-30, 1e-6, 0.01, 1.0, 200.0, 65_535.0, 1e18, 3e38)
_POINTS: Final = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, 100.0, 65_535.0])
_CONFIDENCES: Final = st.floats(width=32) | st.sampled_from([0.0, 0.5, float(np.nextafter(np.float32(0.5), 0)), 1.0])
_CHANGES: Final = st.lists(
    st.tuples(st.integers(0, len(KEYPOINT_NAMES) - 1), st.tuples(_POINTS, _POINTS, _CONFIDENCES)), max_size=4
)
_BASES: Final = st.tuples(
    st.integers(0, 2**32 - 1), st.sampled_from(_SCALES), st.sampled_from(["spread", "line", "one"])
)


def _keypoints(base: tuple[int, float, str], changes: list[tuple[int, Any]]) -> NDArray[np.float32]:
    number, scale, form = base
    dice = np.random.default_rng(number)
    found = dice.random((len(KEYPOINT_NAMES), 3))
    if form == "line":
        found[:, 1] = found[:, 0]
    if form == "one":
        found[:, :2] = found[0, :2]
    found[:, :2] *= scale
    found[:, 2] = np.sqrt(found[:, 2])
    for joint, values in changes:
        found[joint] = values
    return found.astype(np.float32)


#: (17, 3) float32: x, y, confidence.
keypoints: Final[st.SearchStrategy[NDArray[np.float32]]] = st.builds(_keypoints, _BASES, _CHANGES)


def check(person: NDArray[np.float32]) -> str:
    """Return the posture. Raises Finding unless the answer is a known posture, bounded and JSON."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found: Person = _person(np.array([0, 0, 9, 9], np.float32), 0.9, person, 0.5)
    except Exception as error:
        raise Finding(f"{type(error).__name__} came out: {error}") from error
    if found.posture not in {str(each) for each in Posture} or not 0 < len(found.posture_reason) < 1000:
        raise Finding(f"the posture {found.posture!r} because of {found.posture_reason!r}")
    for detail in found.alert_details:
        if not 0 <= detail.confidence <= 1 or "nan" in detail.reason:
            raise Finding(f"the alert {detail}")
    if np.isfinite(person).all():
        json.loads(found.model_dump_json(), parse_constant=_refuse)
    return found.posture


def _refuse(name: str) -> None:
    raise Finding(f"{name} stands in the answer")
