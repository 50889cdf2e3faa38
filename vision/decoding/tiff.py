"""Decodes TIFF files of tested layouts, recognised by their tags. All other layouts are refused.

libtiff, through Pillow, only decompresses; this module reads the samples from the bytes. So a layout has the same
meaning in strips and tiles, in one plane and in several, in either byte order and under any compression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from vision.arrays import RGB
from vision.bands import Rows, band_bytes, bands, in_bands
from vision.decoding import alpha
from vision.decoding.colour import to_srgb
from vision.decoding.directory import Directory
from vision.decoding.orientation import ORIENTATION, UPRIGHT, turn
from vision.decoding.picture_file import PictureFile
from vision.decoding.tiff_samples import (
    Coding,
    Segments,
    eight_bits,
    jpeg_samples,
    of_range,
    range_of,
    read_samples,
    stored_bytes,
)
from vision.errors import DamagedImage, ImageTooLarge, UnsupportedFormat

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR = 273, 277, 278, 279, 284
_T4_OPTIONS, _T6_OPTIONS, _PREDICTOR, _COLOUR_MAP = 292, 293, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _INKS = 322, 323, 324, 325, 332
_YCBCR_COEFFICIENTS, _SUBSAMPLING, _REFERENCE_BLACK_WHITE = 529, 530, 532
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _JPEG_TABLES, _PROFILE = 338, 339, 347, 34675

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRICS: Final = {
    _WHITE_IS_ZERO: "grey, white is zero",
    _BLACK_IS_ZERO: "grey",
    _RGB: "RGB",
    _PALETTE: "palette",
    4: "mask",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    8: "Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_UNSIGNED, _FLOAT = 1, 3
_FORMATS: Final = {_UNSIGNED: "", 2: ", signed", _FLOAT: ", float", 4: ", untyped", 5: ", complex", 6: ", complex"}

_NONE, _FAX3, _FAX4, _RLE_FAX, _LZW, _OLD_JPEG, _JPEG, _DEFLATE, _PACKBITS = 1, 3, 4, 2, 5, 6, 7, 8, 32773
_OLD_DEFLATE, _LZMA, _ZSTD = 32946, 34925, 50000
_FAX: Final = frozenset({_RLE_FAX, _FAX3, _FAX4})
_BYTEWISE: Final = frozenset({_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD})  # know nothing of samples
_PREDICTED: Final = _BYTEWISE - {_NONE, _PACKBITS}
_COMPRESSIONS: Final = {
    _NONE: "no compression",
    _RLE_FAX: "CCITT RLE",
    _FAX3: "CCITT 3",
    _FAX4: "CCITT 4",
    _LZW: "LZW",
    _OLD_JPEG: "old-style JPEG",
    _JPEG: "JPEG",
    _DEFLATE: "deflate",
    _PACKBITS: "PackBits",
    _OLD_DEFLATE: "deflate",
    _LZMA: "LZMA",
    _ZSTD: "Zstandard",
    34887: "LERC",
    50001: "WebP",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
# Photometric, sample format → allowed bits per sample, and samples per pixel without extra samples.
_LAYOUTS: Final = {
    (_WHITE_IS_ZERO, _UNSIGNED): ((1, 2, 4, 8, 12, 16, 32), 1),
    (_BLACK_IS_ZERO, _UNSIGNED): ((1, 2, 4, 8, 12, 16, 32), 1),
    (_BLACK_IS_ZERO, _FLOAT): ((16, 32, 64), 1),
    (_RGB, _UNSIGNED): ((8, 16), 3),
    (_PALETTE, _UNSIGNED): ((1, 2, 4, 8), 1),
    (_CMYK, _UNSIGNED): ((8, 16), 4),
    (_YCBCR, _UNSIGNED): ((8,), 3),
}
_EXTRA_ALLOWED: Final = frozenset({_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB})
_ACCEPTED: Final = (
    "grey of 1, 2, 4, 8, 12, 16, 32 bits or of floats, RGB and CMYK of 8 or 16 bits, palettes of up to 8,"
    " YCbCr in JPEG; in any usual compression"
)
_FULL_RANGES: Final = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)  # reference black and white of Y, Cb and Cr
_ASSOCIATED, _UNASSOCIATED = 1, 2
_HORIZONTAL: Final = 2  # the horizontal predictor
_MOST_SEGMENTS: Final = (
    65_536  # strips or tiles: enough for strips of one row; 50 megapixels have 763 tiles of 256 × 256
)
# Coded bytes of all strips or tiles. Equal ones may share their bytes; an attacker could let 65,536 share a whole file.
_MOST_CODED: Final = 2**26
_MOST_JPEGS: Final = 10_000  # strips or tiles; each takes 70 µs, however small it is (2 cores, 2026-11)
_TILE_PIXELS: Final = 2**22  # the limit for a tile that is larger than its picture


_ONES: Final = (1,)


@dataclass(frozen=True)
class _Layout:
    """The meaning of a pixel's samples. extra: the meaning of the extra sample; None if there is none."""

    photometric: int
    extra: int | None


@dataclass(frozen=True, kw_only=True)
class TiffFile(PictureFile):
    FORMAT: ClassVar[str] = "TIFF"

    data: bytes
    tags: Directory
    layout: _Layout
    coding: Coding
    segments: Segments

    @property
    def peak_bytes(self) -> int:
        stored, segment = stored_bytes(self.segments, self.coding, (self.width, self.height))
        turned = 0 if self._orientation() == UPRIGHT else 6 * self.pixels
        is_plain = self.coding.compression == _NONE and not self.segments.tiled
        if is_plain:  # reversing the bits of bytes needs an index of eight bytes for each
            decoding = 10 * stored if self.coding.fill_order == 2 else stored
        else:
            decoding = stored + 2 * segment + 4 * len(self.data)
        return max(decoding, stored + 3 * self.pixels, turned) + band_bytes(self.height, self.width)

    def decode(self) -> RGB:
        return turn(self._pixels(self._rows()), self._orientation())

    def _rows(self) -> Rows:
        if self.coding.compression == _JPEG:
            adobe = {_RGB: 0, _YCBCR: 1}.get(self.layout.photometric)
            samples = jpeg_samples(self.data, self.segments, self.coding, adobe)
            return lambda part: samples[part, : self.width]
        return read_samples(self.data, self.segments, self.coding, (self.width, self.height))

    def _pixels(self, samples: Rows) -> RGB:
        is_float = self.coding.format == _FLOAT
        lowest, highest = range_of(map(samples, bands(self.height, self.width))) if is_float else (0.0, 0.0)
        palette = self._palette() if self.layout.photometric == _PALETTE else None
        profile, extra = self.tags.raw(_PROFILE), self.layout.extra

        def convert(rows: slice) -> RGB:
            part = samples(rows)
            if palette is not None:
                colours = palette[part[..., 0]]
            elif is_float:
                colours = of_range(part, lowest, highest)
            else:
                colours = eight_bits(part if extra is None else part[..., :-1], self.coding.bits)
            pixels = to_srgb(np.ascontiguousarray(self._meant(colours)), profile)
            if extra not in (_ASSOCIATED, _UNASSOCIATED):
                return pixels
            opacity = eight_bits(part[..., -1], self.coding.bits)
            return alpha.on_white(pixels, opacity, premultiplied=extra == _ASSOCIATED)

        return in_bands(convert, self.height, self.width)

    def _meant(self, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Interpret 8-bit samples: grey (h, w), RGB (h, w, 3) or CMYK (h, w, 4)."""
        match self.layout.photometric:
            case 0:
                return 255 - colours[..., 0]
            case 1:
                return colours[..., 0]
            case 6 if self.coding.compression != _JPEG:
                whole = np.ascontiguousarray(colours[..., [0, 2, 1]])
                return np.asarray(cv2.cvtColor(whole, cv2.COLOR_YCrCb2RGB), dtype=np.uint8)
        return colours

    def _palette(self) -> RGB:
        """The palette (2 ** bits, 3). Like libtiff, it accepts writers that use 8 bits per value instead of 16."""
        values = np.array(self.tags.integers(_COLOUR_MAP), np.int64)
        if len(values) != 3 << self.coding.bits or values.max() > 0xFFFF:
            raise DamagedImage("the TIFF's palette is missing or damaged")
        return (values >> (8 if values.max() > 255 else 0)).astype(np.uint8).reshape(3, -1).T

    def _orientation(self) -> int:
        try:
            return self.tags.integer(ORIENTATION, UPRIGHT)
        except DamagedImage:
            return UPRIGHT


def open_tiff(data: bytes) -> TiffFile:
    """Read a TIFF's first directory. Raises DamagedImage or UnsupportedFormat."""
    tags = Directory(data)
    width, height = tags.integer(_WIDTH, 0), tags.integer(_HEIGHT, 0)
    if not width or not height:
        raise DamagedImage("the TIFF is damaged: it announces no size")
    layout, coding = _described(tags)
    return TiffFile(
        width=width,
        height=height,
        data=data,
        tags=tags,
        layout=layout,
        coding=coding,
        segments=_segments(tags, coding, (width, height), len(data)),
    )


def _described(tags: Directory) -> tuple[_Layout, Coding]:
    """The meaning and the coding of the samples. Raises UnsupportedFormat for untested layouts."""
    photometric, compression = tags.integer(_PHOTOMETRIC, -1), tags.integer(_COMPRESSION, _NONE)
    samples = tags.integer(_SAMPLES, 1)
    bits, formats = tags.integers(_BITS, _ONES), tags.integers(_SAMPLE_FORMAT, (_UNSIGNED,))
    widths, colours = _LAYOUTS.get((photometric, formats[0]), ((), 0))
    extra = None if samples == colours else tags.integer(_EXTRA_SAMPLES, 0)
    planar, order = tags.integer(_PLANAR, 1) == 2 and samples > 1, tags.integer(_FILL_ORDER, 1)
    predictor = tags.integer(_PREDICTOR, 1) if compression in _PREDICTED else 1
    known = (
        len({*bits}) == len({*formats}) == 1
        and bits[0] in widths
        and (extra is None or (samples == colours + 1 and photometric in _EXTRA_ALLOWED and formats[0] == _UNSIGNED))
        and tags.integer(_INKS, 1) == 1
        and (order == 1 or (order == 2 and bits[0] < 8))
        and (predictor == 1 or (predictor == _HORIZONTAL and bits[0] in (8, 16, 32) and formats[0] == _UNSIGNED))
        and _fits(tags, compression, photometric, bits[0], samples, planar)
    )
    if not known:
        raise UnsupportedFormat(
            f"TIFFs of {samples} × {bits[0]} bits{_FORMATS.get(formats[0], ', of an unknown type')}"
            f" ({_PHOTOMETRICS.get(photometric, f'photometric {photometric}')},"
            f" {_COMPRESSIONS.get(compression, f'compression {compression}')}"
            f"{f', predictor {predictor}' if predictor != 1 else ''}{', bits reversed' if order != 1 else ''})"
            f" are not accepted; send {_ACCEPTED}"
        )
    coding = Coding(
        compression=compression,
        bits=bits[0],
        format=formats[0],
        samples=samples,
        planar=planar,
        order=tags.order,
        fill_order=order,
        predictor=predictor == _HORIZONTAL,
        options=(tags.integer(_T4_OPTIONS, 0) & 7, tags.integer(_T6_OPTIONS, 0) & 2) if compression in _FAX else (0, 0),
        jpeg_tables=tags.raw(_JPEG_TABLES) or b"",
    )
    return _Layout(photometric, extra), coding


def _fits(tags: Directory, compression: int, photometric: int, bits: int, samples: int, planar: bool) -> bool:
    """Whether these samples may have this compression."""
    if compression == _JPEG:
        jpeg = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _YCBCR: 3}
        return bits == 8 and samples == jpeg.get(photometric) and not planar
    if photometric == _YCBCR and (planar or not _has_whole_colours(tags)):
        return False
    return compression in _BYTEWISE or (compression in _FAX and bits == samples == 1)


def _has_whole_colours(tags: Directory) -> bool:
    """Whether a YCbCr picture has no subsampling, and JPEG's coefficients and ranges."""
    ranges = tags.ratios(_REFERENCE_BLACK_WHITE) if _REFERENCE_BLACK_WHITE in tags else _FULL_RANGES
    return tags.integers(_SUBSAMPLING) == (1, 1) and _YCBCR_COEFFICIENTS not in tags and ranges == _FULL_RANGES


def _segments(tags: Directory, coding: Coding, size: tuple[int, int], file_size: int) -> Segments:
    """The strips or tiles. Raises DamagedImage if they don't cover the picture or lie outside the file."""
    tiled = _TILE_WIDTH in tags
    if tiled:
        width, height = tags.integer(_TILE_WIDTH, 0), tags.integer(_TILE_HEIGHT, 0)
    else:
        width, height = size[0], min(tags.integer(_ROWS_PER_STRIP, size[1]), size[1])
    if not width or not height or (tiled and width * height > max(_TILE_PIXELS, size[0] * size[1])):
        raise DamagedImage(f"the TIFF is damaged: it announces strips or tiles of {width}×{height} pixels")
    across, down = -(-size[0] // width), -(-size[1] // height)
    number = across * down * (coding.samples if coding.planar else 1)
    most = _MOST_JPEGS if coding.compression == _JPEG else _MOST_SEGMENTS
    if number > most:
        raise ImageTooLarge(f"the TIFF has {number} strips or tiles; at most {most} are taken")
    offsets = tags.integers(_TILE_OFFSETS if tiled else _STRIP_OFFSETS)
    counts = tags.integers(_TILE_COUNTS if tiled else _STRIP_COUNTS)
    if not counts and number == 1 == len(offsets):
        counts = (max(file_size - offsets[0], 0),)  # early writers omit the size: it extends to the file's end
    if min(len(offsets), len(counts)) < number or 0 in offsets[:number]:
        raise DamagedImage("the TIFF is damaged: strips or tiles of its picture are missing")
    if any(offset + count > file_size for offset, count in zip(offsets[:number], counts, strict=False)):
        raise DamagedImage("the TIFF is truncated: a part of its pixels lies behind the end of the file")
    if sum(counts[:number]) > max(file_size, _MOST_CODED):
        raise DamagedImage("the TIFF is damaged: its strips or tiles overlap")
    return Segments(tiled, width, height, across, down, offsets[:number], counts[:number])
