"""People: what the network says of them, and what a caller gets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.figures import Figure
from tasks.bounding_box import corners
from tasks.picture import Picture
from tasks.pose_estimator import PoseResponse, PoseResult
from tasks.task import Options
from tests.tasks.made import ITEM, POSE, card, picture


def pose(boxes: list[list[float]], scores: list[float], keypoints: NDArray[np.float32] | None = None) -> PoseResult:
    joints = np.zeros((len(boxes), 17, 3), np.float32) if keypoints is None else keypoints
    return {"boxes": np.array(boxes, np.float32), "scores": np.array(scores, np.float32), "keypoints": joints}


def poses(asked: Picture, *results: PoseResult, min_keypoint_confidence: float | None = None) -> PoseResponse:
    options = Options(min_keypoint_confidence=min_keypoint_confidence)
    return POSE.answer(results, POSE.prepare(asked, options))


def test_a_persons_keypoints_are_17_triples() -> None:
    head = np.zeros((56, 2), np.float32)
    head[:5, 0] = 50, 50, 20, 20, 0.9
    head[5:, 0] = np.arange(51)
    result = POSE.interpret((head,), ITEM, card("pose_estimator"))
    assert result["keypoints"].shape == (1, 17, 3)
    assert result["keypoints"][0, 1].tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("labels", "counted"), [(("person", "dog"), [0.9]), (("a", "b"), [0.9, 0.8]), (("dog", "Person"), [0.8])]
)
def test_of_several_classes_those_called_person_are_persons(labels: tuple[str, ...], counted: list[float]) -> None:
    head = np.zeros((57, 2), np.float32)
    head[:4] = np.array([[50, 50, 20, 20], [150, 50, 20, 20]]).T
    head[4:6] = np.diag([0.9, 0.8])
    of_two = replace(card("pose_estimator"), labels=labels)
    result = POSE.interpret((head,), ITEM, of_two)
    assert result["scores"].tolist() == pytest.approx(counted)
    assert len(result["boxes"]) == len(result["keypoints"]) == len(counted)


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


def test_min_keypoint_confidence_decides_which_joints_are_listed_and_not_the_posture() -> None:
    joints = np.zeros((1, 17, 3), np.float32)
    joints[0, :, 2] = np.linspace(0.125, 0.875, 17)
    result = pose([[0, 0, 100, 200]], [0.9], joints)
    answers = {limit: poses(picture(640, 640), result, min_keypoint_confidence=limit) for limit in (0, 0.3, 0.875)}
    assert {limit: len(answer.keypoints) for limit, answer in answers.items()} == {0: 17, 0.3: 13, 0.875: 1}
    assert len(poses(picture(640, 640), result).keypoints) == 9  # from 0.5, as documented
    standing = Figure().seen()[None]
    for confidence, posture in ((0.9, "standing"), (0.3, "unknown")):
        standing[..., 2] = confidence
        seen = pose([[0, 0, 100, 200]], [0.9], standing)
        for limit in (0.1, 0.95):
            answer = poses(picture(640, 640), seen, min_keypoint_confidence=limit)
            assert (answer.posture, len(answer.keypoints)) == (posture, 17 if confidence >= limit else 0)


def test_each_alert_of_each_person_says_why() -> None:
    joints = np.stack((Figure().seen(), Figure(torso=-90, thigh=(85, 85)).seen()))
    boxes: list[list[float]] = [[250, 100, 350, 600], [50, 300, 600, 450]]
    answer = poses(picture(640, 640), pose(boxes, [0.9, 0.95], joints))
    first, second = answer.persons
    assert (first.posture, first.alerts, second.alerts) == ("lying_down", ["lying_down"], [])
    assert [detail.alert for detail in first.alert_details] == first.alerts
    assert 0 < first.alert_details[0].confidence <= 0.9
    assert "(lying: 60 to 120°)" in first.alert_details[0].reason
    assert (answer.alerts, answer.alert_details) == (first.alerts, first.alert_details)
    assert second.alert_details == []
    assert second.posture_reason.startswith("the torso tilts 0° from the vertical (upright")


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


@pytest.mark.parametrize("apart", [-2.0, -0.5, 0.5, 2.0])
def test_a_person_whom_each_tile_places_beyond_the_seam_is_not_lost(apart: float) -> None:
    prepared = POSE.prepare(picture(5400, 1080), Options())
    # The border is at 1540, in the middle of two tiles from 0 and 1160, which are scaled to a third.
    left, right = (1540 + apart) / 3, (1540 - apart - 1160) / 3
    results = [pose([[x - 15, 112, x + 15, 212]], [0.9]) for x in (left, right)] + [pose([], []), pose([], [])]
    for result in results[2:]:
        result["boxes"] = result["boxes"].reshape(0, 4)
    assert POSE.answer(results, prepared).num_people == 1
