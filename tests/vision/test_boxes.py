from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vision.boxes import MAX_DETECTIONS, detect, intersection, nms

F32 = NDArray[np.float32]


def boxes_of(rng: np.random.Generator, count: int) -> F32:
    """Random boxes, many of which overlap."""
    corner = rng.uniform(0, 40, size=(count, 2))
    return np.hstack([corner, corner + rng.uniform(20, 60, size=(count, 2))]).astype(np.float32)


def iou(one: F32, other: F32) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, float(width)) * max(0.0, float(height))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    return common / (sum(areas) - common)


def slow_nms(boxes: F32, threshold: float) -> list[int]:
    kept: list[int] = []
    for index, box in enumerate(boxes):
        if all(iou(box, boxes[better]) <= threshold for better in kept):
            kept.append(index)
    return kept


def head(boxes: F32, scores: F32, extras: F32 | None = None) -> F32:
    """A YOLO head's output of these x1 y1 x2 y2 boxes (n, 4), class scores (n, classes) and extras (n, k)."""
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    parts = [centres, sizes, scores] + ([] if extras is None else [extras])
    return np.hstack(parts).astype(np.float32).T


@pytest.mark.parametrize("threshold", [0.1, 0.45, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_nms_keeps_what_the_definition_keeps(seed: int, threshold: float) -> None:
    boxes = boxes_of(np.random.default_rng(seed), 80)
    kept = nms(boxes, threshold).tolist()
    assert kept == slow_nms(boxes, threshold)
    assert 1 < len(kept) < 80  # else the boxes show nothing


def test_nms_stops_at_the_largest_number_of_detections() -> None:
    apart = np.array([[10 * i, 0, 10 * i + 5, 5] for i in range(20)], np.float32)
    assert nms(apart, 0.5, max_detections=7).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert len(nms(np.tile(apart, (40, 1)) + np.repeat(np.arange(40), 20)[:, None] * 1000, 0.5)) == MAX_DETECTIONS


def test_nms_of_nothing_is_nothing() -> None:
    assert nms(np.zeros((0, 4), np.float32), 0.5).tolist() == []


def test_boxes_without_an_area_do_not_fall_over_each_other() -> None:
    points = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [3, 3, 3, 9]], np.float32)
    assert nms(points, 0.5).tolist() == [0, 1, 2]


def test_intersection_is_the_common_area() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    others = np.array([[5, 5, 15, 15], [10, 0, 20, 10], [30, 30, 40, 40], [2, 3, 4, 7]], np.float32)
    assert intersection(box, others).tolist() == [25, 0, 0, 8]


@pytest.mark.parametrize("seed", range(3))
def test_detections_of_different_classes_do_not_suppress_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = boxes_of(rng, 60), rng.uniform(0, 1, size=(60, 3)).astype(np.float32)
    found = detect(head(boxes, scores), 3, 0.3, 0.4)
    expected = set()
    for label in range(3):
        own = [i for i in np.argsort(-scores.max(axis=1)) if scores[i].argmax() == label and scores[i].max() > 0.3]
        expected |= {(label, own[kept]) for kept in slow_nms(boxes[own], 0.4)}
    sources = [int(np.abs(boxes - box).sum(axis=1).argmin()) for box in found.boxes]
    assert set(zip(found.classes.tolist(), sources, strict=True)) == expected
    np.testing.assert_allclose(found.boxes, boxes[sources], atol=1e-4)
    assert found.scores.tolist() == scores.max(axis=1)[sources].tolist()


def test_detections_come_best_first_with_their_extras() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [0, 50, 10, 60]], np.float32)
    scores = np.array([[0.4], [0.9], [0.6]], np.float32)
    extras = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    found = detect(head(boxes, scores, extras), 1, 0.25, 0.7)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.4])
    assert found.extras.tolist() == [[3, 4], [5, 6], [1, 2]]
    assert found.boxes.tolist() == [[50, 50, 60, 60], [0, 50, 10, 60], [0, 0, 10, 10]]
    assert found.boxes.dtype == found.scores.dtype == found.extras.dtype == np.float32


def test_a_score_must_exceed_the_threshold() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    found = detect(head(boxes, np.array([[0.5], [0.75]], np.float32)), 1, 0.5, 0.7)
    assert found.scores.tolist() == [0.75]


def test_nothing_found_keeps_its_shapes() -> None:
    found = detect(
        head(np.zeros((5, 4), np.float32), np.zeros((5, 1), np.float32), np.zeros((5, 51), np.float32)), 1, 0.25, 0.7
    )
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.classes.shape == (0,)
    assert found.extras.shape == (0, 51)
