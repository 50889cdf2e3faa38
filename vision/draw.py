"""Draws answers of the service onto their images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vision.arrays import RGB

_LIMBS: Final = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
# Bones between COCO-17 joints by name: the person category's "skeleton" without the links eye–eye and ear–shoulder.
SKELETON: Final = (
    *((f"{side}_{start}", f"{side}_{end}") for side in ("left", "right") for start, end in _LIMBS),
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
)
_BOX_COLOUR: Final = (255, 45, 85)
_BONE_COLOUR: Final = (64, 224, 208)


def draw_persons(image: RGB, persons: Iterable[Mapping[str, Any]]) -> RGB:
    """Draw each person of a /pose-analyze response: box, posture, alerts, skeleton. Returns a new image (h, w, 3)."""
    drawn = Image.fromarray(image)
    canvas, unit = ImageDraw.Draw(drawn), _unit(drawn)
    for person in persons:
        joints = {joint["name"]: (joint["x"], joint["y"]) for joint in person["keypoints"]}
        for start, end in SKELETON:
            if start in joints and end in joints:
                canvas.line([joints[start], joints[end]], fill=_BONE_COLOUR, width=unit)
        for x, y in joints.values():
            canvas.ellipse([x - unit, y - unit, x + unit, y + unit], fill=_BOX_COLOUR)
        text = " ".join([person["posture"], f"{person['confidence']:.2f}", *person["alerts"]])
        _box(canvas, unit, person["bbox"], text)
    return np.asarray(drawn)


def draw_threats(image: RGB, threats: Iterable[Mapping[str, Any]]) -> RGB:
    """Draw each detection of a /threat-detect response: box, class and confidence. Returns a new image (h, w, 3)."""
    drawn = Image.fromarray(image)
    canvas, unit = ImageDraw.Draw(drawn), _unit(drawn)
    for threat in threats:
        _box(canvas, unit, threat["bbox"], f"{threat['class']} {threat['confidence']:.2f}")
    return np.asarray(drawn)


def _unit(image: Image.Image) -> int:
    return max(2, max(image.size) // 350)


def _box(canvas: ImageDraw.ImageDraw, unit: int, box: Mapping[str, float], text: str) -> None:
    left, top = box["x"], box["y"]
    canvas.rectangle([left, top, left + box["width"], top + box["height"]], outline=_BOX_COLOUR, width=unit)
    font = ImageFont.load_default(size=7 * unit)
    extent = canvas.textbbox((left, max(0, top - 9 * unit)), text, font=font)
    canvas.rectangle(extent, fill=_BOX_COLOUR)
    canvas.text((left, max(0, top - 9 * unit)), text, fill="white", font=font)
