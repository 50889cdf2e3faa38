"""What the arms do: hands over the head, and a boxer's guard."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vision.posture import joints
from vision.posture.body import Body
from vision.posture.checks import ARMS, NEVER, Check, Checks, degrees
from vision.posture.joints import ELBOWS, HIPS, SHOULDERS, WRISTS, Vector
from vision.posture.limits import GUARD_ELBOW, GUARD_WRIST, LEVEL


def reaching_up(points: Sequence[Vector], side: int) -> Checks:
    """Checks of one arm stretched up past the head. points: in torsos."""
    wrist, elbow, shoulder = (points[joint[side]].imag for joint in (WRISTS, ELBOWS, SHOULDERS))
    return (
        Check("a wrist is {} above the head", wrist - joints.head_height(points, 1.0), "reaching up", least=0),
        Check("its elbow is {} above the shoulder", elbow - shoulder, "reaching up", least=0),
        degrees("the elbow is bent to {}", joints.elbow(points, side), "stretched", least=120),
    )


def hands_raised(points: Sequence[Vector], body: Body | None) -> Checks:
    """Checks of both hands above the head, on a torso that is not level (at most LEVEL degrees from the vertical).

    points: the 17 joints in any unit. body: None if torso or legs could not be measured.
    """
    if body is None:
        if any(joints.seen(points[hip]) for hip in HIPS):
            return NEVER  # the torso points at the camera, so up in the image is not up on the body
        return _over_head(points, joints.across(points, SHOULDERS))
    upright = degrees("the torso tilts {} from the vertical", body.tilt, "upright", most=LEVEL)
    return (*_over_head(body.points, 1.0, torsos=True), upright)


def _over_head(points: Sequence[Vector], unit: float, torsos: bool = False) -> Checks:
    # unit: the length of the torso, or the shoulders' width if the torso is unknown. It scales a head without a face.
    head, wrists = joints.head_height(points, unit), joints.heights(points, WRISTS)
    if len(wrists) < 2 or not min(wrists) > head > joints.shoulder_height(points):
        return NEVER
    text, above = "both wrists are at least {} above the head", min(wrists) - head
    if torsos:
        return (Check(text, above, "raised", least=0),)
    arm = max(abs(points[wrist] - points[one]) for wrist in WRISTS for one in SHOULDERS if joints.seen(points[one]))
    return (Check(text, above / arm if arm else math.nan, "raised", least=0, unit=ARMS),)


def guard(body: Body) -> Checks:
    """Checks of both fists at shoulder or chin height on folded arms."""
    fists = [body.points[WRISTS[side]].imag - body.points[SHOULDERS[side]].imag for side in (0, 1)]
    bent = joints.elbows(body.points)
    if len(bent) < 2:
        return NEVER
    return (
        Check("both wrists are at least {} above the shoulders", min(fists), "a guard", least=GUARD_WRIST),
        degrees("the elbows are bent to {} or less", max(bent), "a guard", most=GUARD_ELBOW),
    )
