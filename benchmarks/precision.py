"""What reduced precision costs in accuracy: each model's answers in bf16 against f32, on a folder of images.

usage: python -m benchmarks.precision FOLDER [--engine openvino|torch] [--precision bf16|auto]

FOLDER holds pictures, and below `reid/` crops of people, which alone count for re-identification.
Prints the Markdown table of README "Precision". The figures hold for the processor they were measured on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import numpy as np

from api.schemas import PetResponse, PoseResponse, ThreatResponse
from benchmarks.in_process import Pipeline, read, stored
from models.catalogue import CATALOGUE, ModelName
from runners.contract import F32, DepthResult, PoseResult, ReidResult, ThreatResult
from runners.engines import load, take_gpu
from settings import EngineChoice, Precision, get_settings
from vision.boxes import intersection

# Per-keypoint spread of human annotators, COCO's own evaluation (cocoapi, cocoeval.py, kpt_oks_sigmas).
_FACE, _ARMS, _LEGS = [0.026, 0.025, 0.025, 0.035, 0.035], [0.079, 0.079, 0.072, 0.072, 0.062, 0.062], [0.107, 0.107]
_SIGMAS: Final = np.array([*_FACE, *_ARMS, *_LEGS, 0.087, 0.087, 0.089, 0.089])
_VISIBLE: Final = 0.5
_SAME: Final = 0.5  # intersection over union above which two boxes are the same object

Pairs = list[tuple[object, object]]


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


def compare_pose(results: Pairs, answers: Pairs) -> str:
    similarities, overlaps, lost = [], [], 0
    for one, other in cast(list[tuple[PoseResult, PoseResult]], results):
        for box, keypoints in zip(one["boxes"], one["keypoints"], strict=True):
            match = iou(box, other["boxes"]) if len(other["boxes"]) else np.zeros(1, dtype=np.float32)
            if match.max() < _SAME:
                lost += 1
                continue
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            overlaps.append(float(match.max()))
            similarities.append(oks(keypoints, other["keypoints"][match.argmax()], area))
        lost += max(0, len(other["boxes"]) - len(one["boxes"]))
    flips = sum(
        (a.posture, a.alerts) != (b.posture, b.alerts)
        for a, b in cast(list[tuple[PoseResponse, PoseResponse]], answers)
    )
    return (
        f"{len(overlaps)} people: OKS min {min(similarities):.3f}, mean {np.mean(similarities):.4f}; "
        f"box IoU min {min(overlaps):.3f}; {lost} lost or added; {flips} first postures flipped"
    )


def compare_threat(results: Pairs, answers: Pairs) -> str:
    overlaps, scores, flips = [1.0], [0.0], 0
    for one, other in cast(list[tuple[ThreatResult, ThreatResult]], results):
        if one["labels"] != other["labels"]:
            flips += 1
            continue
        for box, score, box_2, score_2 in zip(
            one["boxes"], one["scores"], other["boxes"], other["scores"], strict=True
        ):
            overlaps.append(float(iou(box, box_2[None])[0]))
            scores.append(abs(float(score - score_2)))
    seen = sum(answer.is_threat for answer, _ in cast(list[tuple[ThreatResponse, ThreatResponse]], answers))
    return f"{seen} images with a threat: box IoU min {min(overlaps):.3f}, score ±{max(scores):.3f}; {flips} flipped"


def compare_reid(results: Pairs, answers: Pairs) -> str:  # noqa: ARG001
    pairs = cast(list[tuple[ReidResult, ReidResult]], results)
    first, second = (np.stack([pair[side]["embedding"] for pair in pairs]) for side in (0, 1))
    cosines = (first * second).sum(axis=1)
    nearest = [(side @ first.T - 2 * np.eye(len(first))).argmax(axis=1) for side in (first, second)]
    changed = int((nearest[0] != nearest[1]).sum())
    return f"cosine min {cosines.min():.4f}, mean {cosines.mean():.4f}; {changed} of {len(pairs)} nearest changed"


def compare_pet(results: Pairs, answers: Pairs) -> str:  # noqa: ARG001
    pairs = cast(list[tuple[PetResponse, PetResponse]], answers)
    largest = max(abs(one.probabilities["cat"] - other.probabilities["cat"]) for one, other in pairs)
    flips = sum(one.pet_type != other.pet_type for one, other in pairs)
    pets = sum(one.is_household_pet != other.is_household_pet for one, other in pairs)
    return f"probability ±{largest:.3f}; {flips} of {len(pairs)} labels flipped; {pets} is_household_pet flipped"


def compare_depth(results: Pairs, answers: Pairs) -> str:  # noqa: ARG001
    pairs = cast(list[tuple[DepthResult, DepthResult]], results)
    correlations = [np.corrcoef(one["depth"].ravel(), other["depth"].ravel())[0, 1] for one, other in pairs]
    largest = max(float(np.abs(one["depth"] - other["depth"]).max()) for one, other in pairs)
    return f"correlation min {min(correlations):.5f}; largest difference {largest:.3f} of 0…1"


_COMPARE: Final[dict[ModelName, Callable[[Pairs, Pairs], str]]] = {
    "pose_estimator": compare_pose,
    "threat_detector": compare_threat,
    "person_reid": compare_reid,
    "pet_classifier": compare_pet,
    "depth_estimator": compare_depth,
}


def pipeline(name: ModelName, engine: EngineChoice, precision: Precision) -> Pipeline:
    """A model on one engine in one precision."""
    settings = get_settings().model_copy(update={"engine": engine, "precision": precision})
    model = stored(name)
    return Pipeline(model, load(model, settings, take_gpu(settings)), settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", choices=["openvino", "torch"], default="openvino")
    parser.add_argument("--precision", choices=["bf16", "auto"], default="bf16")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix in {".jpg", ".png", ".webp"})
    pictures = {path: read(path) for path in paths}
    print(f"| model | pictures | {arguments.precision} against f32, {arguments.engine} |\n|---|---|---|")
    for name in CATALOGUE:
        images = [image for path, image in pictures.items() if name != "person_reid" or path.parent.name == "reid"]
        exact, reduced = (
            pipeline(name, arguments.engine, precision).run(images) for precision in ("f32", arguments.precision)
        )
        results: Pairs = [(one[0], other[0]) for one, other in zip(exact, reduced, strict=True)]
        answers: Pairs = [(one[1], other[1]) for one, other in zip(exact, reduced, strict=True)]
        print(f"| {name} | {len(images)} | {_COMPARE[name](results, answers)} |", flush=True)


if __name__ == "__main__":
    main()
