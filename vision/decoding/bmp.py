"""Decodes BMP files: pixels of 16 and 32 bits by their masks, all others with Pillow."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from vision.arrays import RGB
from vision.bands import band_bytes, bands, in_bands
from vision.decoding import alpha, pillow
from vision.decoding.colour import to_srgb
from vision.decoding.picture_file import PictureFile
from vision.errors import DamagedImage, UnsupportedFormat

_FILE_HEADER: Final = 14
_OS2_HEADER, _USUAL_HEADER, _ALPHA_HEADER, _PROFILE_HEADER = 12, 40, 56, 124  # sizes of the headers' versions
_LARGEST_HEADER: Final = 255
_PLAIN, _RLE8, _RLE4, _MASKS, _ALPHA_MASKS = 0, 1, 2, 3, 6
_NAMES: Final = {4: "JPEG", 5: "PNG", 11: "CMYK", 12: "CMYK in RLE8", 13: "CMYK in RLE4"}  # refused compressions
_ACCEPTED: Final = frozenset(
    [*((_PLAIN, bits) for bits in (1, 4, 8, 16, 24, 32)), (_RLE8, 8), (_RLE4, 4)]
    + [(compression, bits) for compression in (_MASKS, _ALPHA_MASKS) for bits in (16, 32)]
)
_PLAIN_MASKS: Final = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
_WHOLE_BYTES: Final = (0xFF0000, 0xFF00, 0xFF)
_EMBEDDED: Final = b"DEBM"  # the profile is in the file


@dataclass(frozen=True, kw_only=True)
class BmpFile(PictureFile):
    """A BMP. masks: of red, green, blue, alpha in a pixel of 16 or 32 bits. start: byte offset of the pixels."""

    FORMAT: ClassVar[str] = "BMP"

    data: bytes
    bits: int
    masks: tuple[int, int, int, int]
    start: int
    top_down: bool
    profile: bytes | None

    @property
    def peak_bytes(self) -> int:
        per_pixel = 3 if self.bits in _PLAIN_MASKS else 7 if self.bits == 24 else 6
        return self.pixels * per_pixel + band_bytes(self.height, self.width)

    def decode(self) -> RGB:
        if self.bits not in _PLAIN_MASKS:
            return to_srgb(pillow.samples(self.data, "BMP", "RGB"), self.profile)
        words = self._words()
        # Many writers set the alpha byte of all pixels to 0 and mean an opaque picture.
        has_alpha = any((words[part] & words.dtype.type(self.masks[3])).any() for part in bands(*words.shape))

        def convert(part: slice) -> RGB:
            colours = to_srgb(self._colours(words[part]), self.profile)
            return alpha.on_white(colours, _channel(words[part], self.masks[3])) if has_alpha else colours

        return in_bands(convert, self.height, self.width)

    def _words(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """(h, w) pixels, top row first."""
        stride = -(-self.width * self.bits // 32) * 4
        if self.start + stride * self.height > len(self.data):
            raise DamagedImage("the BMP is truncated: rows of its pixels are missing")
        kind = np.dtype(f"<u{self.bits // 8}")
        words = np.frombuffer(self.data, kind, stride * self.height // kind.itemsize, self.start)
        words = words.reshape(self.height, -1)[:, : self.width]
        return words if self.top_down else words[::-1]

    def _colours(self, words: NDArray[np.uint16] | NDArray[np.uint32]) -> RGB:
        if self.masks[:3] == _WHOLE_BYTES:
            pixels = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 4)
            return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), dtype=np.uint8)
        return np.asarray(cv2.merge([_channel(words, mask) for mask in self.masks[:3]]), dtype=np.uint8)


def open_bmp(data: bytes) -> BmpFile:
    """Read a BMP's header. Raises DamagedImage or UnsupportedFormat."""
    try:
        (start,) = struct.unpack_from("<I", data, 10)
        (size,) = struct.unpack_from("<I", data, _FILE_HEADER)
        if size == _OS2_HEADER:
            width, height, _, bits = struct.unpack_from("<HHHH", data, _FILE_HEADER + 4)
            compression = _PLAIN
        elif _USUAL_HEADER <= size <= _LARGEST_HEADER:
            width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, _FILE_HEADER + 4)
        else:
            raise DamagedImage("the BMP's header is damaged")
        if (compression, bits) not in _ACCEPTED:
            kind = _NAMES.get(compression, f"compression {compression}")
            raise UnsupportedFormat(
                f"BMPs of {bits} bits a pixel{f' and {kind}' if compression else ''} are not accepted;"
                " send one of 1, 4, 8, 16, 24 or 32 bits, plain, in RLE or with masks"
            )
        masks, first = _PLAIN_MASKS.get(bits, (0, 0, 0, 0)), _FILE_HEADER + size
        if compression in (_MASKS, _ALPHA_MASKS):
            has_alpha = size >= _ALPHA_HEADER or compression == _ALPHA_MASKS
            red, green, blue, opacity = struct.unpack_from("<IIII", data, _FILE_HEADER + _USUAL_HEADER)
            masks = (red, green, blue, opacity if has_alpha else 0)
            if size == _USUAL_HEADER:  # the masks follow it
                first += 16 if has_alpha else 12
    except struct.error:
        raise DamagedImage("the BMP is truncated within its header") from None
    if width <= 0 or height == 0:
        raise DamagedImage(f"the BMP's header is damaged: it announces {width}×{height} pixels")
    if any(masks) and not all(_is_run(mask, bits) for mask in masks):
        raise DamagedImage("the BMP's header is damaged: its masks are no runs of bits")
    if 0 < start < _FILE_HEADER + size:
        raise DamagedImage(f"the BMP's header is damaged: its pixels would begin within it, at byte {start}")
    profile = _profile(data) if size == _PROFILE_HEADER else None
    return BmpFile(
        width=width,
        height=abs(height),
        data=data,
        bits=bits,
        masks=masks,
        start=start or first,  # some writers leave it out
        top_down=height < 0,
        profile=profile,
    )


def _is_run(mask: int, bits: int) -> bool:
    """Whether a mask is one run of set bits within a pixel, or empty (no such channel)."""
    run = mask // (mask & -mask) if mask else 0
    return mask < 1 << bits and run & (run + 1) == 0


def _channel(words: NDArray[np.uint16] | NDArray[np.uint32], mask: int) -> NDArray[np.uint8]:
    """The channel of a mask, (h, w), scaled to 0…255."""
    if mask == 0:
        return np.zeros(words.shape, np.uint8)
    lowest = (mask & -mask).bit_length() - 1
    bits = mask.bit_length() - lowest
    values = (words & words.dtype.type(mask)) >> words.dtype.type(lowest)
    if bits >= 8:
        return (values >> words.dtype.type(bits - 8)).astype(np.uint8)
    spread = np.round(np.arange(1 << bits) * (255 / ((1 << bits) - 1))).astype(np.uint8)
    return np.asarray(spread[values])


def _profile(data: bytes) -> bytes | None:
    kind, offset, size = struct.unpack_from("<4s52xII", data.ljust(_FILE_HEADER + _PROFILE_HEADER, b"\0"), 70)
    place = _FILE_HEADER + offset
    return data[place : place + size] if kind == _EMBEDDED else None
