"""The limits between postures, in torsos (mid-shoulder to mid-hip) and degrees, and where each comes from.

A tilt is the angle to the vertical; a drop is the vertical part of a bone's length. Body proportions are from Drillis &
Contini (in Winter, Biomechanics and Motor Control of Human Movement, ch. 4): thigh and shin have 0.85 torsos, the eyes
are 0.4 above the shoulders. Each limit lies in the gap between two postures. The values beside it were measured with
YOLOv8n-pose on photographs. For chair, full squat, kneeling, running and guard they come from stick figures under a
simulated camera.
"""

from __future__ import annotations

from typing import Final

UPRIGHT: Final = 35.0  # torso tilt: walkers and players have up to 25, a plank at a slant from 44
LEVEL: Final = 60.0  # smallest torso tilt of a lying body: that plank has up to 54, a body on the floor 90
INVERTED: Final = 120.0  # smallest torso tilt of a body whose shoulders hang below its hips
LOW_THIGH: Final = 0.42  # drop of the thighs: seated up to 0.3 (0.4 under a raised camera), on foot from 0.48
LONG_THIGH: Final = 0.6  # drop of a thigh that proves a person on foot without the shin; cut off by the frame, 0.49
FLAT_SHIN: Final = 0.35  # drop of the shin: cross-legged 0.26, squatting or on a chair from 0.5
LOW_REACH: Final = 0.8  # hips above ankles: cross-legged 0.3 (0.45 under a raised camera), standing on one leg 0.93
SQUAT_REACH: Final = 0.65  # hips above ankles: full squat 0.35 to 0.65, on a chair from 0.75
KNEELING_REACH: Final = 1.05  # hips above ankles: a thigh or a shin alone 0.85, the lowest standing leg 1.1
OFF_BALANCE: Final = 0.25  # feet ahead of the centre of mass: 0 in a squat, 0.35 to 0.6 on a seat
BENT_KNEES, BENT_HIPS = 142.0, 140.0  # half crouch: at most 135 and 131; other postures: over 148 in one of them
STRIDE: Final = 0.5  # distance of the ankles across the image: facing the camera 0.44, strides from the side from 0.58
FOLDED_KNEE, BACK_SHIN = 110.0, 78.0  # a runner's back leg: knee angle, tilt of the shin; Winter's walker: 115, 50
LONG_SHIN: Final = 0.7  # length of that shin across the image; a walker's, seen from 40 degrees above, is shorter
SPLIT_THIGHS, SPLIT_STRIDE = 70.0, 0.9  # a runner's angle between thighs, and stride; a long walking step: 50 degrees
GUARD_WRIST, GUARD_ELBOW = -0.1, 90.0  # wrist above shoulder, elbow angle; crossed arms and hands on the chest: -0.25
# These seven come from benchmarks/postures.py.
OVERBALANCE: Final = -0.35  # feet behind the centre of mass: a croucher up to -0.3; on the hands or from above -0.4
PLANK_ARMS: Final = 0.35  # hands below the shoulders: lying straight 0 to 0.3, a plank or push-up from 0.4
STRAIGHT: Final = 145.0  # hip and knee of a plank: from 150
AT_A_FOOT: Final = 0.6  # from between the hands to an ankle: tying a shoe up to 0.5, hands of a croucher from 0.6
SQUAT_BALANCE: Final = (
    0.03  # OFF_BALANCE per width of the thighs, above a full squat: a half crouch -0.1, on a chair 0.2
)
FROM_BEHIND: Final = 0.4  # how far the left shoulder is to the left of the right one
RAISED_KNEES: Final = 0.05  # knees above hips, from behind: on a chair under a raised camera 0.1 to 0.3
