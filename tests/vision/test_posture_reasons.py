"""Why an alert was given, and how firmly."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.figures import Figure, Keypoints
from benchmarks.postures import KINDS
from tests.vision.test_posture import (
    ARMS_UP,
    EXPECTED,
    FIGURES,
    GUARDED,
    HALF_CROUCHED,
    ON_ALL_FOURS,
    ON_THE_BACK,
    RUNNING,
    SITTING,
    STANDING,
    hide,
)
from vision.posture import KEYPOINT_NAMES, Alert, Posture, assess
from vision.posture.assessment import confidence
from vision.posture.checks import Check, degrees, sentence

ALARMING = {
    Alert.LYING_DOWN: ON_THE_BACK,
    Alert.CROUCHING: HALF_CROUCHED,
    Alert.CRAWLING: ON_ALL_FOURS,
    Alert.RUNNING: RUNNING,
    Alert.HANDS_RAISED: ARMS_UP,
    Alert.FIGHTING_STANCE: GUARDED,
}
# Joints that no answer about this alert could do without.
DECISIVE = {
    Alert.LYING_DOWN: ("shoulder", "hip", "knee", "ankle"),
    Alert.CROUCHING: ("shoulder", "hip", "knee", "ankle"),
    Alert.CRAWLING: ("shoulder", "hip", "knee", "ankle", "wrist"),
    Alert.RUNNING: ("shoulder", "hip", "knee", "ankle", "elbow"),
    Alert.HANDS_RAISED: ("shoulder", "wrist"),
    Alert.FIGHTING_STANCE: ("shoulder", "elbow", "wrist", "ankle"),
}
EACH = pytest.mark.parametrize("alert", ALARMING)


def detail_of(keypoints: Keypoints, alert: Alert) -> tuple[float, str]:
    (detail,) = (one for one in assess(keypoints).details if one.alert == alert)
    return detail.confidence, detail.reason


@FIGURES
def test_each_alert_has_a_detail_in_the_same_order(name: str) -> None:
    answer = assess(EXPECTED[name][0].seen())
    assert tuple(detail.alert for detail in answer.details) == answer.alerts
    for detail in answer.details:
        assert 0 < detail.confidence <= 0.9
        assert re.search(r"\d", detail.reason)


def test_two_alerts_have_two_reasons() -> None:
    squat = Figure(torso=20, thigh=(105, 105), knee=(130, 130), spread=15, arm=(178, 178))
    first, second = assess(squat.seen()).details
    assert (first.alert, second.alert) == (Alert.CROUCHING, Alert.HANDS_RAISED)
    assert "hips" in first.reason
    assert "wrists" in second.reason


def test_a_reason_says_measures_and_limits() -> None:
    _, reason = detail_of(ON_THE_BACK.seen(), Alert.LYING_DOWN)
    assert reason == (
        "the torso tilts 90° from the vertical (lying: 60 to 120°), "
        "the line from ankles to shoulders tilts 86° (lying: 60 to 120°), "
        "and the angle between torso and thighs is 175° (lying: from 60°)"
    )


@EACH
def test_no_alert_is_firmer_than_its_weakest_decisive_joint(alert: Alert) -> None:
    for part in DECISIVE[alert]:
        for joint in (index for index, name in enumerate(KEYPOINT_NAMES) if name.endswith(part)):
            keypoints = ALARMING[alert].seen()
            keypoints[joint, 2] = 0.55
            assert detail_of(keypoints, alert)[0] <= 0.55


@EACH
def test_surer_joints_make_a_firmer_alert(alert: Alert) -> None:
    found = []
    for sure in np.linspace(0.5, 1, 11):
        keypoints = ALARMING[alert].seen()
        keypoints[:, 2] = sure
        found.append(detail_of(keypoints, alert)[0])
        assert found[-1] <= sure
    assert found == sorted(found)
    assert found[-1] > found[0]


@pytest.mark.parametrize(
    ("alert", "far", "near"),
    [
        (Alert.LYING_DOWN, ON_THE_BACK, replace(ON_THE_BACK, torso=-65.0)),
        (Alert.CROUCHING, HALF_CROUCHED, replace(HALF_CROUCHED, knee=(132.0, 132.0), thigh=(60.0, 60.0), torso=20.0)),
        (Alert.HANDS_RAISED, ARMS_UP, replace(ARMS_UP, arm=(152.0, 152.0), elbow=(125.0, 125.0))),
    ],
)
def test_a_measure_nearer_to_its_limit_makes_a_weaker_alert(alert: Alert, far: Figure, near: Figure) -> None:
    """From one figure to the other by small steps."""
    found = []
    for share in np.linspace(0, 1, 21):
        mixed: dict[str, Any] = {
            name: tuple(np.array(value) * (1 - share) + np.array(getattr(near, name)) * share)
            if isinstance(value, tuple)
            else value * (1 - share) + getattr(near, name) * share
            for name, value in vars(far).items()
        }
        details = {detail.alert: detail for detail in assess(Figure(**mixed).seen(turn=5)).details}
        if alert not in details:
            break
        found.append(details[alert].confidence)
    assert len(found) >= 5
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]


def test_the_formula() -> None:
    at_limit, clear, between = (degrees("tilts {}", 60 + more, "lying", least=60) for more in (0, 20, 10))
    assert confidence(0.8, [clear]) == pytest.approx(0.8, abs=1e-4)
    assert confidence(0.8, [at_limit]) == pytest.approx(0.4, abs=1e-4)
    assert confidence(0.8, [clear, between]) == pytest.approx(0.6, abs=1e-4)
    assert confidence(0.8, [clear], [[degrees("", 55, "", least=60), clear]]) == pytest.approx(0.5, abs=1e-4)
    assert confidence(7.0, [clear]) == 1


@pytest.mark.parametrize("sure", [0.5001, 0.87654, 0.99999])
def test_a_confidence_is_rounded_down(sure: float) -> None:
    assert sure - 1e-4 <= confidence(sure, []) <= sure


@pytest.mark.parametrize(
    ("hidden", "reason"),
    [
        (("hip",), "no side shows both its shoulder and its hip"),
        (("left_shoulder", "right_hip"), "no side shows both its shoulder and its hip"),
        (("knee",), "no knee is visible on the side of a visible hip"),
        (("left_hip", "right_knee"), "no knee is visible on the side of a visible hip"),
        (("ankle",), "no ankle is visible below a visible knee, and the thighs are ambiguous"),
    ],
)
def test_an_unknown_posture_says_what_is_missing(hidden: tuple[str, ...], reason: str) -> None:
    answer = assess(hide(SITTING.seen(turn=90), *hidden))
    assert (answer.posture, answer.reason) == (Posture.UNKNOWN, reason)


def test_an_ambiguous_view_says_what_is_ambiguous() -> None:
    bent = assess(EXPECTED["bent over"][0].seen(turn=90))
    assert bent.reason == "the torso points at the camera: the shoulders are 2.7 torsos wide"
    assert "neither upright nor lying" in assess(EXPECTED["slanted plank"][0].seen()).reason
    assert "points down" in assess(EXPECTED["hanging upside down"][0].seen()).reason


def test_every_answer_about_any_figure_has_a_reason_and_details_in_range() -> None:
    random = np.random.default_rng(3)
    for kind in KINDS:
        for _ in range(25):
            keypoints = kind.draw(random)
            keypoints[random.random(17) < random.random(), 2] = 0
            answer = assess(keypoints)
            assert answer.reason
            assert "nan" not in answer.reason
            assert "{" not in answer.reason
            assert tuple(detail.alert for detail in answer.details) == answer.alerts
            strongest = keypoints[:, 2].max()
            assert all(0 < detail.confidence <= strongest for detail in answer.details)


@FIGURES
def test_reason_and_confidence_do_not_depend_on_scale_or_place(name: str) -> None:
    keypoints = EXPECTED[name][0].seen()
    moved = keypoints.copy()
    moved[:, :2] = moved[:, :2] * 3 + 500
    one, other = assess(keypoints), assess(moved)
    assert re.sub(r"[\d.]+", "", one.reason) == re.sub(r"[\d.]+", "", other.reason)
    for first, second in zip(one.details, other.details, strict=True):
        assert first.confidence == pytest.approx(second.confidence, abs=2e-3)


def test_hands_raised_of_an_upper_body_are_measured_in_arms() -> None:
    upper_body = hide(ARMS_UP.seen(turn=90), "hip", "knee", "ankle")
    for shown in (upper_body, hide(upper_body, "left_shoulder")):
        found, reason = detail_of(shown, Alert.HANDS_RAISED)
        assert "arm lengths above the head" in reason
        assert 0.45 < found <= 0.9


def test_a_check_of_an_unknown_measure_fails() -> None:
    assert Check("{}", math.nan, "").slack == -math.inf
    assert sentence([]) == ""
    assert assess(STANDING.seen()).details == ()
