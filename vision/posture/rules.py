"""The rules that tell a measured body's posture, and the checks that each answer rests on."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from vision.posture import joints, legs
from vision.posture.arms import reaching_up
from vision.posture.body import Body
from vision.posture.checks import Check, Checks, best, degrees, met, sentence
from vision.posture.joints import ELBOWS, FACE, WRISTS
from vision.posture.legs import AHEAD, DROP, HIP, REACH, TILT
from vision.posture.limits import (
    AT_A_FOOT,
    FLAT_SHIN,
    FROM_BEHIND,
    INVERTED,
    LEVEL,
    LONG_THIGH,
    LOW_REACH,
    LOW_THIGH,
    OFF_BALANCE,
    OVERBALANCE,
    RAISED_KNEES,
    SQUAT_BALANCE,
    SQUAT_REACH,
    UPRIGHT,
)


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


class Judgement(NamedTuple):
    """A posture with the checks that it rests on, or for UNKNOWN, with the reason.

    more: joints beyond those of torso and legs that were looked at. against: the checks of other postures, none of
    which was met.
    """

    posture: Posture
    checks: Checks = ()
    reason: str = ""
    more: tuple[int, ...] = ()
    against: tuple[Checks, ...] = ()


def judge(body: Body) -> Judgement:
    """Tell the posture of a body."""
    found = _judge(body)
    if found.posture not in (Posture.CROUCHING, Posture.CRAWLING):
        return found
    at_a_foot = [Check("the hands are {} from an ankle", body.hands_to_foot, "at a foot", most=AT_A_FOOT)]
    if met(at_a_foot):  # somebody ties a shoe, on a knee or squatting
        return Judgement(Posture.BENDING, at_a_foot)
    return found._replace(against=(*found.against, at_a_foot))


def _judge(body: Body) -> Judgement:
    if not body.legs:
        return _from_thighs(body)
    if body.tilt >= LEVEL:
        return _of_level_body(body)
    upright = degrees(TILT, body.tilt, "upright", most=UPRIGHT)
    if met(running := [upright, *legs.running(body)]):
        return Judgement(Posture.RUNNING, running, more=ELBOWS + WRISTS)
    if met(kneeling := legs.kneeling(body)):
        return Judgement(Posture.CROUCHING, kneeling)
    if body.max_drop < LOW_THIGH or body.mean.reach < LOW_REACH:
        return _on_low_hips(body)
    if met(bent := legs.bent_legs(body)):
        return _crouched_or_seated(body, bent)
    if not met([upright]):
        return _bent_or_unknown(body)
    for side in (0, 1):
        if met(up := reaching_up(body.points, side)):
            return Judgement(Posture.REACHING_UP, up, more=FACE + ELBOWS + WRISTS)
    stride = legs.feet_apart(body)
    if met([stride]):
        return Judgement(Posture.WALKING, (upright, stride))
    return Judgement(Posture.STANDING, (upright, Check(REACH, body.mean.reach, "on foot", least=LOW_REACH)))


def _from_thighs(body: Body) -> Judgement:
    # Without shins, foreshortening can't be recognised, so only thighs of nearly full length count.
    if not body.thighs:
        return Judgement(Posture.UNKNOWN, reason="no knee is visible on the side of a visible hip")
    upright = degrees(TILT, body.tilt, "upright", most=UPRIGHT)
    width = min(abs(leg.thigh.real) for leg in body.thighs)
    steepest = max((joints.tilt(leg.thigh) for leg in body.thighs), key=lambda tilt: abs(tilt - 90))
    across = [
        Check("the thighs are {} long across the image", width, "level", least=0.5),
        degrees("the thighs tilt {} from the vertical", steepest, "level", 60, 120),
    ]
    if met([upright]):
        if met(long := [upright, Check(DROP, body.max_drop, "on foot", least=LONG_THIGH)]):
            return Judgement(Posture.STANDING, long)
        if met(across):
            return Judgement(Posture.SITTING, [upright, *across])
    lying = [
        degrees(TILT, body.tilt, "lying", LEVEL, INVERTED),
        degrees(HIP, min(leg.hip for leg in body.thighs), "lying", least=110),
    ]
    plank = legs.plank(body)
    if met([*lying, *across]):
        if met(plank):
            return Judgement(Posture.UNKNOWN, reason=sentence(plank))
        return Judgement(Posture.LYING_DOWN, [*lying, *across], against=(plank,))
    return Judgement(Posture.UNKNOWN, reason="no ankle is visible below a visible knee, and the thighs are ambiguous")


def _of_level_body(body: Body) -> Judgement:
    if body.tilt >= INVERTED:  # feet below the hips mean bending; otherwise the body hangs or lies towards the camera
        hanging = [
            degrees(TILT, body.tilt, "head down", least=INVERTED),
            Check(REACH, body.mean.reach, "bending", least=0.5),
            degrees(HIP, body.mean.hip, "bending", most=110),
        ]
        if met(hanging):
            return Judgement(Posture.BENDING, hanging)
        return Judgement(
            Posture.UNKNOWN, reason=f"the torso points down, {body.tilt:.0f}° from upright, and the feet are not below"
        )
    if met(plank := legs.plank(body)):
        return Judgement(Posture.UNKNOWN, reason=sentence(plank))
    level = degrees(TILT, body.tilt, "level", LEVEL, INVERTED)
    if met(crawling := [level, *legs.crawling(body)]):
        return Judgement(Posture.CRAWLING, crawling, more=WRISTS, against=(plank,))
    lying = [
        degrees(TILT, body.tilt, "lying", LEVEL, INVERTED),
        degrees("the line from ankles to shoulders tilts {}", body.slope, "lying", LEVEL, INVERTED),
        degrees(HIP, body.mean.hip, "lying", least=60),
    ]
    if met(lying):
        return Judgement(Posture.LYING_DOWN, lying, against=(plank, crawling))
    if met(bent := legs.bent_legs(body)):
        return _crouched_or_seated(body, bent)
    return _bent_or_unknown(body)


def _on_low_hips(body: Body) -> Judgement:
    thigh, shin = body.mean.drop, -body.mean.shin.imag
    low = best(
        [
            [Check(DROP, body.max_drop, "low hips", most=LOW_THIGH)],
            [Check(REACH, body.mean.reach, "low hips", most=LOW_REACH)],
        ]
    )
    if shin < -FLAT_SHIN:
        return Judgement(Posture.UNKNOWN, reason="the ankles are above the knees, over low hips")
    # Knees far above the hips: sitting on the floor, or on a chair seen from behind and above.
    behind = RAISED_KNEES if body.from_behind >= FROM_BEHIND else FLAT_SHIN
    seats = (
        [*low, Check("the ankles are {} below the knees", shin, "flat shins", most=FLAT_SHIN)],
        [*low, Check("the knees are {} above the hips", -thigh, "raised", least=behind)],
    )
    for seat in seats:
        if met(seat):
            return Judgement(Posture.SITTING, seat)
    # From the front, sitting on a chair and a half squat look alike. A full squat is certain, and a leaning one from
    # the side.
    squat = best(
        [
            [Check(REACH, body.mean.reach, "squatting", most=SQUAT_REACH)],
            [
                degrees(TILT, body.tilt, "leaning", least=30),
                degrees("the angle between thighs and shins is {}", body.mean.knee, "squatting", most=100),
                Check(AHEAD, body.ahead, "in balance", most=SQUAT_BALANCE * abs(body.mean.thigh.real)),
            ],
        ]
    )
    if met(squat):
        return _crouched_or_seated(body, [*low, *squat], seats)
    return Judgement(Posture.SITTING, [*low, Check(REACH, body.mean.reach, "above a squat", least=SQUAT_REACH)])


def _crouched_or_seated(body: Body, low: Checks, against: tuple[Checks, ...] = ()) -> Judgement:
    # A body whose centre of mass is not over its feet must sit. The distance is measured towards the knees.
    if met(balance := [Check(AHEAD, body.ahead, "in balance", OVERBALANCE, OFF_BALANCE)]):
        return Judgement(Posture.CROUCHING, [*low, *balance], against=against)
    if body.ahead < OVERBALANCE:
        return Judgement(Posture.UNKNOWN, reason=f"the legs are bent, but {balance[0]}: hands may bear the body")
    return Judgement(Posture.SITTING, [*low, Check(AHEAD, body.ahead, "seated", least=OFF_BALANCE)])


def _bent_or_unknown(body: Body) -> Judgement:
    bending = [
        degrees(TILT, body.tilt, "bending", least=UPRIGHT),
        Check(REACH, body.max_reach, "on foot", least=0.9),
        degrees(HIP, body.mean.hip, "bending", most=150),
    ]
    if met(bending):
        return Judgement(Posture.BENDING, bending)
    return Judgement(
        Posture.UNKNOWN,
        reason=f"the torso tilts {body.tilt:.0f}° from the vertical: neither upright nor lying",
    )
