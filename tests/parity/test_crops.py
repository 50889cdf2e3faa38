"""People are found again by their own box and in crops, as callers send them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pytest

from tasks.agreement import iou
from tasks.picture import Picture
from tasks.pipeline import Pipeline
from tasks.pose_estimator import Person, PoseResponse
from tasks.task import Options
from tests.parity.conftest import Make
from vision.arrays import F32, RGB, Box

pytestmark = pytest.mark.weights

SCENES = (
    "bus.jpg",
    "street_crowd.jpg",
    "street_mot17_02.jpg",
    "children_football.jpg",
    "cyclists_backlit.jpg",
    "pose_lying.jpg",
    "pose_sitting.jpg",
    "pose_bent_forward.jpg",
)
CONFIDENCE = 0.3  # from which a person of a whole picture is looked for again
SAME_PERSON = 0.5  # IoU
FAR = 3000.0  # where a crop's box lies in the frame that it is said to be of

Again = tuple[list[Person], tuple[int, int]]  # the people found, and the corner of the picture they were sought in


def asked(pipeline: Pipeline, image: RGB, box: Box | None) -> list[Person]:
    ((_, answer),) = pipeline.run([image], box, Options())
    return cast(PoseResponse, answer).persons


def by_box(pipeline: Pipeline, image: RGB, box: Box) -> Again:
    return asked(pipeline, image, box), (0, 0)


def by_crop(pipeline: Pipeline, image: RGB, box: Box) -> Again:
    cut = Picture.of(image, box)
    return asked(pipeline, cut.part, None), cut.frame.area[:2]


def by_crop_and_box(pipeline: Pipeline, image: RGB, box: Box) -> Again:
    cut = Picture.of(image, box)
    height, width = cut.part.shape[:2]
    return asked(pipeline, cut.part, (FAR, FAR, FAR + width, FAR + height)), cut.frame.area[:2]


def array(person: Person) -> F32:
    box = person.bbox
    return np.array([box.x, box.y, box.x + box.width, box.y + box.height], np.float32)


def again(person: Person, found: Sequence[Person], corner: tuple[int, int]) -> Person | None:
    """The one of `found` that is this person."""
    if not found:
        return None
    overlaps = iou(array(person), np.stack([array(one) for one in found]) + np.array([*corner, *corner], np.float32))
    return found[int(overlaps.argmax())] if overlaps.max() >= SAME_PERSON else None


@pytest.fixture(scope="module")
def people(make: Make, images: dict[str, RGB]) -> list[tuple[RGB, Person]]:
    """The people of whole pictures."""
    pipeline = make("pose_estimator", "openvino", "f32")
    found = ((images[name], asked(pipeline, images[name], None)) for name in SCENES)
    return [(image, person) for image, persons in found for person in persons if person.confidence >= CONFIDENCE]


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(("ask", "lost", "flipped"), [(by_box, 1, 3), (by_crop, 4, None), (by_crop_and_box, 4, None)])
def test_people_are_found_again(
    make: Make,
    people: Sequence[tuple[RGB, Person]],
    ask: Callable[[Pipeline, RGB, Box], Again],
    lost: int,
    flipped: int | None,
) -> None:
    """`lost`, `flipped`: how many may not be found, and how many may not be found in the same posture."""
    pipeline = make("pose_estimator", "openvino", "f32")
    pairs = []
    for image, person in people:
        left, top, right, bottom = array(person).tolist()
        pairs.append((person, again(person, *ask(pipeline, image, (left, top, right, bottom)))))
    assert len(pairs) >= 25
    assert sum(found is None for _, found in pairs) <= lost
    if flipped is not None:
        assert sum(found is None or found.posture != person.posture for person, found in pairs) <= flipped
