"""Derives a person's posture and alerts from keypoints, by angles and body proportions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# fmt: off
# COCO-17 order (cocodataset.org, the person category's "keypoints"), the output order of YOLOv8-pose.
KEYPOINT_NAMES: Final[tuple[str, ...]] = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)
# fmt: on
_FACE, _SHOULDERS, _ELBOWS, _WRISTS = [0, 1, 2, 3, 4], [5, 6], [7, 8], [9, 10]
_HIPS, _KNEES, _ANKLES = [11, 12], [13, 14], [15, 16]

# Lengths are in torsos (mid-shoulder to mid-hip), angles in degrees. A tilt is the angle to the vertical; a drop is the
# vertical part of a bone's length. Body proportions are from Drillis & Contini (in Winter, Biomechanics and Motor
# Control of Human Movement, ch. 4): thigh and shin have 0.85 torsos, the eyes are 0.4 above the shoulders.
# Each limit lies in the gap between two postures. The values beside it were measured with YOLOv8n-pose on photographs.
# For chair, full squat, kneeling, running and guard they come from stick figures under a simulated camera.
_UPRIGHT: Final = 35.0  # torso tilt: walkers and players have up to 25, a plank at a slant from 44
_LEVEL: Final = 60.0  # smallest torso tilt of a lying body: that plank has up to 54, a body on the floor 90
_INVERTED: Final = 120.0  # smallest torso tilt of a body whose shoulders hang below its hips
_FORESHORTENED: Final = 1.3  # shoulder width, normally up to 0.82; above this the torso points at the camera
_LOW_THIGH: Final = 0.42  # drop of the thighs: seated up to 0.3 (0.4 under a raised camera), on foot from 0.48
_LONG_THIGH: Final = 0.6  # drop of a thigh that proves a person on foot without the shin; cut off by the frame, 0.49
_FLAT_SHIN: Final = 0.35  # drop of the shin: cross-legged 0.26, squatting or on a chair from 0.5
_LOW_REACH: Final = 0.8  # hips above ankles: cross-legged 0.3 (0.45 under a raised camera), standing on one leg 0.93
_SQUAT_REACH: Final = 0.65  # hips above ankles: full squat 0.35 to 0.65, on a chair from 0.75
_KNEELING_REACH: Final = 1.05  # hips above ankles: a thigh or a shin alone 0.85, the lowest standing leg 1.1
_OFF_BALANCE: Final = 0.25  # feet ahead of the centre of mass: 0 in a squat, 0.35 to 0.6 on a seat
_BENT_KNEES, _BENT_HIPS = 142.0, 140.0  # half crouch: at most 135 and 131; other postures: over 148 in one of them
_STRIDE: Final = 0.5  # distance of the ankles across the image: facing the camera 0.44, strides from the side from 0.58
_FOLDED_KNEE, _BACK_SHIN = 110.0, 78.0  # a runner's back leg: knee angle, tilt of the shin; Winter's walker: 115, 50
_LONG_SHIN: Final = 0.7  # length of that shin across the image; a walker's, seen from 40 degrees above, is shorter
_SPLIT_THIGHS, _SPLIT_STRIDE = 70.0, 0.9  # a runner's angle between thighs, and stride; a long walking step: 50 degrees
_GUARD_WRIST, _GUARD_ELBOW = -0.1, 90.0  # wrist above shoulder, elbow angle; crossed arms and hands on the chest: -0.25
# Winter's shares of body mass (head, arms and trunk; thighs; shins and feet), each with its centre along the segment.
_TRUNK_MASS, _THIGH_MASS, _SHIN_MASS = (0.678, 0.626), (0.200, 0.433), (0.122, 0.606)

# A point or a vector: x to the right, y up. An unseen joint is NaN, so that every comparison with it is false. Python's
# complex numbers, because numpy is slow on single values.
Vector = complex
_UNSEEN: Final = complex(math.nan, math.nan)


class Posture(StrEnum):
    """The posture or movement of a body, as far as one image shows it."""

    STANDING = "standing"
    WALKING = "walking"
    RUNNING = "running"
    SITTING = "sitting"
    CROUCHING = "crouching"
    BENDING = "bending"
    CRAWLING = "crawling"
    LYING_DOWN = "lying_down"
    REACHING_UP = "reaching_up"
    UNKNOWN = "unknown"


class Alert(StrEnum):
    """Postures and gestures that a guard wants to know about."""

    CROUCHING = "crouching"
    CRAWLING = "crawling"
    LYING_DOWN = "lying_down"
    HANDS_RAISED = "hands_raised"
    RUNNING = "running"
    FIGHTING_STANCE = "fighting_stance"


@dataclass(frozen=True)
class Assessment:
    """One person's posture and alerts. The alerts have the order of `Alert`."""

    posture: Posture
    alerts: tuple[Alert, ...]


def assess(keypoints: NDArray[np.float32], min_confidence: float = 0.5) -> Assessment:
    """Judge one person's posture. The answer does not depend on scale, place in the frame or mirroring.

    keypoints: (17, 3) in the order of `KEYPOINT_NAMES`: x, y in pixels of the upright image (y down), confidence 0…1.
    A joint counts if its confidence is positive and at least `min_confidence`, and its three numbers are finite.
    Raises ValueError for another shape.

    A posture needs a shoulder and a hip of one side, and a knee with its hip. With less it is UNKNOWN. So are
    ambiguous views: a torso pointing at the camera, a straight body at a slant or upside down.

    One image shows no motion. Strides towards the camera count as STANDING, a jog as WALKING. A person who sits facing
    a high camera may count as STANDING.

    Raised hands need only shoulders and wrists, on a body that is not lying or bent over.
    """
    points = _visible_points(keypoints, min_confidence)
    body = _measure(points)
    posture = Posture.UNKNOWN if body is None else _posture(body)
    arms: Alert | None = None
    if _hands_raised(points, body):
        arms = Alert.HANDS_RAISED
    elif body is not None and _fighting_stance(body, posture):
        arms = Alert.FIGHTING_STANCE
    # A posture is an alert if Alert has its name.
    return Assessment(posture, tuple(alert for alert in Alert if alert is arms or alert.value == posture.value))


class _Leg(NamedTuple):
    thigh: Vector  # hip to knee, in torsos
    shin: Vector  # knee to ankle
    hip: float  # angle between torso and thigh; 180 is straight
    knee: float  # angle between thigh and shin; 180 is straight
    reach: float  # how far the ankle is below the hip


@dataclass(frozen=True)
class _Body:
    points: Sequence[Vector]  # the 17 joints, in torsos, mid-hip at the origin
    torso: Vector  # mid-hip to mid-shoulder, of length 1
    tilt: float  # of the torso against the vertical
    legs: tuple[_Leg, ...]  # those with a visible ankle
    thighs: tuple[_Leg, ...]  # all with a visible knee

    @property
    def max_reach(self) -> float:
        return max(leg.reach for leg in self.legs)

    @property
    def mean(self) -> _Leg:
        return _Leg(*(sum(values) / len(values) for values in zip(*self.legs, strict=True)))


def _visible_points(keypoints: NDArray[np.float32], min_confidence: float) -> list[Vector]:
    values = np.asarray(keypoints, dtype=np.float64)
    if values.shape != (len(KEYPOINT_NAMES), 3):
        raise ValueError(f"keypoints must have shape (17, 3): x, y, confidence; got {values.shape}")
    return [
        complex(x, -y)
        if math.isfinite(x + y + confidence) and confidence >= min_confidence and confidence > 0
        else _UNSEEN
        for x, y, confidence in values.tolist()
    ]


def _seen(point: Vector) -> bool:
    return not math.isnan(point.real)


def _mean(vectors: Sequence[Vector]) -> Vector:
    return sum(vectors) / len(vectors)


def _measure(points: Sequence[Vector]) -> _Body | None:
    # Only sides with both ends: a shoulder and the hip of the other side would give a false tilt.
    sides = [side for side in (0, 1) if _seen(points[_SHOULDERS[side]]) and _seen(points[_HIPS[side]])]
    if not sides:
        return None
    hip = _mean([points[_HIPS[side]] for side in sides])
    torso = _mean([points[_SHOULDERS[side]] for side in sides]) - hip
    length = math.hypot(torso.real, torso.imag)
    if length == 0 or _across(points, _SHOULDERS) > _FORESHORTENED * length:
        return None
    points, torso = [(point - hip) / length for point in points], torso / length
    thighs = tuple(leg for leg in _legs(points, torso) if math.isfinite(leg.hip))
    return _Body(points, torso, _tilt(torso), tuple(leg for leg in thighs if math.isfinite(leg.knee)), thighs)


def _legs(points: Sequence[Vector], torso: Vector) -> Iterator[_Leg]:
    for hip, knee, ankle in zip(_HIPS, _KNEES, _ANKLES, strict=True):
        thigh, shin = points[knee] - points[hip], points[ankle] - points[knee]
        yield _Leg(thigh, shin, _angle(torso, thigh), _angle(-thigh, shin), -(thigh.imag + shin.imag))


def _angle(a: Vector, b: Vector) -> float:
    turn = b * a.conjugate()
    return math.degrees(math.atan2(abs(turn.imag), turn.real))


def _tilt(vector: Vector) -> float:
    return _angle(vector, 1j)


def _across(points: Sequence[Vector], pair: list[int]) -> float:
    return abs(points[pair[0]].real - points[pair[1]].real)


def _heights(points: Sequence[Vector], joints: list[int]) -> list[float]:
    """The heights of the seen joints."""
    return [points[joint].imag for joint in joints if _seen(points[joint])]


def _elbow(points: Sequence[Vector], side: int) -> float:
    elbow = points[_ELBOWS[side]]
    return _angle(points[_SHOULDERS[side]] - elbow, points[_WRISTS[side]] - elbow)


def _head_height(points: Sequence[Vector], torso: float) -> float:
    # The median of eyes, ears and nose; without a face, slightly above the expected eyes.
    face = _heights(points, _FACE)
    return median(face) if face else _shoulder_height(points) + 0.5 * torso


def _shoulder_height(points: Sequence[Vector]) -> float:
    return max(_heights(points, _SHOULDERS), default=math.nan)


def _posture(body: _Body) -> Posture:
    if not body.legs:
        return _posture_from_thighs(body)
    if body.tilt >= _LEVEL:
        return _posture_of_level_body(body)
    if body.tilt < _UPRIGHT and _runs(body):
        return Posture.RUNNING
    if _kneels(body):
        return Posture.CROUCHING
    if max(-leg.thigh.imag for leg in body.thighs) < _LOW_THIGH or body.mean.reach < _LOW_REACH:
        return _posture_on_low_hips(body)
    if _legs_bent(body):
        return _crouched_or_seated(body)
    if body.tilt >= _UPRIGHT:
        return Posture.BENDING if _bends(body) else Posture.UNKNOWN
    if any(_reaches_up(body.points, side) for side in (0, 1)):
        return Posture.REACHING_UP
    return Posture.WALKING if _strides(body) else Posture.STANDING


def _posture_from_thighs(body: _Body) -> Posture:
    # Without shins, foreshortening can't be recognised, so only thighs of nearly full length count.
    if not body.thighs:
        return Posture.UNKNOWN
    across = all(abs(leg.thigh.real) > 0.5 and 60 < _tilt(leg.thigh) < 120 for leg in body.thighs)
    if body.tilt < _UPRIGHT:
        on_foot = max(-leg.thigh.imag for leg in body.thighs) >= _LONG_THIGH
        return Posture.STANDING if on_foot else Posture.SITTING if across else Posture.UNKNOWN
    lies = across and _LEVEL <= body.tilt < _INVERTED and min(leg.hip for leg in body.thighs) > 110
    return Posture.LYING_DOWN if lies else Posture.UNKNOWN


def _posture_of_level_body(body: _Body) -> Posture:
    if body.tilt >= _INVERTED:  # feet below the hips mean bending; otherwise the body hangs or lies towards the camera
        return Posture.BENDING if body.mean.reach >= 0.5 and body.mean.hip < 110 else Posture.UNKNOWN
    if _crawls(body):
        return Posture.CRAWLING
    ankles_to_shoulders = body.torso - body.mean.thigh - body.mean.shin
    if body.mean.hip > 60 and _LEVEL <= _tilt(ankles_to_shoulders) <= _INVERTED:
        return Posture.LYING_DOWN
    if _legs_bent(body):
        return _crouched_or_seated(body)
    return Posture.BENDING if _bends(body) else Posture.UNKNOWN


def _posture_on_low_hips(body: _Body) -> Posture:
    thigh, shin = -body.mean.thigh.imag, -body.mean.shin.imag
    if shin < -_FLAT_SHIN:
        return Posture.UNKNOWN
    # Knees far above the hips: sitting on the floor, or on a chair seen from behind and above.
    if shin < _FLAT_SHIN or thigh < -_FLAT_SHIN:
        return Posture.SITTING
    # From the front, sitting on a chair and a half squat look alike. A full squat is certain, and a leaning one from
    # the side.
    if body.mean.reach <= _SQUAT_REACH or (body.tilt >= 30 and body.mean.knee <= 100):
        return _crouched_or_seated(body)
    return Posture.SITTING


def _crouched_or_seated(body: _Body) -> Posture:
    # A body whose centre of mass is not over its feet must sit. The distance is measured towards the knees.
    thigh, shin = body.mean.thigh.real, body.mean.shin.real
    trunk = _TRUNK_MASS[0] * _TRUNK_MASS[1] * body.torso.real
    centre = trunk + _THIGH_MASS[0] * _THIGH_MASS[1] * thigh + _SHIN_MASS[0] * (thigh + _SHIN_MASS[1] * shin)
    ahead = (thigh + shin - centre) * ((thigh > 0) - (thigh < 0))
    return Posture.SITTING if ahead > _OFF_BALANCE else Posture.CROUCHING


def _legs_bent(body: _Body) -> bool:
    # Both legs must be bent: one bent leg may climb a stair.
    knees = [leg.knee for leg in body.legs]
    return len(knees) == 2 and max(knees) <= _BENT_KNEES and body.mean.hip <= _BENT_HIPS


def _kneels(body: _Body) -> bool:
    return body.max_reach < _KNEELING_REACH and any(_on_knee(leg, body) for leg in body.legs)


def _on_knee(leg: _Leg, body: _Body) -> bool:
    # The shin must point backwards: a shin under the other knee is a crossed leg.
    behind = all(other.thigh.real * leg.shin.real < 0.2 for other in body.legs)
    upright = -leg.thigh.imag >= _LOW_THIGH and _tilt(leg.thigh) > 145
    return upright and behind and abs(leg.shin.real) > 0.5 and abs(leg.shin.imag) < _FLAT_SHIN


def _bends(body: _Body) -> bool:
    return body.max_reach >= 0.9 and body.mean.hip <= 150


def _crawls(body: _Body) -> bool:
    on_knees = any(-leg.thigh.imag >= _LOW_THIGH and abs(leg.shin.imag) <= _FLAT_SHIN for leg in body.legs)
    return on_knees and not any(body.points[wrist].imag - body.torso.imag > -0.4 for wrist in _WRISTS)


def _strides(body: _Body) -> bool:
    # Feet no wider apart than the shoulders are a stance seen from the front. With an unseen shoulder, only _STRIDE
    # counts.
    shoulders = _across(body.points, _SHOULDERS)
    return _across(body.points, _ANKLES) >= (_STRIDE if math.isnan(shoulders) else max(_STRIDE, shoulders))


def _runs(body: _Body) -> bool:
    # A leg folded up behind or thighs far apart, and at least one elbow bent, if any is seen.
    if len(body.legs) < 2 or not _strides(body):
        return False
    on_foot = body.max_reach >= _KNEELING_REACH
    split = _angle(body.legs[0].thigh, body.legs[1].thigh) >= _SPLIT_THIGHS
    split = split and _across(body.points, _ANKLES) >= _SPLIT_STRIDE
    elbows = [angle for side in (0, 1) if math.isfinite(angle := _elbow(body.points, side))]
    return on_foot and (split or any(map(_folded_up, body.legs))) and min(elbows, default=0.0) <= 130


def _folded_up(leg: _Leg) -> bool:
    level = _tilt(leg.shin) <= 180 - _BACK_SHIN and abs(leg.shin.real) >= _LONG_SHIN
    return level and leg.knee <= _FOLDED_KNEE


def _reaches_up(points: Sequence[Vector], side: int) -> bool:
    wrist, elbow, shoulder = (points[joints[side]].imag for joints in (_WRISTS, _ELBOWS, _SHOULDERS))
    return wrist > _head_height(points, 1.0) and elbow > shoulder and _elbow(points, side) >= 120


def _hands_raised(points: Sequence[Vector], body: _Body | None) -> bool:
    unit = _across(points, _SHOULDERS)  # the scale if only the upper body is seen
    if body is not None:
        points, unit = body.points, 1.0
    elif any(_seen(points[hip]) for hip in _HIPS):
        return False  # the torso points at the camera, so up in the image is not up on the body
    head = _head_height(points, unit)
    upright = head > _shoulder_height(points) and (body is None or body.tilt < _LEVEL)
    return upright and all(points[wrist].imag > head for wrist in _WRISTS)


def _fighting_stance(body: _Body, posture: Posture) -> bool:
    # Both fists at shoulder or chin height on folded arms, over feet set apart.
    on_foot = posture in (Posture.STANDING, Posture.WALKING, Posture.RUNNING, Posture.CROUCHING)
    heights = [(body.points[_WRISTS[side]].imag, body.points[_SHOULDERS[side]].imag) for side in (0, 1)]
    fists = all(wrist - shoulder >= _GUARD_WRIST for wrist, shoulder in heights)
    folded = all(_elbow(body.points, side) <= _GUARD_ELBOW for side in (0, 1))
    return on_foot and folded and fists and _strides(body)
