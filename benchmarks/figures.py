"""Stick figures with COCO-17 joints, and a simulated camera that sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Keypoints = NDArray[np.float32]
Points = NDArray[np.float64]
Pair = tuple[float, float]

TORSO_M: Final = 0.5  # an adult of 1.75 m: mid-shoulder to mid-hip is 0.288 of the height (Drillis & Contini)
LEG: Final = 0.85  # thigh and shin, in torsos
_SOLE: Final = 0.15  # an ankle or another joint above the floor, in torsos
FRAME: Final = (1280, 720)
_FOCAL: Final = 900.0  # pixels: 71 degrees across the frame, a usual lens


@dataclass(frozen=True)
class Figure:
    """A stick figure of one torso's length, by joint angles in degrees; pairs are left, right.

    torso: tilt forward from the vertical. thigh: swing forward from straight down. knee, elbow: bend from straight.
    arm: swing forward from along the torso. roll: turn of the whole body onto its left side. leg: length of thigh and
    shin, in torsos.
    """

    torso: float = 0.0
    thigh: Pair = (0.0, 0.0)
    knee: Pair = (3.0, 3.0)
    spread: float = 3.0  # of the thighs, outwards
    arm: Pair = (0.0, 0.0)
    arm_out: float = 10.0
    elbow: Pair = (15.0, 15.0)
    crossed_shins: bool = False
    roll: float = 0.0
    leg: float = LEG

    def joints(self) -> Points:
        """(17, 3) forward, up, left. Proportions: thigh and shin 0.85 torsos, upper arm 0.62, forearm 0.52."""
        joints = np.zeros((17, 3))
        trunk = _swing(-self.torso) * -1.0
        ahead = np.array((trunk[1], -trunk[0], 0.0))
        eyes = 1.4 * trunk + 0.2 * ahead
        joints[:5] = 1.3 * trunk + 0.25 * ahead, eyes, eyes, 1.4 * trunk, 1.4 * trunk
        joints[1:5, 2] = 0.1, -0.1, 0.2, -0.2
        for side, out in ((0, 1.0), (1, -1.0)):
            left = np.array((0.0, 0.0, out))
            shoulder, hip = trunk + 0.35 * left, 0.22 * left
            elbow = shoulder + 0.62 * _outwards(_swing(self.arm[side] - self.torso), self.arm_out, left)
            wrist = elbow + 0.52 * _swing(self.arm[side] + self.elbow[side] - self.torso)
            knee = hip + self.leg * _outwards(_swing(self.thigh[side]), self.spread, left)
            shin = -0.95 * left if self.crossed_shins else _swing(self.thigh[side] - self.knee[side])
            joints[5 + side], joints[7 + side], joints[9 + side] = shoulder, elbow, wrist
            joints[11 + side], joints[13 + side], joints[15 + side] = hip, knee, knee + self.leg * shin
        return joints @ _turned(self.roll, 1, 2)

    def seen(self, turn: float = 20.0, height: float = 0.0) -> Keypoints:
        """(17, 3) keypoints by a far camera: 0 turn is from the side, 90 from the front; height is its elevation."""
        ahead, up, left = self.joints().T
        angle, elevation = np.radians(turn), np.radians(height)
        x = ahead * np.cos(angle) + left * np.sin(angle)
        away = left * np.cos(angle) - ahead * np.sin(angle)
        y = up * np.cos(elevation) + away * np.sin(elevation)
        return np.stack((300 + 100 * x, 400 - 100 * y, np.full(17, 0.9)), axis=1).astype(np.float32)


@dataclass(frozen=True)
class Camera:
    """A camera on a wall. Lengths in metres, angles in degrees.

    height: above the floor. distance: to the person, along the floor. turn: where the person faces; 90 is towards the
    camera. bearing: of the person, to the right of the view's middle. pitch: downwards. roll: of the camera.
    """

    height: float
    distance: float
    turn: float
    bearing: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def sees(self, figure: Figure, torso_m: float = TORSO_M) -> Points:
        """(17, 2) pixels, x to the right and y down, of a figure that is on the floor. Frame: `FRAME`."""
        joints = figure.joints()
        joints[:, 1] += _SOLE - joints[:, 1].min()
        ahead, up, left = (joints * torso_m).T
        turn, bearing = np.radians(self.turn), np.radians(self.bearing)
        # x to the right of the line from camera to person, z away from the camera.
        x, y = ahead * np.cos(turn) + left * np.sin(turn), up - self.height
        z = self.distance + left * np.cos(turn) - ahead * np.sin(turn)
        x, z = x * np.cos(bearing) + z * np.sin(bearing), z * np.cos(bearing) - x * np.sin(bearing)
        pitch = np.radians(self.pitch)
        y, z = y * np.cos(pitch) + z * np.sin(pitch), z * np.cos(pitch) - y * np.sin(pitch)
        flat = np.stack((x, -y), axis=1) / np.maximum(z, 0.1)[:, None] * _FOCAL
        return np.asarray(flat @ _turned(self.roll, 0, 1, size=2) + np.array(FRAME) / 2)


def _swing(degrees: float) -> Points:
    return np.array((np.sin(np.radians(degrees)), -np.cos(np.radians(degrees)), 0.0))


def _outwards(direction: Points, degrees: float, left: Points) -> Points:
    return np.asarray(direction * np.cos(np.radians(degrees)) + left * np.sin(np.radians(degrees)))


def _turned(degrees: float, first: int, second: int, size: int = 3) -> Points:
    turned = np.eye(size)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned[first, first], turned[second, second] = cosine, cosine
    turned[first, second], turned[second, first] = sine, -sine
    return turned
