"""The task of YOLOv8n-pose: people with their boxes, 17 COCO keypoints, and the posture that these show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np
from pydantic import BaseModel, Field

from engines.batches import Outputs
from models.card import ModelCard
from models.catalogue import ModelName
from tasks.agreement import SAME_OBJECT, Figure, iou, oks
from tasks.bounding_box import BoundingBox, bounding_box, corners, pixels
from tasks.detection import Detector, Look
from tasks.task import Answer, Item, Label, Prepared, Result
from vision.arrays import F32, Box
from vision.boxes import detect, distinct, intersection
from vision.canvas import Canvas
from vision.colours import BLUE, GREEN, PURPLE, SKY, VERMILION, Colour
from vision.posture import KEYPOINT_NAMES, Alert, Posture, assess

# Least confidence of a listed joint. The network gives all 17 joints, hidden ones with a low confidence. Postures rest
# on joints of this confidence, whatever the caller wants listed.
VISIBLE: Final = 0.5
_PERSON: Final = "person"  # COCO's name of the class, and the public weights'
_KEYPOINT_SHAPE: Final = (17, 3)
_FACE: Final = KEYPOINT_NAMES[:5]
_PARTS: Final = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
# Joints with a bone between them: COCO's skeleton of a person without the links eye–eye and ear–shoulder.
_LIMBS: Final = (
    *((f"{side}_{start}", f"{side}_{end}") for side in ("left", "right") for start, end in _PARTS),
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
)
_ALERT_COLOUR: Final = VERMILION
_COLOURS: Final = (BLUE, GREEN, PURPLE, SKY)  # of people without an alert, in turn


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


class AlertDetail(BaseModel):
    """Why an alert was given."""

    alert: Alert
    confidence: float = Field(
        ge=0,
        le=1,
        description="at most the confidence of the weakest joint that the alert rests on; half of that if a measure is "
        "at its limit; not a calibrated probability",
    )
    reason: str = Field(
        description="the angles and proportions that it rests on, and their limits; lengths are in torsos",
        examples=["the torso tilts 84° from the vertical (lying: 60 to 120°)"],
    )


_DETAILS: Final = "one for each of `alerts`, in the same order"


class Person(BaseModel):
    """One person. bbox and keypoints are in pixels of the image as sent; confidence is the box's, 0 to 1."""

    keypoints: list[Keypoint]
    posture: Posture
    posture_reason: str = Field("", description="what the posture rests on; for unknown, why it could not be judged")
    alerts: list[Alert]
    alert_details: list[AlertDetail] = Field(default_factory=list, description=_DETAILS)
    bbox: BoundingBox
    confidence: float


class PoseResponse(Answer):
    """The most prominent person (highest box score × area) at the top level, all people under `persons`, best first."""

    keypoints: list[Keypoint]
    posture: Posture
    alerts: list[Alert]
    alert_details: list[AlertDetail] = Field(default_factory=list, description=_DETAILS)
    num_people: int
    persons: list[Person]

    @property
    def labels(self) -> Sequence[Label]:
        """See Answer.labels."""
        return [Label(_PERSON, person.confidence, corners(person.bbox)) for person in self.persons]


class PoseEstimator(Detector[PoseResult, PoseResponse]):
    """See Task. `prepare` is Detector's."""

    name: ClassVar[ModelName] = "pose_estimator"
    response: ClassVar[type[BaseModel]] = PoseResponse
    option_names: ClassVar[tuple[str, ...]] = ("min_confidence", "min_keypoint_confidence", "on")
    least_share: ClassVar[float] = 0.5  # a person mostly outside the box is somebody else
    draws: ClassVar[bool] = True

    # Runs beside the engine.

    def interpret(self, outputs: Outputs, item: Item, card: ModelCard) -> PoseResult:
        """See Task.interpret.

        outputs: `predictions` (55 + classes, candidates) float32: box, class scores and keypoints in input pixels.
        Only the class "person" counts; all classes count if the checkpoint has none of that name.
        """
        found = detect(outputs[0], len(card.labels), self.min_confidence(item), self.settings.iou_threshold)
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
            posture=first.posture if first else Posture.UNKNOWN,
            alerts=first.alerts if first else [],
            alert_details=first.alert_details if first else [],
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

    def draw(self, canvas: Canvas, answer: PoseResponse, part: Box | None = None) -> None:  # noqa: ARG002
        """See Task.draw. Alerts have one colour. People without one differ in colour from those they overlap."""
        for person, colour in zip(answer.persons, _colours(answer.persons), strict=True):
            joints = {joint.name: (joint.x, joint.y) for joint in person.keypoints}
            limbs = [(joints[start], joints[end]) for start, end in _LIMBS if {start, end} <= joints.keys()]
            canvas.box(corners(person.bbox), colour, _label(person))
            canvas.limbs(limbs, joints.values(), colour)
            if face := [joints[name] for name in _FACE if name in joints]:
                canvas.keep_clear(_head(face, person.bbox))

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
        posture=assessment.posture,
        posture_reason=assessment.reason,
        alerts=list(assessment.alerts),
        alert_details=[
            AlertDetail(alert=detail.alert, confidence=detail.confidence, reason=detail.reason)
            for detail in assessment.details
        ],
        bbox=bounding_box(box),
        confidence=round(score, 4),
    )


def _colours(persons: Sequence[Person]) -> list[Colour]:
    """Return a colour for each person. It differs from that of earlier people in overlapping boxes, while it can."""
    boxes = np.array([corners(person.bbox) for person in persons], np.float32).reshape(-1, 4)
    chosen = np.full(len(persons), -1)  # indices of _COLOURS; -1 with an alert
    for index, person in enumerate(persons):
        if not person.alerts:
            near = set(chosen[:index][intersection(boxes[index], boxes[:index]) > 0].tolist())
            usual = index % len(_COLOURS)
            chosen[index] = next((colour for colour in (usual, *range(len(_COLOURS))) if colour not in near), usual)
    return [_ALERT_COLOUR if colour < 0 else _COLOURS[colour] for colour in chosen.tolist()]


def _label(person: Person) -> str:
    posture = "person" if person.posture == Posture.UNKNOWN else person.posture
    shown = dict.fromkeys([posture, *person.alerts])  # some postures are alerts, too
    text = ", ".join(shown).replace("_", " ")
    return f"{'ALERT ' if person.alerts else ''}{text} {person.confidence:.2f}"


def _head(face: Sequence[tuple[float, float]], box: BoundingBox) -> Box:
    """Return the box of a head by the joints of its face."""
    xs, ys = zip(*face, strict=True)
    margin = max(max(xs) - min(xs), max(ys) - min(ys), min(box.width, box.height) / 8) / 2
    return min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin
