"""Alerts on real pictures with the real weights: hard negatives raise none, and a person who lies raises a sure one."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from benchmarks.postures import FALSE_ALARMS
from tasks.pipeline import read
from tasks.pose_estimator import PoseResponse
from tests.parity.conftest import Make
from vision.arrays import RGB

pytestmark = pytest.mark.weights

# By IMAGES.md and by looking at them: bent over, upside down, a plank, on the floor, on foot near and far, on bicycles.
HARD_NEGATIVES = (
    "pose_bent_forward.jpg",
    "pose_inverted.jpg",
    "pose_plank_large.jpg",
    "pose_sitting.jpg",
    "pose_sitting_arms_raised_back.jpg",
    "pose_standing_arms_raised.jpg",
    "bus.jpg",
    "street_crowd.jpg",
    "street_mot17_02.jpg",
    "cyclists_backlit.jpg",
)


def seen(make: Make, image: RGB) -> PoseResponse:
    ((_, answer),) = make("pose_estimator", "openvino", "f32").run([image])
    return cast(PoseResponse, answer)


def views(path: Path) -> list[RGB]:
    """The picture, its mirror image and the picture at half its size."""
    image = read(path)
    half = Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2), Image.Resampling.BOX)
    return [image, np.ascontiguousarray(image[:, ::-1]), np.asarray(half)]


@pytest.mark.parametrize("name", HARD_NEGATIVES)
def test_nobody_in_a_hard_negative_lies_or_crouches(make: Make, shared: Path, name: str) -> None:
    for view in views(shared / "images" / name):
        answer = seen(make, view)
        assert answer.persons
        assert not FALSE_ALARMS & {alert for person in answer.persons for alert in person.alerts}


def test_a_person_who_lies_is_an_alert_with_its_reason(make: Make, shared: Path) -> None:
    for view in views(shared / "images" / "pose_lying.jpg"):
        answer = seen(make, view)
        (detail,) = answer.alert_details
        legs = [point.confidence for point in answer.keypoints if point.name.endswith(("_hip", "_knee", "_ankle"))]
        assert answer.alerts == [detail.alert] == ["lying_down"]
        assert 0.25 <= detail.confidence <= min(legs)
        assert detail.reason.startswith("the torso tilts ")
        assert answer.alert_details == answer.persons[0].alert_details
