"""Decodes the first frame of WebP files, at its place on the canvas. libwebp gets only the chunks of that frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from vision.arrays import RGB
from vision.bands import band_bytes, in_bands
from vision.decoding import alpha
from vision.decoding.colour import to_srgb
from vision.decoding.orientation import UPRIGHT, orientation_of, turn
from vision.decoding.picture_file import PictureFile
from vision.errors import DamagedImage, ImageTooLarge

_CHUNK: Final = struct.Struct("<4sI")
_FRAME_HEADER: Final = 16  # bytes before the chunks of an animation's frame
_HAS_ALPHA: Final = 0x10
_CODED: Final = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_MOST_CHUNKS: Final = 10_000  # enough for five minutes of animation; an attacker could send a million empty chunks


@dataclass(frozen=True, kw_only=True)
class WebpFile(PictureFile):
    """A WebP. left, top, frame_width, frame_height: of the first frame, in pixels. coded: its chunks with headers."""

    FORMAT: ClassVar[str] = "WEBP"

    left: int
    top: int
    frame_width: int
    frame_height: int
    coded: bytes
    orientation: int
    profile: bytes | None

    @property
    def peak_bytes(self) -> int:
        frame = self.frame_width * self.frame_height
        # Bytes per pixel. Lossy: the samples twice, plus alpha. Lossless: four more beside the samples.
        decoded = 10 if self.coded.startswith(b"ALPH") else 9 if self.coded.startswith(b"VP8L") else 7
        is_whole = (self.frame_width, self.frame_height) == (self.width, self.height)
        turned = 0 if self.orientation == UPRIGHT else 6 * self.pixels
        peak = max(decoded * frame, 0 if is_whole else 3 * (frame + self.pixels), turned)
        return peak + 3 * len(self.coded) + band_bytes(self.height, self.width)

    def decode(self) -> RGB:
        return turn(self._on_canvas(self._colours(self._samples())), self.orientation)

    def _samples(self) -> NDArray[np.uint8]:
        """Decode to BGR (h, w, 3) or BGRA (h, w, 4). Pillow's animation decoder would need three times the memory."""
        try:
            found = cv2.imdecode(np.frombuffer(self._frame_alone(), np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            found = None
        if found is None or found.shape[:2] != (self.frame_height, self.frame_width):
            raise DamagedImage("the WEBP image is damaged or truncated")
        return np.asarray(found, dtype=np.uint8)

    def _colours(self, samples: NDArray[np.uint8]) -> RGB:
        if samples.shape[2] == 3:
            return to_srgb(np.asarray(cv2.cvtColor(samples, cv2.COLOR_BGR2RGB, dst=samples)), self.profile)
        opaque = alpha.is_opaque(samples[..., 3])

        def convert(rows: slice) -> RGB:
            colours = np.asarray(cv2.cvtColor(samples[rows], cv2.COLOR_BGRA2RGB), dtype=np.uint8)
            pixels = to_srgb(colours, self.profile)
            return pixels if opaque else alpha.on_white(pixels, samples[rows, :, 3])

        return in_bands(convert, self.frame_height, self.frame_width)

    def _on_canvas(self, frame: RGB) -> RGB:
        if (self.frame_width, self.frame_height) == (self.width, self.height):
            return frame
        canvas = np.full((self.height, self.width, 3), alpha.WHITE, np.uint8)
        canvas[self.top : self.top + self.frame_height, self.left : self.left + self.frame_width] = frame
        return canvas

    def _frame_alone(self) -> bytes:
        """A WebP file of only the first frame, without metadata."""
        size = (self.frame_width - 1).to_bytes(3, "little") + (self.frame_height - 1).to_bytes(3, "little")
        extended = (
            _CHUNK.pack(b"VP8X", 10) + bytes([_HAS_ALPHA, 0, 0, 0]) + size if self.coded.startswith(b"ALPH") else b""
        )
        body = b"WEBP" + extended + self.coded
        return _CHUNK.pack(b"RIFF", len(body)) + body


def open_webp(data: bytes) -> WebpFile:
    """Read the chunks of a WebP. Raises DamagedImage or ImageTooLarge."""
    if data[8:12] != b"WEBP":
        raise DamagedImage("the bytes are a RIFF file, but no WebP")
    canvas: tuple[int, int] | None = None
    frame: tuple[int, int, int, int] | None = None
    coded = (12, len(data))
    metadata: dict[bytes, bytes] = {}
    for kind, start, end in _chunks(data, *coded):
        if kind == b"VP8X" and end - start >= 10:
            canvas = _size(data, start + 4)
        elif kind == b"ANMF" and frame is None and end - start >= _FRAME_HEADER:
            left, top = (2 * _number(data, start + 3 * axis) for axis in (0, 1))
            frame = (left, top, *_size(data, start + 6))
            coded = (start + _FRAME_HEADER, end)
        elif kind in (b"EXIF", b"ICCP"):
            metadata.setdefault(kind, data[start:end])
    picture = _picture(data, *coded)
    stored = _coded_size(picture)
    left, top, width, height = frame or (0, 0, *stored)
    canvas = canvas or stored
    if (width, height) != stored or left + width > canvas[0] or top + height > canvas[1]:
        raise DamagedImage("the WebP is damaged: its picture has another size than its header says")
    return WebpFile(
        width=canvas[0],
        height=canvas[1],
        left=left,
        top=top,
        frame_width=width,
        frame_height=height,
        coded=picture,
        orientation=orientation_of(metadata.get(b"EXIF")),
        profile=metadata.get(b"ICCP"),
    )


def _chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk. Raises DamagedImage if the file ends within a chunk of the picture."""
    for _ in range(_MOST_CHUNKS):
        if position + _CHUNK.size > end:
            return
        kind, size = _CHUNK.unpack_from(data, position)
        start = position + _CHUNK.size
        if kind in _CODED and start + size > end:
            raise DamagedImage("the WebP is truncated: it ends within its picture")
        yield kind, start, min(start + size, end)
        position = start + size + size % 2
    raise ImageTooLarge(f"the WebP has more than {_MOST_CHUNKS} chunks")


def _picture(data: bytes, position: int, end: int) -> bytes:
    """The chunks of the first coded picture, with a separate alpha chunk if there is one."""
    opacity = b""
    for kind, start, stop in _chunks(data, position, end):
        if kind == b"ALPH" and not opacity:
            opacity = _chunk(kind, data[start:stop])
        elif kind == b"VP8 ":
            return opacity + _chunk(kind, data[start:stop])
        elif kind == b"VP8L":
            return _chunk(kind, data[start:stop])
    raise DamagedImage("the WebP is damaged or truncated: it has no picture")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return _CHUNK.pack(kind, len(content)) + content + b"\0" * (len(content) % 2)


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 3], "little")


def _size(data: bytes, place: int) -> tuple[int, int]:
    return _number(data, place) + 1, _number(data, place + 3) + 1


def _coded_size(picture: bytes) -> tuple[int, int]:
    """Width and height from the header of the coded picture."""
    for kind, start, end in _chunks(picture, 0, len(picture)):
        if kind == b"VP8L" and end - start >= 5 and picture[start] == 0x2F:
            bits = int.from_bytes(picture[start + 1 : start + 5], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if kind == b"VP8 " and end - start >= 10 and picture[start + 3 : start + 6] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", picture, start + 6)
            if width & 0x3FFF and height & 0x3FFF:
                return width & 0x3FFF, height & 0x3FFF
    raise DamagedImage("the WebP's picture has a damaged header")
