"""YOLOv8n-pose: people, their boxes and 17 COCO keypoints each."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np

from engines.batches import Outputs
from models.store import ModelCard
from runners.contract import Item, PoseResult
from runners.runner import Network, Runner, batchable, min_confidence
from settings import DetectorSettings, ModelSettings
from vision.boxes import detect
from vision.image import LETTERBOX_SIZES, RGB, Letterbox, letterbox

INPUT_SIZE: Final = 640  # ultralytics' default imgsz, what the public weights were trained at
STRIDE: Final = 32  # of the coarsest head
_PERSON: Final = "person"  # what COCO, and so the public weights, call the class
_KEYPOINT_SHAPE: Final = (17, 3)


def prepare(image: RGB) -> Letterbox:
    """An image of any size as the network's input."""
    return letterbox(image, INPUT_SIZE, STRIDE)


def interpret(outputs: Outputs, item: Item, card: ModelCard, settings: ModelSettings) -> PoseResult:
    """outputs: `predictions` (55 + classes, candidates) float32: box, scores and keypoints of each in input pixels.

    Of several classes those called "person" count; all do where the checkpoint has none of that name.
    """
    iou_threshold = cast(DetectorSettings, settings).iou_threshold
    found = detect(outputs[0], len(card.labels), min_confidence(item, settings), iou_threshold)
    persons = [index for index, label in enumerate(card.labels) if label.casefold() == _PERSON]
    counted = np.isin(found.classes, persons or range(len(card.labels)))
    return {
        "boxes": found.boxes[counted],
        "scores": found.scores[counted],
        "keypoints": found.extras[counted].reshape(-1, *_KEYPOINT_SHAPE),
    }


NETWORK: Final = Network("pose_estimator", interpret, lambda *_: LETTERBOX_SIZES, min_confidence)


class PoseEstimator(Runner):
    @batchable("pose_estimator")
    def pose_estimator(self, items: list[Any]) -> list[Any]:
        """items: runners.contract.Item, image (h, w, 3), h and w ≤ 640, multiples of 32 → PoseResult or Failure."""
        return self.infer("pose_estimator", items)
