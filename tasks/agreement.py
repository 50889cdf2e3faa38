"""What another precision costs: a model's answers beside those of a reference, as figures held to bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar, cast

import numpy as np

from api.schemas import Answer, PetResponse, PoseResponse, ThreatResponse
from models.catalogue import ModelName
from models.store import Loss
from runners.contract import F32, DepthResult, PoseResult, ReidResult, Result, ThreatResult
from vision.boxes import intersection

# Per-keypoint spread of human annotators, COCO's own evaluation (cocoapi, cocoeval.py, kpt_oks_sigmas).
_FACE, _ARMS, _LEGS = [0.026, 0.025, 0.025, 0.035, 0.035], [0.079, 0.079, 0.072, 0.072, 0.062, 0.062], [0.107, 0.107]
_SIGMAS: Final = np.array([*_FACE, *_ARMS, *_LEGS, 0.087, 0.087, 0.089, 0.089])
_VISIBLE: Final = 0.5
_SAME: Final = 0.5  # intersection over union above which two boxes are the same object

#: Figure → what it must reach, or (`AT_MOST`) not go over, for the precision to be within bounds (README "Precision").
AT_LEAST: Final[Mapping[str, float]] = MappingProxyType(
    {
        "people": 1,  # a loss that nothing was seen of is not known
        "OKS min": 0.95,
        "OKS mean": 0.99,
        "pictures with a threat": 1,
        "box IoU min": 0.95,
        "cosine min": 0.995,
        "correlation min": 0.995,
    }
)
AT_MOST: Final[Mapping[str, float]] = MappingProxyType(
    {
        "people lost or added": 0,
        "postures flipped": 0,
        "threats flipped": 0,
        "nearest flipped": 0,
        "probability ±": 0.03,
        "labels flipped": 0,
        "is_household_pet flipped": 0,
    }
)

AnswerT = TypeVar("AnswerT", bound=Answer)
Seen = tuple[Result, Answer]  # of one picture: what the runner made of it, and what a caller gets


def measure(name: ModelName, reference: Sequence[Seen], other: Sequence[Seen]) -> Loss:
    """The loss of `other`, a model's answers to the pictures for which it gave `reference`; at least one."""
    figures = _FIGURES[name](reference, other)
    broken = (figure for figure, value in figures.items() if not _within(figure, value))
    return Loss(len(reference), figures, tuple(broken))


def oks(reference: F32, other: F32, area: float) -> float:
    """Object keypoint similarity 0…1 of (17, 3) keypoints, over those that the reference sees; area in pixels."""
    seen = reference[:, 2] >= _VISIBLE
    if not seen.any():
        return 1.0
    squared = ((reference[:, :2] - other[:, :2]) ** 2).sum(axis=1)
    return float(np.exp(-squared / (2 * area * (2 * _SIGMAS) ** 2))[seen].mean())


def iou(box: F32, boxes: F32) -> F32:
    """Intersection over union (n,) of a box (4,) with boxes (n, 4), x1 y1 x2 y2."""
    common = intersection(box, boxes)
    area, areas = (box[2] - box[0]) * (box[3] - box[1]), (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    overlap: F32 = common / (area + areas - common)
    return overlap


def _within(figure: str, value: float) -> bool:
    return AT_LEAST.get(figure, -np.inf) <= value <= AT_MOST.get(figure, np.inf)


def _pose(reference: Sequence[Seen], other: Sequence[Seen]) -> dict[str, float]:
    similarities, overlaps, lost, people = [1.0], [1.0], 0, 0
    for (mine, _), (theirs, _) in zip(reference, other, strict=True):
        one, two = cast(PoseResult, mine), cast(PoseResult, theirs)
        people += len(one["boxes"])
        for box, keypoints in zip(one["boxes"], one["keypoints"], strict=True):
            match = iou(box, two["boxes"]) if len(two["boxes"]) else np.zeros(1, dtype=np.float32)
            if match.max() < _SAME:
                lost += 1
                continue
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            overlaps.append(float(match.max()))
            similarities.append(oks(keypoints, two["keypoints"][match.argmax()], area))
        lost += max(0, len(two["boxes"]) - len(one["boxes"]))
    answers = zip(_answers(reference, PoseResponse), _answers(other, PoseResponse), strict=True)
    return {
        "people": people,
        "OKS min": min(similarities),
        "OKS mean": float(np.mean(similarities[1:] or [1.0])),
        "box IoU min": min(overlaps),
        "people lost or added": lost,
        "postures flipped": sum((one.posture, one.alerts) != (two.posture, two.alerts) for one, two in answers),
    }


def _threat(reference: Sequence[Seen], other: Sequence[Seen]) -> dict[str, float]:
    overlaps, scores, flips = [1.0], [0.0], 0
    for (mine, _), (theirs, _) in zip(reference, other, strict=True):
        one, two = cast(ThreatResult, mine), cast(ThreatResult, theirs)
        if one["labels"] != two["labels"]:
            flips += 1
            continue
        overlaps += [float(iou(a, b[None])[0]) for a, b in zip(one["boxes"], two["boxes"], strict=True)]
        scores += [abs(float(a - b)) for a, b in zip(one["scores"], two["scores"], strict=True)]
    return {
        "pictures with a threat": sum(answer.is_threat for answer in _answers(reference, ThreatResponse)),
        "box IoU min": min(overlaps),
        "score ±": max(scores),
        "threats flipped": flips,
    }


def _reid(reference: Sequence[Seen], other: Sequence[Seen]) -> dict[str, float]:
    first, second = (
        np.stack([cast(ReidResult, result)["embedding"] for result, _ in side]) for side in (reference, other)
    )
    cosines = (first * second).sum(axis=1)
    nearest = [(side @ first.T - 2 * np.eye(len(first))).argmax(axis=1) for side in (first, second)]
    return {
        "cosine min": float(cosines.min()),
        "cosine mean": float(cosines.mean()),
        "nearest flipped": int((nearest[0] != nearest[1]).sum()),
    }


def _pet(reference: Sequence[Seen], other: Sequence[Seen]) -> dict[str, float]:
    pairs = list(zip(_answers(reference, PetResponse), _answers(other, PetResponse), strict=True))
    return {
        "probability ±": max(
            abs(value - two.probabilities[label]) for one, two in pairs for label, value in one.probabilities.items()
        ),
        "labels flipped": sum(one.pet_type != two.pet_type for one, two in pairs),
        "is_household_pet flipped": sum(one.is_household_pet != two.is_household_pet for one, two in pairs),
    }


def _depth(reference: Sequence[Seen], other: Sequence[Seen]) -> dict[str, float]:
    pairs = [
        (cast(DepthResult, one)["depth"], cast(DepthResult, two)["depth"])
        for (one, _), (two, _) in zip(reference, other, strict=True)
    ]
    return {
        "correlation min": min(float(np.corrcoef(one.ravel(), two.ravel())[0, 1]) for one, two in pairs),
        "depth ±": max(float(np.abs(one - two).max()) for one, two in pairs),
    }


def _answers(seen: Sequence[Seen], kind: type[AnswerT]) -> list[AnswerT]:
    answers = [answer for _, answer in seen]
    assert all(isinstance(answer, kind) for answer in answers)
    return cast("list[AnswerT]", answers)


_FIGURES: Final[Mapping[ModelName, Callable[[Sequence[Seen], Sequence[Seen]], dict[str, float]]]] = MappingProxyType(
    {
        "pose_estimator": _pose,
        "threat_detector": _threat,
        "person_reid": _reid,
        "pet_classifier": _pet,
        "depth_estimator": _depth,
    }
)
