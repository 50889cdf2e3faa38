"""What each route sends to its model, and what it makes of the result: original pixels, meaning, response model.

Each function takes a picture and gives the runner's items together with the way from their results to the response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import pybase64
from numpy.typing import NDArray

from api.distance import DistanceOptions, measure
from api.schemas import (
    Answer,
    BoundingBox,
    DepthResponse,
    DistanceResponse,
    Keypoint,
    Person,
    PetResponse,
    PoseResponse,
    ReidResponse,
    Threat,
    ThreatResponse,
)
from models.catalogue import ModelName
from runners import depth_estimator, person_reid, pet_classifier, pose_estimator, threat_detector
from runners.contract import F32, DepthResult, Item, PetResult, PoseResult, ReidResult, ThreatResult
from settings import Models
from vision import depth_map
from vision.boxes import distinct
from vision.image import RGB, Box, Letterbox, crop
from vision.posture import KEYPOINT_NAMES, assess
from vision.views import has_centre, is_foreign, means_whole, share_inside, views

# Below it a joint is not listed: the network gives all 17 of each person, hidden ones with a low confidence. Postures
# are judged by joints of this confidence, whatever a caller wants to see listed.
VISIBLE: Final = 0.5

Severity = Literal["critical", "high", "medium"]
# Parts of the names that public weapon detectors use, worst first. Any other threat is `medium`.
_SEVERITIES: Final[tuple[tuple[Severity, tuple[str, ...]], ...]] = (
    ("critical", ("gun", "pistol", "rifle", "revolver", "firearm", "weapon", "grenade", "explosi", "bomb", "launcher")),
    ("high", ("knife", "knives", "blade", "machete", "sword", "dagger", "axe")),
)


# The least share of a detection's box that lies in the box asked for. A person beside it is somebody else; of a weapon
# the hand that holds it may be all that the box has.
_LEAST_SHARE: Final[Mapping[ModelName, float]] = MappingProxyType({"pose_estimator": 0.5, "threat_detector": 0.25})


@dataclass(frozen=True)
class Options:
    """What a caller may choose beside the picture; None is the configuration's value or the documented default."""

    min_confidence: float | None = None
    min_keypoint_confidence: float | None = None
    distance: DistanceOptions | None = None  # of /object-distance alone


@dataclass(frozen=True)
class Frame:
    """Where a picture's pixels are, without them: what an answer needs when they are long gone.

    size: width, height of the upright image as sent. area: left, top, right, bottom of the part that was asked for, in
    its pixels. box: as asked, None for the whole image.
    """

    size: tuple[int, int]
    area: tuple[int, int, int, int]
    box: Box | None


@dataclass(frozen=True)
class Picture:
    """The upright image as sent, and the part of it that was asked for.

    part: a view into `whole`. is_crop: the caller's box says that the image was cut out of a larger frame.
    """

    whole: RGB
    part: RGB
    frame: Frame
    is_crop: bool

    @classmethod
    def of(cls, image: RGB, box: Box | None) -> Picture:
        """Raises vision.image.BoxOutside."""
        height, width = image.shape[:2]
        if box is None or means_whole(box, width, height):
            frame = Frame((width, height), (0, 0, width, height), None)
            return cls(image, image, frame, box is not None and is_foreign(box))
        part, (left, top) = crop(image, box)
        area = (left, top, left + part.shape[1], top + part.shape[0])
        return cls(image, part, Frame((width, height), area, box), is_crop=False)


@dataclass(frozen=True)
class Prepared:
    """The items for the runner, and the function from their results, in their order, to the response.

    answer_bytes: what that function takes of memory, where it is as much as a picture.
    """

    items: Sequence[Item]
    answer: Callable[[Sequence[Any]], Answer]
    answer_bytes: int = 0


def prepare(name: ModelName, picture: Picture, options: Options, settings: Models, model_input: Any) -> Prepared:
    """Make the model's items out of a picture. model_input: the model card's `input` (runners.contract.ModelStatus)."""
    match name:
        case "pose_estimator":
            return _pose(picture, options, settings.pose_estimator.iou_threshold)
        case "threat_detector":
            return _threat(picture, options, settings.threat_detector.iou_threshold)
        case "person_reid":
            return _single(person_reid.prepare(picture.part), _reid)
        case "pet_classifier":
            image = pet_classifier.prepare(picture.part, model_input)
            return _single(image, lambda result: _pet(result, settings.pet_classifier.min_confidence))
        case "depth_estimator":
            image = depth_estimator.prepare(picture.whole, settings.depth_estimator.input_size)
            frame = picture.frame
            size = depth_map.answer_bytes(frame.area)
            if (distance := options.distance) is not None:
                return _single(image, lambda result: _distance(result, frame, distance), size)
            return _single(image, lambda result: _depth(result, frame), size)


def _single(image: NDArray[np.uint8], answer: Callable[[Any], Answer], answer_bytes: int = 0) -> Prepared:
    return Prepared([{"image": image}], lambda results: answer(results[0]), answer_bytes)


def severity(label: str) -> Severity:
    """How bad a threat is, judged by the name that the checkpoint gives it."""
    name = label.casefold()
    return next((level for level, parts in _SEVERITIES if any(part in name for part in parts)), "medium")


@dataclass(frozen=True)
class Look:
    """A view of a picture as a detector's input, and the way back. corner, core: of the View."""

    corner: tuple[int, int]
    core: Box
    fitted: Letterbox
    frame: Frame

    def to_image(self, points: F32) -> F32:
        """Points (..., 2) of the network's input in the image's pixels, kept inside the image."""
        points = self.fitted.to_image(points) + np.array(self.corner, dtype=np.float32)
        return np.clip(points, 0, np.array(self.frame.size, dtype=np.float32))

    def counts(self, boxes: F32, least_share: float) -> NDArray[np.bool_]:
        """Which (n,) of the image's boxes (n, 4) belong to this view, and lie in the box asked for by `least_share`."""
        counted = has_centre(boxes, self.core)
        if self.frame.box is not None:
            counted &= share_inside(boxes, self.frame.box) >= least_share
        return counted


def persons(
    results: Sequence[PoseResult], looks: Sequence[Look], iou_threshold: float, visible: float = VISIBLE
) -> list[Person]:
    """Everybody found, in the image's pixels; the most prominent (score × box area) first.

    visible: confidence from which a joint is listed.
    """
    found = [_persons_of(result, look) for result, look in zip(results, looks, strict=True)]
    boxes, scores, keypoints = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    if len(looks) > 1:
        kept = distinct(boxes, scores, np.zeros(len(boxes), np.int64), iou_threshold)
        boxes, scores, keypoints = boxes[kept], scores[kept], keypoints[kept]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-scores * areas, kind="stable")
    return [_person(boxes[index], float(scores[index]), keypoints[index], visible) for index in order]


def _persons_of(result: PoseResult, look: Look) -> tuple[F32, F32, F32]:
    boxes = look.to_image(result["boxes"].reshape(-1, 2, 2)).reshape(-1, 4)
    keypoints = result["keypoints"].copy()
    keypoints[..., :2] = look.to_image(keypoints[..., :2])
    counted = look.counts(boxes, _LEAST_SHARE["pose_estimator"])
    return boxes[counted], result["scores"][counted], keypoints[counted]


def _pose(picture: Picture, options: Options, iou_threshold: float) -> Prepared:
    looks = _looks(picture, pose_estimator.prepare, pose_estimator.INPUT_SIZE)
    visible = VISIBLE if options.min_keypoint_confidence is None else options.min_keypoint_confidence

    def answer(results: Sequence[PoseResult]) -> PoseResponse:
        found = persons(results, looks, iou_threshold, visible)
        first = found[0] if found else None
        return PoseResponse(
            keypoints=first.keypoints if first else [],
            posture=first.posture if first else "unknown",
            alerts=first.alerts if first else [],
            num_people=len(found),
            persons=found,
        )

    return Prepared([_item(look, options) for look in looks], answer)


def _person(box: F32, score: float, keypoints: F32, visible: float) -> Person:
    assessment = assess(keypoints)
    listed = [
        Keypoint(name=name, x=_px(x), y=_px(y), confidence=round(confidence, 4))
        for name, (x, y, confidence) in zip(KEYPOINT_NAMES, keypoints.tolist(), strict=True)
        if confidence >= visible
    ]
    return Person(
        keypoints=listed,
        posture=str(assessment.posture),
        alerts=[str(alert) for alert in assessment.alerts],
        bbox=_bounding_box(box),
        confidence=round(score, 4),
    )


def _threat(picture: Picture, options: Options, iou_threshold: float) -> Prepared:
    looks = _looks(picture, threat_detector.prepare, threat_detector.INPUT_SIZE)

    def answer(results: Sequence[ThreatResult]) -> ThreatResponse:
        found = [
            detection for result, look in zip(results, looks, strict=True) for detection in _threats_of(result, look)
        ]
        if len(looks) > 1:
            found = _distinct_threats(found, iou_threshold)
        threats = [_described(*detection) for detection in found]
        confidence = max((threat.confidence for threat in threats), default=0.0)
        return ThreatResponse(threats_detected=threats, is_threat=bool(threats), max_confidence=confidence)

    return Prepared([_item(look, options) for look in looks], answer)


def _threats_of(result: ThreatResult, look: Look) -> list[tuple[str, float, F32]]:
    """Label, score and box (4,) in the image's pixels of each threat that counts."""
    boxes = look.to_image(result["boxes"].reshape(-1, 2, 2)).reshape(-1, 4)
    counted = look.counts(boxes, _LEAST_SHARE["threat_detector"])
    detections = zip(result["labels"], result["scores"].tolist(), boxes, counted, strict=True)
    return [(label, score, box) for label, score, box, counts in detections if counts]


def _distinct_threats(found: list[tuple[str, float, F32]], iou_threshold: float) -> list[tuple[str, float, F32]]:
    if not found:
        return found
    labels, scores, boxes = zip(*found, strict=True)
    names = sorted(set(labels))
    classes = np.array([names.index(label) for label in labels], np.int64)
    return [found[index] for index in distinct(np.stack(boxes), np.array(scores, np.float32), classes, iou_threshold)]


def _described(label: str, score: float, box: F32) -> Threat:
    return Threat(
        label=label,
        class_name=label,
        type=label,
        confidence=round(score, 4),
        bbox=_bounding_box(box),
        bbox_xyxy=[_px(value) for value in box.tolist()],
        severity=severity(label),
    )


def _looks(picture: Picture, fit: Callable[[RGB], Letterbox], input_size: int) -> list[Look]:
    seen = views(picture.whole, picture.frame.box, is_crop=picture.is_crop, input_size=input_size)
    return [Look(view.corner, view.core, fit(view.pixels), picture.frame) for view in seen]


def _reid(result: ReidResult) -> ReidResponse:
    # Seven digits are all that a float32 of this size holds; as a double it would print seventeen.
    embedding = np.round(result["embedding"].astype(np.float64), 8).tolist()
    length = len(embedding)
    return ReidResponse(
        embedding=embedding, embedding_dim=length, embedding_dimension=length, model_id=result["model_id"]
    )


def _pet(result: PetResult, min_confidence: float) -> PetResponse:
    probabilities = {_species(label): value for label, value in result["probabilities"].items()}
    pet_type, confidence = max(probabilities.items(), key=lambda pair: pair[1])
    return PetResponse(
        pet_type=pet_type,
        breed="unknown",
        confidence=round(confidence, 4),
        is_household_pet=pet_type in {"cat", "dog"} and confidence >= min_confidence,
        cat_score=round(probabilities.get("cat", 0.0), 4),
        dog_score=round(probabilities.get("dog", 0.0), 4),
        probabilities={label: round(value, 4) for label, value in probabilities.items()},
    )


def _species(label: str) -> str:
    """`cats`, `Cat`, `dogs` … as the contract's `cat` and `dog`; any other label as the checkpoint has it."""
    name = label.casefold()
    return next((species for species in ("cat", "dog") if name in {species, f"{species}s"}), label)


def _depth(result: DepthResult, frame: Frame) -> DepthResponse:
    rendered = depth_map.rendered(result["depth"], frame.size, frame.area)
    return DepthResponse(
        depth_map_base64=pybase64.b64encode_as_string(rendered.png),
        min_depth=round(rendered.low, 4),
        max_depth=round(rendered.high, 4),
        mean_depth=round(rendered.mean, 4),
    )


def _distance(result: DepthResult, frame: Frame, options: DistanceOptions) -> DistanceResponse:
    found = measure(depth_map.region(result["depth"], frame.size, frame.area), options)
    return DistanceResponse(
        estimated_distance_m=None if found.metres is None else round(found.metres, 2),
        relative_depth=round(found.relative_depth, 4),
        proximity_label=found.proximity,
    )


def _item(look: Look, options: Options) -> Item:
    item: Item = {"image": look.fitted.image}
    return item if options.min_confidence is None else {**item, "min_confidence": options.min_confidence}


def _bounding_box(box: F32) -> BoundingBox:
    left, top, right, bottom = box.tolist()
    return BoundingBox(x=_px(left), y=_px(top), width=_px(right - left), height=_px(bottom - top))


def _px(value: float) -> float:
    return round(value, 2)
