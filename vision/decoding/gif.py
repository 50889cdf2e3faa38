"""Decodes the first frame of GIF files, at its place on the logical screen. Free and transparent parts are white."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from vision.arrays import RGB
from vision.bands import band_bytes
from vision.decoding import pillow
from vision.decoding.alpha import WHITE
from vision.decoding.picture_file import PictureFile
from vision.errors import DamagedImage, ImageTooLarge

_HEADER: Final = struct.Struct("<6sHHBBB")
_FRAME: Final = struct.Struct("<HHHHB")
_EXTENSION, _IMAGE, _CONTROL = 0x21, 0x2C, 0xF9
_HAS_TABLE, _TABLE_SIZE, _HAS_TRANSPARENCY = 0x80, 0x07, 0x01
_FULL_TABLE: Final = 3 * 256  # bytes
_MOST_BLOCKS: Final = 200_000  # of extensions before the first frame; 10 MB of comments have 41,000 full blocks


@dataclass(frozen=True, kw_only=True)
class GifFile(PictureFile):
    """A GIF. left, top, frame_width, frame_height: of the first frame, in pixels. coded: its data to the file's end."""

    FORMAT: ClassVar[str] = "GIF"

    left: int
    top: int
    frame_width: int
    frame_height: int
    interlaced: int
    palette: bytes
    transparent: int | None
    coded: bytes

    @property
    def peak_bytes(self) -> int:
        frame = self.frame_width * self.frame_height
        is_whole = (self.frame_width, self.frame_height) == (self.width, self.height)
        peak = max(4 * frame, 0 if is_whole else 3 * (frame + self.pixels))
        return peak + 2 * len(self.coded) + band_bytes(self.height, self.width)

    def decode(self) -> RGB:
        if self.frame_width == 0 or self.frame_height == 0:
            raise DamagedImage("the GIF's first frame has no pixels")
        frame = pillow.samples(self._frame_alone(), "GIF", "RGB")
        if (self.frame_width, self.frame_height) == (self.width, self.height):
            return frame
        screen = np.full((self.height, self.width, 3), WHITE, np.uint8)
        screen[self.top : self.top + self.frame_height, self.left : self.left + self.frame_width] = frame
        return screen

    def _frame_alone(self) -> bytes:
        """A GIF file of only the first frame, with a white transparent colour."""
        table = bytearray(self.palette.ljust(_FULL_TABLE, b"\0"))
        if self.transparent is not None:
            table[3 * self.transparent : 3 * self.transparent + 3] = bytes([WHITE] * 3)
        header = _HEADER.pack(b"GIF89a", self.frame_width, self.frame_height, _HAS_TABLE | _TABLE_SIZE, 0, 0)
        frame = _FRAME.pack(0, 0, self.frame_width, self.frame_height, self.interlaced)
        return header + table + bytes([_IMAGE]) + frame + self.coded


def open_gif(data: bytes) -> GifFile:
    """Read a GIF up to its first frame. Raises DamagedImage or ImageTooLarge."""
    try:
        _, width, height, flags, _, _ = _HEADER.unpack_from(data)
        palette, position = _table(data, _HEADER.size, flags)
        transparent, blocks = None, _MOST_BLOCKS
        while data[position] != _IMAGE:
            if data[position] != _EXTENSION:
                raise DamagedImage("the GIF is damaged before its first frame")
            if data[position + 1] == _CONTROL and data[position + 3] & _HAS_TRANSPARENCY:
                transparent = data[position + 6]
            position, blocks = _skip_blocks(data, position + 2, blocks)
        left, top, frame_width, frame_height, frame_flags = _FRAME.unpack_from(data, position + 1)
        local, position = _table(data, position + 1 + _FRAME.size, frame_flags)
    except (IndexError, struct.error):
        raise DamagedImage("the GIF is truncated before its first frame") from None
    return GifFile(
        width=max(width, left + frame_width),
        height=max(height, top + frame_height),
        left=left,
        top=top,
        frame_width=frame_width,
        frame_height=frame_height,
        interlaced=frame_flags & 0x40,
        palette=local or palette or _no_table(),
        transparent=transparent,
        coded=data[position:],
    )


def _table(data: bytes, position: int, flags: int) -> tuple[bytes, int]:
    """A colour table, empty if the flags announce none, and the position behind it."""
    end = position + (3 << ((flags & _TABLE_SIZE) + 1) if flags & _HAS_TABLE else 0)
    return data[position:end], end


def _no_table() -> bytes:
    """A table of greys. The standard does not define the colours of a GIF without a table."""
    return bytes(value for grey in range(256) for value in (grey, grey, grey))


def _skip_blocks(data: bytes, position: int, left: int) -> tuple[int, int]:
    """Skip the blocks of an extension. Returns the position behind them and the number of blocks still allowed.

    Raises ImageTooLarge.
    """
    for number in range(left):
        size = data[position]
        position += size + 1
        if size == 0:
            return position, left - number - 1
    raise ImageTooLarge(f"the GIF has more than {_MOST_BLOCKS} blocks before its first frame")
