"""Checks of what the legs and the whole body do, that the rules are made of."""

from __future__ import annotations

import math
from typing import Final

from vision.posture import joints
from vision.posture.body import Body, Leg
from vision.posture.checks import NEVER, Check, Checks, best, degrees, met
from vision.posture.joints import ANKLES, SHOULDERS, WRISTS
from vision.posture.limits import (
    BACK_SHIN,
    BENT_HIPS,
    BENT_KNEES,
    FLAT_SHIN,
    FOLDED_KNEE,
    KNEELING_REACH,
    LONG_SHIN,
    LOW_THIGH,
    PLANK_ARMS,
    SPLIT_STRIDE,
    SPLIT_THIGHS,
    STRAIGHT,
    STRIDE,
)

# The measures in words.
TILT: Final = "the torso tilts {} from the vertical"
REACH: Final = "the hips are {} above the ankles"
DROP: Final = "the knees are {} below the hips"
HIP: Final = "the angle between torso and thighs is {}"
AHEAD: Final = "the lead of the feet over the centre of mass is {}"


def feet_apart(body: Body) -> Check:
    """The check of feet apart, as in a step seen from the side."""
    # Feet no wider apart than the shoulders are a stance seen from the front. With an unseen shoulder, only STRIDE
    # counts.
    shoulders = joints.across(body.points, SHOULDERS)
    least = STRIDE if math.isnan(shoulders) else max(STRIDE, shoulders)
    return Check("the ankles are {} apart across the image", joints.across(body.points, ANKLES), "a stride", least)


def running(body: Body) -> Checks:
    """Checks of a leg folded up behind or thighs far apart, with at least one elbow bent, if any is seen."""
    stride = feet_apart(body)
    if len(body.legs) < 2 or not met([stride]):
        return NEVER
    split = [
        degrees(
            "the thighs are {} apart", joints.angle(body.legs[0].thigh, body.legs[1].thigh), "running", SPLIT_THIGHS
        ),
        Check("the ankles are {} apart across the image", joints.across(body.points, ANKLES), "running", SPLIT_STRIDE),
    ]
    bent = joints.elbows(body.points)
    elbow = [degrees("an elbow is bent to {}", min(bent), "running", most=130)] if bent else []
    on_foot = Check(REACH, body.max_reach, "on foot", least=KNEELING_REACH)
    return [on_foot, stride, *best([split, *map(_folded_up, body.legs)]), *elbow]


def _folded_up(leg: Leg) -> Checks:
    return [
        degrees("a shin tilts {} from straight down", 180 - joints.tilt(leg.shin), "folded up", least=BACK_SHIN),
        Check("the shin is {} long across the image", abs(leg.shin.real), "folded up", least=LONG_SHIN),
        degrees("the knee is bent to {}", leg.knee, "folded up", most=FOLDED_KNEE),
    ]


def kneeling(body: Body) -> Checks:
    """Checks of low hips over a vertical thigh and a shin on the floor, where no leg stands on its foot."""
    low = Check(REACH, body.max_reach, "kneeling", most=KNEELING_REACH)
    if not met([low]):
        return [low]
    ways = [_on_knee(leg, body) for leg in body.legs]
    if len(body.thighs) == 2 and not all(map(met, ways)):
        steps = min(leg.drop for leg in body.thighs)
        return [low, *best(ways), Check("the other knee is {} below the hip", steps, "a raised leg", most=LOW_THIGH)]
    return [low, *best(ways)]


def _on_knee(leg: Leg, body: Body) -> Checks:
    # The shin must point backwards: a shin under the other knee is a crossed leg.
    forwards = max(other.thigh.real * leg.shin.real for other in body.legs)
    return [
        Check("a knee is {} below its hip", leg.drop, "on a knee", least=LOW_THIGH),
        degrees("its thigh tilts {} from the vertical", 180 - joints.tilt(leg.thigh), "upright", most=35),
        Check("its shin is {} long across the image", abs(leg.shin.real), "on the floor", least=0.5),
        Check("its shin is {} high", abs(leg.shin.imag), "on the floor", most=FLAT_SHIN),
        Check("its shin points {} towards a knee", forwards, "backwards", most=0.2),
    ]


def crawling(body: Body) -> Checks:
    """Checks of a knee on the floor, and the hands below the shoulders, if any is seen."""
    on_knees = best(
        [
            Check("a knee is {} below its hip", leg.drop, "on a knee", least=LOW_THIGH),
            Check("its shin is {} high", abs(leg.shin.imag), "on the floor", most=FLAT_SHIN),
        ]
        for leg in body.legs
    )
    wrists = [body.torso.imag - height for height in joints.heights(body.points, WRISTS)]
    hands = [Check("the hands are {} below the shoulders", min(wrists), "on the floor", least=0.4)] if wrists else []
    return [*on_knees, *hands]


def bent_legs(body: Body) -> Checks:
    """Checks of both legs bent: one bent leg may climb a stair."""
    knee = max(leg.knee for leg in body.legs) if len(body.legs) == 2 else math.nan
    return [
        degrees("the straighter knee is bent to {}", knee, "bent", most=BENT_KNEES),
        degrees(HIP, body.mean.hip, "bent", most=BENT_HIPS),
    ]


def plank(body: Body) -> Checks:
    """Checks of a straight body above its hands or elbows."""
    return [
        degrees("the angles at hips and knees are at least {}", body.straightness, "straight", least=STRAIGHT),
        Check("the arms reach {} below the shoulders", body.arms_below, "a plank", least=PLANK_ARMS),
    ]
