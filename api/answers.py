"""What each route sends to its model, and what it makes of the result: original pixels, meaning, response model.

Each function takes a picture and gives the runner's item together with the way from its result to the response.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pybase64
from numpy.typing import NDArray

from api.schemas import (
    Answer,
    BoundingBox,
    DepthResponse,
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
from vision.image import RGB, Box, Letterbox, crop
from vision.posture import KEYPOINT_NAMES, assess

# Below it a joint is not listed: the network gives all 17 of each person, hidden ones with a low confidence.
VISIBLE: Final = 0.5

Severity = Literal["critical", "high", "medium"]
# Parts of the names that public weapon detectors use, worst first. Any other threat is `medium`.
_SEVERITIES: Final[tuple[tuple[Severity, tuple[str, ...]], ...]] = (
    ("critical", ("gun", "pistol", "rifle", "revolver", "firearm", "weapon", "grenade", "explosi", "bomb", "launcher")),
    ("high", ("knife", "knives", "blade", "machete", "sword", "dagger", "axe")),
)


@dataclass(frozen=True)
class Picture:
    """The upright image as sent, and the part of it that was asked for. corner: of that part, in the image's pixels."""

    whole: RGB
    part: RGB
    corner: tuple[int, int]

    @classmethod
    def of(cls, image: RGB, box: Box | None) -> Picture:
        """Raises vision.image.BoxOutside."""
        part, corner = (image, (0, 0)) if box is None else crop(image, box)
        return cls(image, part, corner)


@dataclass(frozen=True)
class Prepared:
    """The item for the runner and the function from the runner's result to the response."""

    item: Item
    answer: Callable[[Any], Answer]


def prepare(
    name: ModelName, picture: Picture, min_confidence: float | None, settings: Models, model_input: Any
) -> Prepared:
    """Make the model's item out of a picture. model_input: the model card's `input` (runners.contract.ModelStatus)."""
    match name:
        case "pose_estimator":
            return _pose(picture, min_confidence)
        case "threat_detector":
            return _threat(picture, min_confidence)
        case "person_reid":
            return Prepared({"image": person_reid.prepare(picture.part)}, _reid)
        case "pet_classifier":
            item: Item = {"image": pet_classifier.prepare(picture.part, model_input)}
            return Prepared(item, lambda result: _pet(result, settings.pet_classifier.min_confidence))
        case "depth_estimator":
            item = {"image": depth_estimator.prepare(picture.whole, settings.depth_estimator.input_size)}
            return Prepared(item, lambda result: _depth(result, picture))


def severity(label: str) -> Severity:
    """How bad a threat is, judged by the name that the checkpoint gives it."""
    name = label.casefold()
    return next((level for level, parts in _SEVERITIES if any(part in name for part in parts)), "medium")


def persons(result: PoseResult, fitted: Letterbox, picture: Picture) -> list[Person]:
    """Everybody found, in the image's pixels; the most prominent (score × box area) first."""
    boxes = _to_image(result["boxes"].reshape(-1, 2, 2), fitted, picture).reshape(-1, 4)
    keypoints = result["keypoints"].copy()
    keypoints[..., :2] = _to_image(keypoints[..., :2], fitted, picture)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-result["scores"] * areas, kind="stable")
    return [_person(boxes[index], float(result["scores"][index]), keypoints[index]) for index in order]


def _pose(picture: Picture, min_confidence: float | None) -> Prepared:
    fitted = pose_estimator.prepare(picture.part)

    def answer(result: PoseResult) -> PoseResponse:
        found = persons(result, fitted, picture)
        first = found[0] if found else None
        return PoseResponse(
            keypoints=first.keypoints if first else [],
            posture=first.posture if first else "unknown",
            alerts=first.alerts if first else [],
            num_people=len(found),
            persons=found,
        )

    return Prepared(_item(fitted.image, min_confidence), answer)


def _person(box: F32, score: float, keypoints: F32) -> Person:
    assessment = assess(keypoints)
    visible = [
        Keypoint(name=name, x=_px(x), y=_px(y), confidence=round(confidence, 4))
        for name, (x, y, confidence) in zip(KEYPOINT_NAMES, keypoints.tolist(), strict=True)
        if confidence >= VISIBLE
    ]
    return Person(
        keypoints=visible,
        posture=str(assessment.posture),
        alerts=[str(alert) for alert in assessment.alerts],
        bbox=_bounding_box(box),
        confidence=round(score, 4),
    )


def _threat(picture: Picture, min_confidence: float | None) -> Prepared:
    fitted = threat_detector.prepare(picture.part)

    def answer(result: ThreatResult) -> ThreatResponse:
        boxes = _to_image(result["boxes"].reshape(-1, 2, 2), fitted, picture).reshape(-1, 4)
        threats = [
            Threat(label=label, confidence=round(float(score), 4), bbox=_bounding_box(box), severity=severity(label))
            for label, score, box in zip(result["labels"], result["scores"], boxes, strict=True)
        ]
        confidence = max((threat.confidence for threat in threats), default=0.0)
        return ThreatResponse(threats_detected=threats, is_threat=bool(threats), max_confidence=confidence)

    return Prepared(_item(fitted.image, min_confidence), answer)


def _reid(result: ReidResult) -> ReidResponse:
    # Seven digits are all that a float32 of this size holds; as a double it would print seventeen.
    embedding = np.round(result["embedding"].astype(np.float64), 8).tolist()
    return ReidResponse(embedding=embedding, embedding_dim=len(embedding), embedding_dimension=len(embedding))


def _pet(result: PetResult, min_confidence: float) -> PetResponse:
    probabilities = {_species(label): value for label, value in result["probabilities"].items()}
    pet_type, confidence = max(probabilities.items(), key=lambda pair: pair[1])
    return PetResponse(
        pet_type=pet_type,
        breed="unknown",
        confidence=round(confidence, 4),
        is_household_pet=pet_type in {"cat", "dog"} and confidence >= min_confidence,
        probabilities={label: round(value, 4) for label, value in probabilities.items()},
    )


def _species(label: str) -> str:
    """`cats`, `Cat`, `dogs` … as the contract's `cat` and `dog`; any other label as the checkpoint has it."""
    name = label.casefold()
    return next((species for species in ("cat", "dog") if name in {species, f"{species}s"}), label)


def _depth(result: DepthResult, picture: Picture) -> DepthResponse:
    height, width = picture.whole.shape[:2]
    left, top = picture.corner
    box = (left, top, left + picture.part.shape[1], top + picture.part.shape[0])
    region = depth_map.region(result["depth"], (width, height), box)
    return DepthResponse(
        depth_map_base64=pybase64.b64encode_as_string(depth_map.to_png(region)),
        min_depth=round(float(region.min()), 4),
        max_depth=round(float(region.max()), 4),
        mean_depth=round(float(region.mean(dtype=np.float64)), 4),
    )


def _item(image: NDArray[np.uint8], min_confidence: float | None) -> Item:
    return {"image": image} if min_confidence is None else {"image": image, "min_confidence": min_confidence}


def _to_image(points: F32, fitted: Letterbox, picture: Picture) -> F32:
    """Points (..., 2) of the network's input in the image's pixels, kept inside the part that was looked at."""
    height, width = picture.part.shape[:2]
    inside = np.clip(fitted.to_image(points), 0, np.array([width, height], dtype=np.float32))
    return inside + np.array(picture.corner, dtype=np.float32)


def _bounding_box(box: F32) -> BoundingBox:
    left, top, right, bottom = box.tolist()
    return BoundingBox(x=_px(left), y=_px(top), width=_px(right - left), height=_px(bottom - top))


def _px(value: float) -> float:
    return round(value, 2)
