"""One person's posture and alerts, with a confidence and a reason for each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vision.posture import joints
from vision.posture.arms import guard, hands_raised
from vision.posture.body import Body, measure
from vision.posture.checks import Check, Checks, met, sentence, slack
from vision.posture.joints import ELBOWS, FACE, HIPS, SHOULDERS, WRISTS
from vision.posture.legs import feet_apart
from vision.posture.rules import Judgement, Posture, judge


class Alert(StrEnum):
    """Postures and gestures that a guard wants to know about."""

    CROUCHING = "crouching"
    CRAWLING = "crawling"
    LYING_DOWN = "lying_down"
    HANDS_RAISED = "hands_raised"
    RUNNING = "running"
    FIGHTING_STANCE = "fighting_stance"


@dataclass(frozen=True)
class AlertDetail:
    """Why an alert was given. confidence: 0…1, see `confidence`. reason: the measures and their limits, in words."""

    alert: Alert
    confidence: float
    reason: str


@dataclass(frozen=True)
class Assessment:
    """One person's posture and alerts. The alerts have the order of `Alert`.

    details: one for each alert, in the same order. reason: what the posture rests on, or why it is UNKNOWN. Neither
    counts when assessments are compared.
    """

    posture: Posture
    alerts: tuple[Alert, ...]
    details: tuple[AlertDetail, ...] = field(default=(), compare=False)
    reason: str = field(default="", compare=False)


_ON_FOOT: Final = (Posture.STANDING, Posture.WALKING, Posture.RUNNING, Posture.CROUCHING)
_ARMS: Final = SHOULDERS + ELBOWS + WRISTS


def assess(keypoints: NDArray[np.float32], min_confidence: float = 0.5) -> Assessment:
    """Judge one person's posture. The answer does not depend on scale, place in the frame or mirroring.

    keypoints: (17, 3) in the order of `KEYPOINT_NAMES`: x, y in pixels of the upright image (y down), confidence 0…1.
    A joint counts if its confidence is positive and at least `min_confidence`, and its three numbers are finite.
    Raises ValueError for another shape.

    A posture needs a shoulder and a hip of one side, and a knee with its hip. With less it is UNKNOWN. So are
    ambiguous views: a torso pointing at the camera, a straight body at a slant, upside down or over its hands.
    Bent legs with the hands at a foot are BENDING: somebody ties a shoe.

    One image shows no motion. Strides towards the camera count as STANDING, a jog as WALKING. A person who sits facing
    a high camera may count as STANDING.

    Raised hands need only shoulders and wrists, on a torso that is not level.
    """
    points, confidences = joints.visible_points(keypoints, min_confidence)
    measured = measure(points)
    body = measured if isinstance(measured, Body) else None
    found = judge(body) if body else Judgement(Posture.UNKNOWN, reason=str(measured))
    used = body.used if body else ()

    details: dict[str, AlertDetail] = {}

    def alert(name: str, checks: Checks, rested_on: Iterable[int], against: Iterable[Checks] = ()) -> None:
        weakest = min(confidences[joint] for joint in rested_on if joints.seen(points[joint]))
        details[name] = AlertDetail(Alert(name), confidence(weakest, checks, against), sentence(checks))

    if found.posture.value in {*Alert}:  # a posture is an alert if Alert has its name
        alert(found.posture, found.checks, (*used, *found.more), found.against)
    if met(raised := hands_raised(points, body)):
        alert(Alert.HANDS_RAISED, raised, FACE + SHOULDERS + WRISTS + HIPS)
    elif body and found.posture in _ON_FOOT and met(fists := (*guard(body), feet_apart(body))):
        alert(Alert.FIGHTING_STANCE, fists, (*used, *_ARMS))
    given = tuple(one for one in Alert if one in details)
    reason = found.reason or sentence(found.checks)
    return Assessment(found.posture, given, tuple(details[one] for one in given), reason)


def confidence(weakest: float, checks: Iterable[Check], against: Iterable[Checks] = ()) -> float:
    """How firmly an alert is given, 0…1: weakest · (½ + ½ · min(1, slack)), rounded down to four digits.

    weakest: the least confidence of a joint that the alert rests on. slack: the least distance of a measure to its
    limit, as a share of the distance that is clear: 20° or 0.2 torsos. So it is never above `weakest`, and half of
    that at a limit. It grows with both. It is not a calibrated probability.
    """
    least = min(slack(checks), *(-slack(other) for other in against), 1.0)
    return math.floor(min(1.0, weakest) * (0.5 + 0.5 * least) * 1e4) / 1e4
