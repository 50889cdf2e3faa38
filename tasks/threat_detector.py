"""The task of the YOLOv8n threat detector: weapons, under the checkpoint's own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from engines.batches import Outputs
from models.card import ModelCard
from models.catalogue import ModelName
from tasks.agreement import Figure, iou
from tasks.bounding_box import BoundingBox, bounding_box, corners, pixels
from tasks.detection import Detector, Look
from tasks.task import Answer, Item, Label, Prepared, Result
from vision.arrays import F32, Box
from vision.boxes import detect, distinct
from vision.canvas import Canvas
from vision.colours import ORANGE, VERMILION, YELLOW, Colour

Severity = Literal["critical", "high", "medium"]
# Parts of the names in public weapon detectors, worst first. Any other threat is `medium`.
_SEVERITIES: Final[tuple[tuple[Severity, tuple[str, ...]], ...]] = (
    ("critical", ("gun", "pistol", "rifle", "revolver", "firearm", "weapon", "grenade", "explosi", "bomb", "launcher")),
    ("high", ("knife", "knives", "blade", "machete", "sword", "dagger", "axe")),
)
_COLOURS: Final[Mapping[Severity, Colour]] = MappingProxyType({"critical": VERMILION, "high": ORANGE, "medium": YELLOW})
_AUDITED: Final = 20  # a call with 64 boxes and min_confidence 0 could write 0.8 MB into the log
_Found = tuple[str, float, F32]  # label, score, box (4,) in the image's pixels


def severity(label: str) -> Severity:
    """Return the severity of a threat, judged by the checkpoint's name for it."""
    name = label.casefold()
    return next((level for level, parts in _SEVERITIES if any(part in name for part in parts)), "medium")


class ThreatResult(Result):
    """n detections, best first, in pixels of the network's input.

    boxes: (n, 4) float32, x1 y1 x2 y2. scores: (n,) float32. labels: the checkpoint's names.
    """

    boxes: F32
    scores: F32
    labels: list[str]


class Threat(BaseModel):
    """A weapon. Its name has three keys, because callers read different ones. bbox_xyxy: x1, y1, x2, y2."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    label: str = Field(alias="class", description="the checkpoint's name for it")
    class_name: str
    type: str
    confidence: float
    bbox: BoundingBox
    bbox_xyxy: list[float]
    severity: Severity


class ThreatResponse(Answer):
    """All threats, the most confident first. max_confidence: 0 without threats."""

    threats_detected: list[Threat]
    is_threat: bool
    max_confidence: float

    @property
    def labels(self) -> Sequence[Label]:
        """See Answer.labels."""
        return [Label(threat.label, threat.confidence, corners(threat.bbox)) for threat in self.threats_detected]


class ThreatDetector(Detector[ThreatResult, ThreatResponse]):
    """See Task. `prepare` is Detector's."""

    name: ClassVar[ModelName] = "threat_detector"
    response: ClassVar[type[BaseModel]] = ThreatResponse
    option_names: ClassVar[tuple[str, ...]] = ("min_confidence", "on")
    least_share: ClassVar[float] = 0.25  # the box may hold little more than the hand with the weapon
    draws: ClassVar[bool] = True

    # Runs beside the engine.

    def interpret(self, outputs: Outputs, item: Item, card: ModelCard) -> ThreatResult:
        """See Task.interpret.

        outputs: `predictions` (4 + classes, candidates) float32: box in input pixels and class scores.
        """
        found = detect(outputs[0], len(card.labels), self.min_confidence(item), self.settings.iou_threshold)
        return {
            "boxes": found.boxes,
            "scores": found.scores,
            "labels": [card.labels[index] for index in found.classes],
        }

    # Runs in the API process.

    def answer(self, results: Sequence[ThreatResult], prepared: Prepared[Sequence[Look]]) -> ThreatResponse:
        """See Task.answer."""
        looks = prepared.view
        found = [
            detection for result, look in zip(results, looks, strict=True) for detection in self._in_image(result, look)
        ]
        if len(looks) > 1:
            found = _joined(found, self.settings.iou_threshold)
        threats = [_threat(*detection) for detection in found]
        confidence = max((threat.confidence for threat in threats), default=0.0)
        return ThreatResponse(threats_detected=threats, is_threat=bool(threats), max_confidence=confidence)

    def _in_image(self, result: ThreatResult, look: Look) -> list[_Found]:
        """Return the threats of this view and the requested box, in the image's pixels."""
        boxes, counted = self.boxes_in_image(result["boxes"], look)
        detections = zip(result["labels"], result["scores"].tolist(), boxes, counted, strict=True)
        return [(label, score, box) for label, score, box, counts in detections if counts]

    def draw(self, canvas: Canvas, answer: ThreatResponse, part: Box | None = None) -> None:  # noqa: ARG002
        """See Task.draw. Each threat has a box in the colour of its severity. No label covers a threat."""
        for threat in answer.threats_detected:
            x1, y1, x2, y2 = threat.bbox_xyxy
            canvas.keep_clear((x1, y1, x2, y2))
            label = f"{threat.label} {threat.confidence:.2f} {threat.severity}"
            canvas.box((x1, y1, x2, y2), _COLOURS[threat.severity], label)

    def audit(self, answer: ThreatResponse) -> str | None:
        """See Task.audit. The entry names the best 20 threats and their boxes, and holds nothing of the image."""
        if not answer.is_threat:
            return None
        named = [
            f"{threat.label} ({threat.severity}, {threat.confidence:.2f}) at {[round(x) for x in threat.bbox_xyxy]}"
            for threat in answer.threats_detected[:_AUDITED]
        ]
        more = len(answer.threats_detected) - len(named)
        return "; ".join([*named, f"and {more} more"] if more else named)

    # Compares engines and precisions.

    @staticmethod
    def agreement(
        reference: Sequence[tuple[ThreatResult, ThreatResponse]], other: Sequence[tuple[ThreatResult, ThreatResponse]]
    ) -> Mapping[str, Figure]:
        """See Task.agreement. A threat has flipped if an image's labels, or their order by score, differ."""
        overlaps, scores, flipped = [1.0], [0.0], 0
        for (one, _), (two, _) in zip(reference, other, strict=True):
            if one["labels"] != two["labels"]:
                flipped += 1
                continue
            overlaps += [float(iou(a, b[None])[0]) for a, b in zip(one["boxes"], two["boxes"], strict=True)]
            scores += [abs(float(a - b)) for a, b in zip(one["scores"], two["scores"], strict=True)]
        with_threat = sum(answer.is_threat for _, answer in reference)
        return {
            "pictures with a threat": Figure(with_threat, at_least=1),  # without threats no loss can be measured
            "box IoU min": Figure(min(overlaps), at_least=0.95),
            "score ±": Figure(max(scores)),
            "threats flipped": Figure(flipped, at_most=0),
        }


def _joined(found: list[_Found], iou_threshold: float) -> list[_Found]:
    """Merge the detections of overlapping tiles, so that each threat occurs once."""
    if not found:
        return found
    labels, scores, boxes = zip(*found, strict=True)
    names = sorted(set(labels))
    classes = np.array([names.index(label) for label in labels], np.int64)
    return [found[index] for index in distinct(np.stack(boxes), np.array(scores, np.float32), classes, iou_threshold)]


def _threat(label: str, score: float, box: F32) -> Threat:
    return Threat(
        label=label,
        class_name=label,
        type=label,
        confidence=round(score, 4),
        bbox=bounding_box(box),
        bbox_xyxy=[pixels(value) for value in box.tolist()],
        severity=severity(label),
    )
