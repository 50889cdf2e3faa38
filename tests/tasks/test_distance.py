"""From a region of a depth map to a distance."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.distance import METHODS, Calibration, DistanceOptions, Method, measure

# Nearness of an object that fills the middle of its box, before a background.
REGION = np.array([[0.1, 0.1, 0.1, 0.1], [0.1, 1.0, 0.7, 0.1], [0.1, 0.8, 0.8, 0.1]], np.float32)


@pytest.mark.parametrize(
    ("method", "relative", "label"),
    [
        ("center", 0.3, "close"),
        ("mean", 1 - 4.1 / 12, "far"),
        ("median", 0.9, "very far"),
        ("min", 0.0, "very close"),
    ],
)
def test_the_ways_to_measure_a_region(method: Method, relative: float, label: str) -> None:
    found = measure(REGION, DistanceOptions(method, None))
    assert found.relative_depth == pytest.approx(relative, abs=1e-6)
    assert (found.proximity, found.metres) == (label, None)


@pytest.mark.parametrize(
    ("nearness", "label"),
    [(1.0, "near"), (0.67, "near"), (0.66, "middle"), (0.34, "middle"), (0.33, "far"), (0, "far")],
)
def test_the_labels_are_thirds_of_the_scenes_range(nearness: float, label: str) -> None:
    assert measure(np.full((2, 2), nearness, np.float32), DistanceOptions("mean", None)).nearness == label


@pytest.mark.parametrize(
    ("relative", "label"),
    [
        (0, "very close"),
        (0.16, "close"),
        (0.36, "moderate distance"),
        (0.56, "far"),
        (0.76, "very far"),
        (1, "very far"),
    ],
)
def test_callers_of_object_distance_read_the_labels_that_they_know(relative: float, label: str) -> None:
    assert measure(np.full((2, 2), 1 - relative, np.float32), DistanceOptions("mean", None)).proximity == label


@pytest.mark.parametrize(("nearness", "metres"), [(1.0, 2.0), (0.0, 10.0), (0.5, 1 / 0.3)])
@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_gives_metres(method: Method, nearness: float, metres: float) -> None:
    options = DistanceOptions(method, Calibration(near_m=2, far_m=10))
    assert measure(np.full((3, 3), nearness, np.float32), options).metres == pytest.approx(metres)
