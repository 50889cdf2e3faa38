"""How many people, joints and postures are found again by a person's own box, or in a crop of that person.

usage: python -m benchmarks.crops FOLDER-OF-PICTURES

The people found in whole pictures are the reference. `exactly the box` is what versions before 0.2 looked at. Weights
come from the model store (BENTOML_HOME).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np

from engines.openvino import OpenVinoEngine
from models.catalogue import CATALOGUE
from models.store import require
from settings import get_settings
from tasks.agreement import iou, oks
from tasks.detection import INPUT_SIZE, STRIDE, Look
from tasks.picture import Picture
from tasks.pipeline import Pipeline, read
from tasks.pose_estimator import Person, PoseEstimator, PoseResponse, PoseResult
from tasks.task import Options
from vision.arrays import F32, RGB, Box
from vision.image import letterbox
from vision.posture import KEYPOINT_NAMES
from vision.views import EVERYWHERE

CONFIDENCE: Final = 0.3  # from which a person of a whole picture is looked for again
SAME_PERSON: Final = 0.5  # IoU
SAME_JOINTS: Final = 0.8  # OKS
_PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp")
_ALL_JOINTS: Final = Options(min_keypoint_confidence=0)
_FAR: Final = 3000.0  # where a crop's box lies in the frame that it is said to be of


@dataclass
class Tally:
    """Of so many people, how many were found, how many with the same joints, how many in the same posture."""

    people: int = 0
    found: int = 0
    joints: int = 0
    postures: int = 0

    def add(self, person: Person, again: Sequence[Person], corner: tuple[int, int]) -> None:
        """Count one person, and what was made of it; corner: of the picture that it was looked for in."""
        self.people += 1
        moved = np.array([*corner, *corner], np.float32)
        boxes = np.stack([_box(one) + moved for one in again]) if again else np.zeros((0, 4), np.float32)
        overlaps = iou(_box(person), boxes)
        if not again or overlaps.max() < SAME_PERSON:
            return
        best = again[int(overlaps.argmax())]
        self.found += 1
        joints = _joints(best) + np.array([*corner, 0], np.float32)
        area = person.bbox.width * person.bbox.height
        self.joints += oks(_joints(person), joints, area) >= SAME_JOINTS
        self.postures += best.posture == person.posture


def measure(pipeline: Pipeline, images: Sequence[RGB]) -> Mapping[str, Tally]:
    """The four ways to ask for a person again: way → what was found."""

    def asked(image: RGB, box: Box | None) -> list[Person]:
        ((_, answer),) = pipeline.run([image], box, _ALL_JOINTS)
        return cast(PoseResponse, answer).persons

    def by_box(image: RGB, box: Box) -> tuple[list[Person], tuple[int, int]]:
        return asked(image, box), (0, 0)

    def by_crop(image: RGB, box: Box) -> tuple[list[Person], tuple[int, int]]:
        cut = Picture.of(image, box)
        return asked(cut.part, None), cut.frame.area[:2]

    def by_crop_and_box(image: RGB, box: Box) -> tuple[list[Person], tuple[int, int]]:
        cut = Picture.of(image, box)
        height, width = cut.part.shape[:2]
        return asked(cut.part, (_FAR, _FAR, _FAR + width, _FAR + height)), cut.frame.area[:2]

    def exactly(image: RGB, box: Box) -> tuple[list[Person], tuple[int, int]]:
        cut = Picture.of(image, box)
        fitted = letterbox(cut.part, INPUT_SIZE, STRIDE)
        (result,) = pipeline.results([{"image": fitted.image}])
        look = Look((0, 0), EVERYWHERE, fitted, Picture.of(cut.part, None).frame)
        task, found = cast(PoseEstimator, pipeline.task), cast(PoseResult, result)
        return task.persons([found], [look], visible=0), cut.frame.area[:2]

    ways: Mapping[str, Callable[[RGB, Box], tuple[list[Person], tuple[int, int]]]] = {
        "exactly the box": exactly,
        "frame and box": by_box,
        "crop alone": by_crop,
        "crop and its box in the frame": by_crop_and_box,
    }
    tallies = {way: Tally() for way in ways}
    for image in images:
        for person in asked(image, None):
            if person.confidence < CONFIDENCE:
                continue
            left, top, right, bottom = _box(person).tolist()
            for way, ask in ways.items():
                tallies[way].add(person, *ask(image, (left, top, right, bottom)))
    return tallies


def _box(person: Person) -> F32:
    box = person.bbox
    return np.array([box.x, box.y, box.x + box.width, box.y + box.height], np.float32)


def _joints(person: Person) -> F32:
    by_name = {joint.name: (joint.x, joint.y, joint.confidence) for joint in person.keypoints}
    return np.array([by_name[name] for name in KEYPOINT_NAMES], np.float32)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    files = sorted(path for path in parser.parse_args().folder.glob("*") if path.suffix in _PICTURES)
    settings, stored = get_settings(), require("pose_estimator")
    engine = OpenVinoEngine(stored.graph, "f32", CATALOGUE["pose_estimator"].traits, threads=settings.cpu_threads)
    task = PoseEstimator(settings.models.pose_estimator)
    tallies = measure(Pipeline(task, stored.card, engine), [read(file) for file in files])
    print(f"| asked by | people | found | OKS ≥ {SAME_JOINTS} | same posture |\n|---|---|---|---|---|")
    for way, tally in tallies.items():
        print(f"| {way} | {tally.people} | {tally.found} | {tally.joints} | {tally.postures} |")


if __name__ == "__main__":
    main()
