"""Turns a YOLO head's candidates into detections: threshold, non-maximum suppression (NMS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vision.arrays import F32

MAX_DETECTIONS: Final = 300  # ultralytics' default, max_det
# Boxes of different classes must not suppress each other, so each class gets its own offset. It exceeds any coordinate
# of the largest input, and float32 still resolves 1/100 px (ultralytics: max_wh).
_CLASS_OFFSET: Final = 7680.0


@dataclass(frozen=True)
class Detections:
    """n detections, best first.

    boxes (n, 4) float32 x1, y1, x2, y2 in pixels of the network's input; scores (n,) float32 0…1; classes (n,) int64;
    extras (n, k) float32, the head's outputs beside boxes and classes (keypoints).
    """

    boxes: F32
    scores: F32
    classes: NDArray[np.int64]
    extras: F32


def detect(predictions: F32, num_classes: int, min_confidence: float, iou_threshold: float) -> Detections:
    """Turn one image's decoded YOLO head output into detections.

    predictions: (4 + num_classes + k, candidates) float32: centre x, centre y, width, height, class scores, extras.
    A candidate's class is its best one; its score must exceed `min_confidence` (ultralytics' rule, multi_label off).
    """
    class_scores = predictions[4 : 4 + num_classes]
    scores = class_scores.max(axis=0)
    chosen = np.flatnonzero(scores > min_confidence)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    classes = class_scores[:, chosen].argmax(axis=0)
    centres, sizes = predictions[:2, chosen].T, predictions[2:4, chosen].T
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    kept = nms(boxes + (classes * np.float32(_CLASS_OFFSET)).astype(np.float32)[:, None], iou_threshold)
    picked = chosen[kept]
    return Detections(boxes[kept], scores[picked], classes[kept], predictions[4 + num_classes :, picked].T.copy())


def nms(boxes: F32, iou_threshold: float, max_detections: int = MAX_DETECTIONS) -> NDArray[np.intp]:
    """Indices of the boxes that survive greedy non-maximum suppression, in order; at most `max_detections`.

    boxes: (n, 4) float32 x1, y1, x2, y2, best first. A box is suppressed if its intersection over union (IoU) with a
    better surviving box exceeds `iou_threshold`. The loop runs once per survivor, not once per candidate.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    remaining = np.arange(len(boxes))
    kept: list[np.intp] = []
    while len(remaining) and len(kept) < max_detections:
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        overlap = intersection(boxes[best], boxes[remaining])
        union = areas[best] + areas[remaining] - overlap
        remaining = remaining[overlap <= iou_threshold * union]
    return np.array(kept, dtype=np.intp)


def distinct(boxes: F32, scores: F32, classes: NDArray[np.int64], iou_threshold: float) -> NDArray[np.intp]:
    """Merge the detections of overlapping tiles by NMS within each class. Returns the indices of survivors, best first.

    boxes (n, 4) x1, y1, x2, y2 in pixels of the image; scores (n,); classes (n,).
    """
    order = np.argsort(-scores, kind="stable")
    apart = classes.astype(np.float32) * (boxes.max(initial=0) + 1)
    return order[nms((boxes + apart[:, None])[order], iou_threshold, len(boxes))]


def intersection(box: F32, boxes: F32) -> F32:
    """Intersection areas (n,) of a box (4,) with boxes (n, 4), in pixels². All boxes: x1, y1, x2, y2 in pixels."""
    extent = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    area: F32 = np.clip(extent, 0, None).prod(axis=1)
    return area
