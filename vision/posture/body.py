"""The measures of a body: tilt of the torso, angles and drops of the legs, in torsos and degrees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from vision.posture import joints
from vision.posture.joints import ANKLES, ELBOWS, HIPS, KNEES, SHOULDERS, WRISTS, Vector

FORESHORTENED: Final = 1.3  # shoulder width, normally up to 0.82; above this the torso points at the camera
SHOULDER_WIDTH: Final = 0.7  # between the joints, seen from the front
# Winter's shares of body mass (head, arms and trunk; thighs; shins and feet), each with its centre along the segment.
_TRUNK_MASS, _THIGH_MASS, _SHIN_MASS = (0.678, 0.626), (0.200, 0.433), (0.122, 0.606)


class Leg(NamedTuple):
    """One leg, or the mean of several."""

    thigh: Vector  # hip to knee, in torsos
    shin: Vector  # knee to ankle
    hip: float  # angle between torso and thigh; 180 is straight
    knee: float  # angle between thigh and shin; 180 is straight
    reach: float  # how far the ankle is below the hip
    drop: float  # how far the knee is below the hip


@dataclass(frozen=True)
class Body:
    """A measured body. used: the joints that torso and legs were measured by."""

    points: Sequence[Vector]  # the 17 joints, in torsos, mid-hip at the origin
    torso: Vector  # mid-hip to mid-shoulder, of length 1
    tilt: float  # of the torso against the vertical
    legs: tuple[Leg, ...]  # those with a visible ankle
    thighs: tuple[Leg, ...]  # all with a visible knee
    used: tuple[int, ...]

    @property
    def max_reach(self) -> float:
        return max(leg.reach for leg in self.legs)

    @property
    def max_drop(self) -> float:
        return max(leg.drop for leg in self.thighs)

    @cached_property
    def mean(self) -> Leg:
        return Leg(*(sum(values) / len(values) for values in zip(*self.legs, strict=True)))

    @property
    def slope(self) -> float:
        """Tilt of the line from the ankles to the shoulders."""
        return joints.tilt(self.torso - self.mean.thigh - self.mean.shin)

    @property
    def straightness(self) -> float:
        """Smaller mean angle of hips and knees; without ankles, the smallest hip angle. In degrees; 180 = straight."""
        return min(self.mean.hip, self.mean.knee) if self.legs else min(leg.hip for leg in self.thighs)

    @property
    def scale(self) -> float:
        """The torso's full length: more than 1 where the shoulders' width shows that it leans towards the camera."""
        width = joints.across(self.points, SHOULDERS)
        return max(1.0, width / SHOULDER_WIDTH) if math.isfinite(width) else 1.0

    @property
    def from_behind(self) -> float:
        """How far the left shoulder is to the left of the right one; NaN if one is unseen."""
        return self.points[SHOULDERS[1]].real - self.points[SHOULDERS[0]].real

    @property
    def arms_below(self) -> float:
        """Mean drop of the hands below the shoulders, in torsos. An elbow stands for an unseen hand; NaN = no arm."""
        ends = [
            joints.heights(self.points, (wrist,)) or joints.heights(self.points, (elbow,))
            for wrist, elbow in zip(WRISTS, ELBOWS, strict=True)
        ]
        seen = [height for end in ends for height in end]
        return self.torso.imag - sum(seen) / len(seen) if seen else math.nan

    @property
    def hands_to_foot(self) -> float:
        """Distance from between the hands to the nearest ankle, in full torsos; NaN without hands."""
        hands = [self.points[wrist] for wrist in WRISTS if joints.seen(self.points[wrist])]
        feet = [self.points[ankle] for ankle in ANKLES if joints.seen(self.points[ankle])]
        return min(abs(joints.mean(hands) - foot) for foot in feet) / self.scale if hands else math.nan

    @property
    def ahead(self) -> float:
        """How far the feet are from the centre of mass, towards the knees."""
        thigh, shin = self.mean.thigh.real, self.mean.shin.real
        trunk = _TRUNK_MASS[0] * _TRUNK_MASS[1] * self.torso.real
        centre = trunk + _THIGH_MASS[0] * _THIGH_MASS[1] * thigh + _SHIN_MASS[0] * (thigh + _SHIN_MASS[1] * shin)
        return (thigh + shin - centre) * ((thigh > 0) - (thigh < 0))


def measure(points: Sequence[Vector]) -> Body | str:
    """Measure a body, or say why it can't be."""
    # Only sides with both ends: a shoulder and the hip of the other side would give a false tilt.
    sides = [side for side in (0, 1) if joints.seen(points[SHOULDERS[side]]) and joints.seen(points[HIPS[side]])]
    if not sides:
        return "no side shows both its shoulder and its hip"
    hip = joints.mean([points[HIPS[side]] for side in sides])
    torso = joints.mean([points[SHOULDERS[side]] for side in sides]) - hip
    length, width = math.hypot(torso.real, torso.imag), joints.across(points, SHOULDERS)
    if length == 0:
        return "shoulders and hips are at the same place"
    if width > FORESHORTENED * length:
        return f"the torso points at the camera: the shoulders are {width / length:.1f} torsos wide"
    points, torso = [(point - hip) / length for point in points], torso / length
    legs = tuple(_legs(points, torso))
    used = [joint for side in sides for joint in (SHOULDERS[side], HIPS[side])]
    used += [joint for side, leg in enumerate(legs) if math.isfinite(leg.hip) for joint in (HIPS[side], KNEES[side])]
    used += [ANKLES[side] for side, leg in enumerate(legs) if math.isfinite(leg.knee)]
    thighs = tuple(leg for leg in legs if math.isfinite(leg.hip))
    with_shin = tuple(leg for leg in thighs if math.isfinite(leg.knee))
    return Body(points, torso, joints.tilt(torso), with_shin, thighs, tuple(used))


def _legs(points: Sequence[Vector], torso: Vector) -> Iterator[Leg]:
    for hip, knee, ankle in zip(HIPS, KNEES, ANKLES, strict=True):
        thigh, shin = points[knee] - points[hip], points[ankle] - points[knee]
        bend, fold = joints.angle(torso, thigh), joints.angle(-thigh, shin)
        yield Leg(thigh, shin, bend, fold, -(thigh.imag + shin.imag), -thigh.imag)
