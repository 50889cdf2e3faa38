"""The task of YOLOv8n-pose: people with their boxes, 17 COCO keypoints, and the posture that these show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np
from pydantic import BaseModel

from engines.batches import Outputs
from models.card import ModelCard
from models.catalogue import ModelName
from tasks.agreement import SAME_OBJECT, Figure, iou, oks
from tasks.detection import BoundingBox, Detector, Look, bounding_box, pixels
from tasks.task import Answer, Item, Label, Prepared, Result
from vision.arrays import F32
from vision.boxes import detect, distinct
from vision.posture import KEYPOINT_NAMES, assess

# Least confidence of a listed joint. The network gives all 17 joints, hidden ones with a low confidence. Postures rest
# on joints of this confidence, whatever the caller wants listed.
VISIBLE: Final = 0.5
_PERSON: Final = "person"  # COCO's name of the class, and the public weights'
_KEYPOINT_SHAPE: Final = (17, 3)


class PoseResult(Result):
    """n persons, best first, in pixels of the network's input.

    boxes: (n, 4) float32, x1 y1 x2 y2. scores: (n,) float32. keypoints: (n, 17, 3) float32, x y confidence.
    """

    boxes: F32
    scores: F32
    keypoints: F32


class Keypoint(BaseModel):
    """A COCO-17 joint in pixels of the image as sent."""

    name: str
    x: float
    y: float
    confidence: float


class Person(BaseModel):
    keypoints: list[Keypoint]
    posture: str
    alerts: list[str]
    bbox: BoundingBox
    confidence: float


class PoseResponse(Answer):
    """The most prominent person (highest box score × area) at the top level, all people under `persons`, best first."""

    keypoints: list[Keypoint]
    posture: str
    alerts: list[str]
    num_people: int
    persons: list[Person]

    @property
    def labels(self) -> Sequence[Label]:
        """See Answer.labels."""
        return [Label(_PERSON, person.confidence, person.bbox.corners) for person in self.persons]


class PoseEstimator(Detector[PoseResult, PoseResponse]):
    """See Task. `prepare` is Detector's."""

    name: ClassVar[ModelName] = "pose_estimator"
    response: ClassVar[type[BaseModel]] = PoseResponse
    option_names: ClassVar[tuple[str, ...]] = ("min_confidence", "min_keypoint_confidence", "on")
    least_share: ClassVar[float] = 0.5  # a person mostly outside the box is somebody else

    # Runs beside the engine.

    def interpret(self, outputs: Outputs, item: Item, card: ModelCard) -> PoseResult:
        """See Task.interpret.

        outputs: `predictions` (55 + classes, candidates) float32: box, class scores and keypoints in input pixels.
        Only the class "person" counts; all classes count if the checkpoint has none of that name.
        """
        found = detect(outputs[0], len(card.labels), self.min_score(item), self.settings.iou_threshold)
        persons = [index for index, label in enumerate(card.labels) if label.casefold() == _PERSON]
        counted = np.isin(found.classes, persons or range(len(card.labels)))
        return {
            "boxes": found.boxes[counted],
            "scores": found.scores[counted],
            "keypoints": found.extras[counted].reshape(-1, *_KEYPOINT_SHAPE),
        }

    # Runs in the API process.

    def answer(self, results: Sequence[PoseResult], prepared: Prepared[Sequence[Look]]) -> PoseResponse:
        """See Task.answer."""
        visible = prepared.options.min_keypoint_confidence
        found = self._persons(results, prepared.view, VISIBLE if visible is None else visible)
        first = found[0] if found else None
        return PoseResponse(
            keypoints=first.keypoints if first else [],
            posture=first.posture if first else "unknown",
            alerts=first.alerts if first else [],
            num_people=len(found),
            persons=found,
        )

    def _persons(self, results: Sequence[PoseResult], looks: Sequence[Look], visible: float) -> list[Person]:
        """Return all people in the image's pixels, the most prominent (score × box area) first.

        visible: least confidence of a listed joint.
        """
        found = [self._in_image(result, look) for result, look in zip(results, looks, strict=True)]
        boxes, scores, keypoints = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        if len(looks) > 1:
            kept = distinct(boxes, scores, np.zeros(len(boxes), np.int64), self.settings.iou_threshold)
            boxes, scores, keypoints = boxes[kept], scores[kept], keypoints[kept]
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        order = np.argsort(-scores * areas, kind="stable")
        return [_person(boxes[index], float(scores[index]), keypoints[index], visible) for index in order]

    def _in_image(self, result: PoseResult, look: Look) -> tuple[F32, F32, F32]:
        """Return boxes, scores and keypoints in the image's pixels, for people of this view and the requested box."""
        boxes, counted = self.boxes_in_image(result["boxes"], look)
        keypoints = result["keypoints"].copy()
        keypoints[..., :2] = look.to_image(keypoints[..., :2])
        return boxes[counted], result["scores"][counted], keypoints[counted]

    # Compares engines and precisions.

    @staticmethod
    def agreement(
        reference: Sequence[tuple[PoseResult, PoseResponse]], other: Sequence[tuple[PoseResult, PoseResponse]]
    ) -> Mapping[str, Figure]:
        """See Task.agreement. People are matched by their boxes. OKS is COCO's object keypoint similarity."""
        similarities, overlaps, lost, people, flipped = [1.0], [1.0], 0, 0, 0
        for (one, its), (two, others) in zip(reference, other, strict=True):
            people += len(one["boxes"])
            flipped += (its.posture, its.alerts) != (others.posture, others.alerts)
            for box, keypoints in zip(one["boxes"], one["keypoints"], strict=True):
                match = iou(box, two["boxes"]) if len(two["boxes"]) else np.zeros(1, dtype=np.float32)
                if match.max() < SAME_OBJECT:
                    lost += 1
                    continue
                area = float((box[2] - box[0]) * (box[3] - box[1]))
                overlaps.append(float(match.max()))
                similarities.append(oks(keypoints, two["keypoints"][match.argmax()], area))
            lost += max(0, len(two["boxes"]) - len(one["boxes"]))
        return {
            "people": Figure(people, at_least=1),  # without people no loss can be measured
            "OKS min": Figure(min(similarities), at_least=0.95),
            "OKS mean": Figure(float(np.mean(similarities[1:] or [1.0])), at_least=0.99),
            "box IoU min": Figure(min(overlaps), at_least=0.95),
            "people lost or added": Figure(lost, at_most=0),
            "postures flipped": Figure(flipped, at_most=0),
        }


def _person(box: F32, score: float, keypoints: F32, visible: float) -> Person:
    assessment = assess(keypoints, VISIBLE)
    listed = [
        Keypoint(name=name, x=pixels(x), y=pixels(y), confidence=round(confidence, 4))
        for name, (x, y, confidence) in zip(KEYPOINT_NAMES, keypoints.tolist(), strict=True)
        if confidence >= visible
    ]
    return Person(
        keypoints=listed,
        posture=str(assessment.posture),
        alerts=[str(alert) for alert in assessment.alerts],
        bbox=bounding_box(box),
        confidence=round(score, 4),
    )
