"""Draws boxes, limbs and labels onto a picture, and encodes it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from vision.arrays import RGB, Box
from vision.colours import BLACK, Colour, text_on
from vision.labels import Places

MAX_SIDE: Final = 4096  # pixels; a larger picture is reduced to it
ImageFormat = Literal["JPEG", "PNG"]
Point = tuple[float, float]

_SHIFT: Final = 4  # OpenCV's coordinates are integers with so many bits after the point
_FARTHEST: Final = 2**20  # of fixed points; a line that ends farther away takes OpenCV seconds, and can't be seen
_LEAST_TEXT: Final = 9  # pixels; smaller text can't be read
_LONGEST_TEXT: Final = 200  # characters
_MOST_LABELS: Final = 150  # nobody reads more, and finding places takes quadratic time
_JPEG_QUALITY: Final = 90
_LONGEST_JPEG_COMMENT: Final = 65_533  # bytes; JPEG's limit
_BYTES_OF_PIXEL: Final = 13  # canvas 3, Pillow's image 4, the encoded file and its copy 3 each


@dataclass(frozen=True)
class _Label:
    text: str
    colour: Colour
    box: Box


_Placed = tuple[_Label, Box, str]  # place, and the text that fits


class Canvas:
    """A picture to draw on. All coordinates are pixels of the picture as given. Sizes grow with the picture.

    Labels are drawn last, so that no line hides one. They never hide each other (vision.labels). There are at most 150.
    """

    def __init__(self, image: RGB) -> None:
        """image: (h, w, 3), upright. It may be drawn on."""
        height, width = image.shape[:2]
        self._scale = _scale(height, width)
        if self._scale < 1:
            size = max(1, round(width * self._scale)), max(1, round(height * self._scale))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        self._image = np.require(image, requirements=["C", "W"])
        self._size = (self._image.shape[1], self._image.shape[0])
        # A panorama is as readable as its shorter side allows.
        side = min(max(self._size), 2 * min(self._size))
        self._line = max(2, round(side / 320))
        self._edge = max(1, self._line // 4)
        self._text = max(12, round(8 + side / 80))
        self._labels: list[_Label] = []
        self._clear: list[Box] = []

    def box(self, box: Box, colour: Colour, label: str) -> None:
        """Draw a box x1, y1, x2, y2 with a label."""
        left, top, right, bottom = box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        self._stroke([corners], colour)
        self._add_label(label, colour, self._scaled(box))

    def note(self, text: str, colour: Colour) -> None:
        """Label the whole picture."""
        self._add_label(text, colour, (0, 0, *self._size))

    def limbs(self, limbs: Sequence[tuple[Point, Point]], joints: Iterable[Point], colour: Colour) -> None:
        """Draw lines between joints, and each joint as a dot."""
        self._stroke(limbs, colour)
        for joint in joints:
            centre = self._fixed([joint])[0]
            for radius, fill in ((1.5 * self._line + self._edge, BLACK), (1.5 * self._line, colour)):
                size = round(radius * 2**_SHIFT)
                cv2.circle(self._image, tuple(centre.tolist()), size, fill, cv2.FILLED, cv2.LINE_AA, _SHIFT)

    def keep_clear(self, box: Box) -> None:
        """Let labels cover this part of the picture only if there is no room elsewhere."""
        self._clear.append(self._scaled(box))

    def drawn(self) -> Image.Image:
        """Return the picture with all labels. A label for which there is no room is left out."""
        font_size = self._text
        placed = self._placed(font_size)
        while font_size > _LEAST_TEXT and not self._has_all(placed):
            font_size = max(_LEAST_TEXT, round(font_size * 0.75))
            placed = self._placed(font_size)
        for label, place, _ in placed:
            self._lead(label, place)
        image = Image.fromarray(self._image)
        draw, font = ImageDraw.Draw(image), _font(font_size)
        for label, place, text in placed:
            draw.rectangle(place, fill=label.colour, outline=BLACK)
            middle = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
            draw.text(middle, text, fill=text_on(label.colour), font=font, anchor="mm")
        return image

    def _add_label(self, text: str, colour: Colour, box: Box) -> None:
        """Add a label of one line. text: may hold a checkpoint's own names."""
        if len(self._labels) < _MOST_LABELS:
            self._labels.append(_Label(" ".join(text.split())[:_LONGEST_TEXT], colour, box))

    def _placed(self, font_size: int) -> list[_Placed]:
        """Return the labels that have room, each with its place and the part of its text that fits."""
        places, font, found = Places(self._size, self._clear, font_size // 3), _font(font_size), []
        for label in self._labels:
            text = _fitting(label.text, font, self._size[0] - font_size)
            place = places.take((font.getlength(text) + font_size * 0.6, font_size * 1.4), label.box)
            if place is not None:
                found.append((label, place, text))
        return found

    def _has_all(self, placed: Sequence[_Placed]) -> bool:
        return len(placed) == len(self._labels) and all(label.text == text for label, _, text in placed)

    def _lead(self, label: _Label, place: Box) -> None:
        """Draw a line from a label to its box, if they don't touch."""
        start, end = [], []
        for axis in (0, 1):
            low, high = max(place[axis], label.box[axis]), min(place[axis + 2], label.box[axis + 2])
            apart = low > high
            start.append((high if place[axis] < label.box[axis] else low) if apart else (low + high) / 2)
            end.append((low if place[axis] < label.box[axis] else high) if apart else (low + high) / 2)
        if start != end:
            points = [(x / self._scale, y / self._scale) for x, y in (start, end)]
            self._stroke([points], label.colour)

    def _stroke(self, lines: Iterable[Sequence[Point]], colour: Colour) -> None:
        """Draw lines with a dark edge, which makes them visible on any ground."""
        fixed = [self._fixed(line) for line in lines]
        for width, stroke in ((self._line + 2 * self._edge, BLACK), (self._line, colour)):
            cv2.polylines(self._image, fixed, False, stroke, width, cv2.LINE_AA, _SHIFT)

    def _fixed(self, points: Sequence[Point]) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
        fixed = np.rint(np.array(points) * (self._scale * 2**_SHIFT))
        return np.clip(fixed, -_FARTHEST, _FARTHEST).astype(np.int32)

    def _scaled(self, box: Box) -> Box:
        left, top, right, bottom = (value * self._scale for value in box)
        return left, top, right, bottom


def canvas_bytes(height: int, width: int) -> int:
    """An upper bound of the memory in bytes that a canvas takes beside its picture, until it is encoded."""
    return round(_BYTES_OF_PIXEL * height * width * _scale(height, width) ** 2)


def encode(image: Image.Image, form: ImageFormat, comment: str) -> bytes:
    """Encode as JPEG or PNG. The comment is left out if it is too long for a JPEG."""
    buffer = io.BytesIO()
    if form == "PNG":
        info = PngInfo()
        info.add_itxt("Comment", comment)
        image.save(buffer, form, pnginfo=info, compress_level=1)
    else:
        text = comment.encode()
        fits = len(text) <= _LONGEST_JPEG_COMMENT
        image.save(buffer, form, quality=_JPEG_QUALITY, comment=text if fits else b"")
    return buffer.getvalue()


def _scale(height: int, width: int) -> float:
    return min(1.0, MAX_SIDE / max(height, width))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
    return font


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Return as much of a text as fits into a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
