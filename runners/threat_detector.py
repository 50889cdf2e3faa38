"""YOLOv8n threat detector: weapons, named as the checkpoint names them."""

from __future__ import annotations

from typing import Any, Final, cast

from engines.batches import Outputs
from models.store import ModelCard
from runners.contract import Item, ThreatResult
from runners.runner import Network, Runner, batchable, min_confidence
from settings import DetectorSettings, ModelSettings
from vision.boxes import detect
from vision.image import LETTERBOX_SIZES, RGB, Letterbox, letterbox

INPUT_SIZE: Final = 640  # ultralytics' default imgsz
STRIDE: Final = 32


def prepare(image: RGB) -> Letterbox:
    """An image of any size as the network's input."""
    return letterbox(image, INPUT_SIZE, STRIDE)


def interpret(outputs: Outputs, item: Item, card: ModelCard, settings: ModelSettings) -> ThreatResult:
    """outputs: `predictions` (4 + classes, candidates) float32, box and class scores of each in input pixels."""
    iou_threshold = cast(DetectorSettings, settings).iou_threshold
    found = detect(outputs[0], len(card.labels), min_confidence(item, settings), iou_threshold)
    return {
        "boxes": found.boxes,
        "scores": found.scores,
        "labels": [card.labels[index] for index in found.classes],
    }


NETWORK: Final = Network("threat_detector", interpret, lambda *_: LETTERBOX_SIZES, min_confidence)


class ThreatDetector(Runner):
    @batchable("threat_detector")
    def threat_detector(self, items: list[Any]) -> list[Any]:
        """items: runners.contract.Item, image (h, w, 3) with h, w ≤ 640, multiples of 32 → ThreatResult or Failure."""
        return self.infer("threat_detector", items)
