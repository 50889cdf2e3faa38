from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from settings import DEFAULT_FILE, load
from tasks.detection import BoundingBox
from tasks.pet_classifier import PetClassifier
from tasks.picture import Picture
from tasks.pose_estimator import PoseEstimator, PoseResponse, PoseResult
from tasks.task import Options
from tasks.threat_detector import ThreatDetector, ThreatResponse, ThreatResult, severity
from tests.serving.fake import PET_INPUT
from vision.arrays import Box
from vision.errors import BoxOutside

MODELS = load(DEFAULT_FILE, {}).models
POSE = PoseEstimator(MODELS.pose_estimator)
THREAT = ThreatDetector(MODELS.threat_detector)
PET = PetClassifier(MODELS.pet_classifier)


@pytest.mark.parametrize(
    ("label", "level"),
    [
        ("Gun", "critical"),
        ("handgun", "critical"),
        ("Assault Rifle", "critical"),
        ("grenade", "critical"),
        ("explosion", "critical"),
        ("explosive", "critical"),
        ("knife", "high"),
        ("Kitchen Knives", "high"),
        ("machete", "high"),
        ("baseball bat", "medium"),
        ("class 7", "medium"),
    ],
)
def test_the_severity_goes_by_the_checkpoints_name(label: str, level: str) -> None:
    assert severity(label) == level


def picture(width: int, height: int, box: Box | None = None) -> Picture:
    return Picture.of(np.zeros((height, width, 3), np.uint8), box)


def pose(boxes: list[list[float]], scores: list[float], keypoints: NDArray[np.float32] | None = None) -> PoseResult:
    joints = np.zeros((len(boxes), 17, 3), np.float32) if keypoints is None else keypoints
    return {"boxes": np.array(boxes, np.float32), "scores": np.array(scores, np.float32), "keypoints": joints}


def poses(asked: Picture, *results: PoseResult, min_keypoint_confidence: float | None = None) -> PoseResponse:
    options = Options(min_keypoint_confidence=min_keypoint_confidence)
    return POSE.answer(results, POSE.prepare(asked, options))


def corners(box: BoundingBox) -> tuple[float, float, float, float]:
    return box.x, box.y, box.x + box.width, box.y + box.height


def test_the_most_prominent_person_comes_first() -> None:
    boxes: list[list[float]] = [[0, 0, 100, 100], [0, 0, 300, 300], [200, 200, 500, 500], [600, 600, 600, 600]]
    answer = poses(picture(640, 640), pose(boxes, [0.95, 0.5, 0.4, 0.9]))
    assert [person.confidence for person in answer.persons] == [0.5, 0.4, 0.95, 0.9]  # score × area


def test_what_reaches_beyond_the_image_ends_at_its_edge() -> None:
    joints = np.full((1, 17, 3), 0.9, np.float32) * np.array([-50, 2000, 1], np.float32)
    (person,) = poses(picture(640, 480), pose([[-20, -20, 700, 330]], [0.9], joints)).persons
    assert corners(person.bbox) == (0, 0, 640, 330)
    assert {(point.x, point.y) for point in person.keypoints} == {(0, 480)}


def test_a_person_beside_the_box_is_seen_and_not_reported() -> None:
    # The view is the square of 640 pixels around the box: the network's pixels are the image's, moved by 660 and 670.
    inside, half, beside = [300.0, 280, 340, 370], [240.0, 280, 398, 370], [400.0, 280, 440, 370]
    asked = picture(1920, 1920, (940, 940, 1020, 1040))
    answer = poses(asked, pose([inside, half, beside], [0.9, 0.8, 0.7]))
    assert [corners(person.bbox) for person in answer.persons] == [(900, 950, 1058, 1040), (960, 950, 1000, 1040)]


def test_a_crop_sent_with_its_box_in_the_frame_is_looked_at_whole() -> None:
    for box in ((700.0, 400, 780, 640), (700.4, 401, 781.9, 639.5)):  # of 80×240 pixels to within two
        asked = picture(80, 240, box)
        assert (asked.part.shape, asked.frame.box, asked.is_crop) == ((240, 80, 3), None, True)
        # 640×640 with the crop in its middle: the network's pixels are the crop's, moved by 280 and 200.
        (person,) = poses(asked, pose([[280, 200, 360, 440]], [0.9])).persons
        assert corners(person.bbox) == (0, 0, 80, 240)


def test_a_box_that_is_the_image_itself_does_not_make_it_a_crop() -> None:
    asked = picture(640, 480, (0, 0, 640, 480))
    assert (asked.frame.box, asked.is_crop) == (None, False)


def test_a_box_of_another_size_outside_the_image_is_refused() -> None:
    with pytest.raises(BoxOutside):
        picture(80, 240, (700, 400, 780, 643))


def test_min_keypoint_confidence_decides_which_joints_are_listed_and_not_the_posture() -> None:
    joints = np.zeros((1, 17, 3), np.float32)
    joints[0, :, 2] = np.linspace(0.125, 0.875, 17)
    result = pose([[0, 0, 100, 200]], [0.9], joints)
    answers = {limit: poses(picture(640, 640), result, min_keypoint_confidence=limit) for limit in (0, 0.3, 0.875)}
    assert {limit: len(answer.keypoints) for limit, answer in answers.items()} == {0: 17, 0.3: 13, 0.875: 1}
    assert len(poses(picture(640, 640), result).keypoints) == 9  # from 0.5, as documented
    assert {answer.posture for answer in answers.values()} == {"unknown"}


def test_a_person_on_the_seam_of_two_tiles_is_one_person() -> None:
    asked = picture(5400, 1080)
    prepared = POSE.prepare(asked, Options())
    assert len(prepared.items) == 4
    assert {item["image"].shape for item in prepared.items} == {(384, 640, 3)}
    # Tiles of 1920 begin at 0, 1160, 2320 and 3480; scaled to a third and 12 pixels down. Their border is at 1540.
    results = [pose([[500, 112, 530, 212]], [0.8]), pose([[114, 112, 143, 212]], [0.9]), pose([], []), pose([], [])]
    for result in results[2:]:
        result["boxes"] = result["boxes"].reshape(0, 4)
    answer = POSE.answer(results, prepared)
    (person,) = answer.persons
    assert corners(person.bbox) == pytest.approx((1500, 300, 1590, 600), abs=3)


def threats(asked: Picture, *results: ThreatResult) -> ThreatResponse:
    return THREAT.answer(results, THREAT.prepare(asked, Options()))


def test_a_weapon_that_reaches_out_of_the_box_is_reported_and_one_beside_it_is_not() -> None:
    reaching, beside = [340.0, 300, 460, 310], [400.0, 300, 440, 400]
    result: ThreatResult = {
        "boxes": np.array([reaching, beside], np.float32),
        "scores": np.array([0.9, 0.8], np.float32),
        "labels": ["Gun", "knife"],
    }
    answer = threats(picture(1920, 1920, (940, 940, 1040, 1040)), result)
    assert [threat.label for threat in answer.threats_detected] == ["Gun"]
    assert answer.max_confidence == 0.9


def test_a_threat_has_its_name_under_every_key_that_callers_read() -> None:
    result: ThreatResult = {
        "boxes": np.array([[10, 20, 110, 220]], np.float32),
        "scores": np.array([0.87], np.float32),
        "labels": ["knife"],
    }
    (threat,) = threats(picture(640, 640), result).model_dump()["threats_detected"]
    assert (threat["class"], threat["class_name"], threat["type"]) == ("knife",) * 3
    assert threat["bbox"] == {"x": 10, "y": 20, "width": 100, "height": 200}
    assert threat["bbox_xyxy"] == [10, 20, 110, 220]


def test_threats_of_different_names_in_one_place_of_a_panorama_both_stay() -> None:
    empty: ThreatResult = {"boxes": np.zeros((0, 4), np.float32), "scores": np.zeros(0, np.float32), "labels": []}
    both: ThreatResult = {
        "boxes": np.array([[100, 112, 200, 212], [100, 112, 200, 212]], np.float32),
        "scores": np.array([0.9, 0.8], np.float32),
        "labels": ["knife", "Gun"],
    }
    answer = threats(picture(5400, 1080), both, empty, empty, empty)
    assert [threat.label for threat in answer.threats_detected] == ["knife", "Gun"]


@pytest.mark.parametrize(
    ("probabilities", "kind", "pet"),
    [
        ({"cats": 0.999, "dogs": 0.001}, "cat", True),
        ({"Dog": 0.999, "Cat": 0.001}, "dog", True),
        ({"cat": 0.99, "dog": 0.01}, "cat", False),
        ({"raccoon": 0.999, "cat": 0.001}, "raccoon", False),
    ],
)
def test_a_household_pet_is_a_cat_or_a_dog_beyond_doubt(probabilities: dict[str, float], kind: str, pet: bool) -> None:
    answer = PET.answer([{"probabilities": probabilities}], PET.prepare(picture(64, 64), Options(), PET_INPUT))
    assert (answer.pet_type, answer.is_household_pet) == (kind, pet)
    assert answer.confidence == max(probabilities.values())
    species = {label.lower().rstrip("s"): value for label, value in probabilities.items()}
    assert (answer.cat_score, answer.dog_score) == (species.get("cat", 0), species.get("dog", 0))
