"""What the tasks draw: where it is, and in which colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks import TASKS
from tasks.bounding_box import BoundingBox
from tasks.pet_classifier import PetResponse
from tasks.pose_estimator import Keypoint, Person, PoseResponse
from tasks.task import Answer
from tasks.threat_detector import Threat, ThreatResponse
from tests.tasks.made import PET, POSE, REID, THREAT
from vision.canvas import Canvas
from vision.colours import BLUE, GREEN, ORANGE, SKY, VERMILION, YELLOW, Colour

WIDTH, HEIGHT = 640, 480
GREY = 90


def drawn(task: Any, answer: Answer, part: Any = None) -> NDArray[np.int64]:
    canvas = Canvas(np.full((HEIGHT, WIDTH, 3), GREY, np.uint8))
    task.draw(canvas, answer, part)
    return np.asarray(canvas.drawn()).astype(np.int64)


def has(image: NDArray[np.int64], colour: Colour, left: float, top: float, right: float, bottom: float) -> bool:
    """Whether an area, a little widened, has pixels of a colour. Edges of lines are darker than it."""
    part = image[max(0, int(top) - 2) : int(bottom) + 3, max(0, int(left) - 2) : int(right) + 3]
    return bool((np.abs(part - colour).max(axis=-1) < 15).any())


def person(left: float, posture: str = "walking", alerts: tuple[str, ...] = ()) -> Person:
    points = {"left_shoulder": (left + 10, 210), "left_elbow": (left + 10, 280), "left_wrist": (left + 40, 350)}
    joints = [Keypoint(name=name, x=x, y=y, confidence=0.9) for name, (x, y) in points.items()]
    box = BoundingBox(x=left, y=200, width=80, height=200)
    return Person(keypoints=joints, posture=posture, alerts=list(alerts), bbox=box, confidence=0.9)


def pose(*persons: Person) -> PoseResponse:
    return PoseResponse(keypoints=[], posture="unknown", alerts=[], num_people=len(persons), persons=list(persons))


def threat(severity: Any, left: float = 100) -> ThreatResponse:
    box = BoundingBox(x=left, y=200, width=80, height=60)
    found = Threat(
        label="Gun",
        class_name="Gun",
        type="Gun",
        confidence=0.9,
        bbox=box,
        bbox_xyxy=[left, 200, left + 80, 260],
        severity=severity,
    )
    return ThreatResponse(threats_detected=[found], is_threat=True, max_confidence=0.9)


def pet(household: bool) -> PetResponse:
    return PetResponse(
        pet_type="cat",
        breed="unknown",
        confidence=0.98,
        is_household_pet=household,
        cat_score=0.98,
        dog_score=0.02,
        probabilities={"cat": 0.98, "dog": 0.02},
    )


def test_a_person_has_a_box_and_limbs_between_the_joints_that_are_listed() -> None:
    image = drawn(POSE, pose(person(100)))
    assert has(image, BLUE, 100, 300, 100, 300)
    assert has(image, BLUE, 180, 300, 180, 300)
    assert has(image, BLUE, 110, 245, 110, 245)  # shoulder to elbow
    assert has(image, BLUE, 125, 315, 125, 315)  # elbow to wrist
    assert (image[320:390, 150:170] == GREY).all()  # within the box, without a limb
    assert (image[420:] == GREY).all()


def test_each_person_has_a_colour_and_alerts_have_one_that_nobody_else_has() -> None:
    calm = drawn(POSE, pose(*(person(60 + 90 * index) for index in range(6))))
    assert not has(calm, VERMILION, 0, 0, WIDTH, HEIGHT)
    assert has(calm, BLUE, 60, 300, 60, 300)
    assert has(calm, GREEN, 150, 300, 150, 300)
    image = drawn(POSE, pose(person(60), person(300, "lying_down", ("lying_down",))))
    assert has(image, VERMILION, 300, 300, 300, 300)
    assert not has(image, VERMILION, 60, 200, 140, 400)


def test_people_who_overlap_differ_in_colour() -> None:
    # The fifth would have the first one's colour if it stood alone.
    image = drawn(POSE, pose(*(person(left) for left in (60, 250, 350, 450, 70))))
    assert has(image, BLUE, 60, 300, 60, 300)
    assert has(image, GREEN, 150, 370, 150, 370)


@pytest.mark.parametrize(("severity", "colour"), [("critical", VERMILION), ("high", ORANGE), ("medium", YELLOW)])
def test_a_threat_has_the_colour_of_its_severity(severity: str, colour: Colour) -> None:
    image = drawn(THREAT, threat(severity))
    for x, y in ((100, 230), (180, 230), (140, 200), (140, 260)):
        assert has(image, colour, x, y, x, y)
    for other in {VERMILION, ORANGE, YELLOW} - {colour}:
        assert not has(image, other, 80, 190, 180, 265)


@pytest.mark.parametrize(
    ("left", "size"),
    [(0, (60, 50)), (200, (60, 50)), (560, (60, 50)), (200, (60, 470)), (10, (600, 60))],
)
def test_no_label_covers_a_threat(left: float, size: tuple[int, int]) -> None:
    answer = threat("high", left)
    right, bottom = left + size[0], 5 + size[1]
    answer.threats_detected[0].bbox_xyxy = [left, 5, right, bottom]
    image = drawn(THREAT, answer)
    assert (image[10 : bottom - 5, int(left) + 5 : int(right) - 5] == GREY).all()
    assert has(image, ORANGE, 0, 0, WIDTH, HEIGHT)


def test_a_pets_verdict_labels_the_picture_or_the_box() -> None:
    whole = drawn(PET, pet(True))
    assert has(whole, GREEN, 5, 5, 30, 10)
    assert (whole[60:] == GREY).all()
    part = drawn(PET, pet(True), (200, 200, 400, 400))
    assert has(part, GREEN, 200, 300, 200, 300)
    assert (part[:100] == GREY).all()
    other = drawn(PET, pet(False))
    assert has(other, SKY, 5, 5, 30, 10)
    assert not has(other, GREEN, 0, 0, WIDTH, HEIGHT)


def test_answers_of_several_tasks_share_a_canvas_without_hiding_labels() -> None:
    canvas = Canvas(np.full((HEIGHT, WIDTH, 3), GREY, np.uint8))
    PET.draw(canvas, pet(True))
    POSE.draw(canvas, pose(person(100), person(110, "running", ("running",))))
    THREAT.draw(canvas, threat("medium"))
    image = np.asarray(canvas.drawn()).astype(np.int64)
    for colour in (GREEN, BLUE, VERMILION, YELLOW):
        assert ((np.abs(image - colour).max(axis=-1) < 10).sum()) > 1000  # pixels of a label


def test_only_tasks_that_draw_say_so() -> None:
    assert {name for name, task in TASKS.items() if task.draws} == {
        "pose_estimator",
        "threat_detector",
        "pet_classifier",
    }
    assert (drawn(REID, Answer()) == GREY).all()
    assert (drawn(POSE, pose()) == GREY).all()
