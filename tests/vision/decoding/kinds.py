"""A file of every kind that takes memory of its own to decode, all of the same size."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.vision.decoding.made import chunk as png_chunk
from tests.vision.decoding.made import display_p3_profile, png

Samples = NDArray[Any]
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
Make = Callable[[int], bytes]  # of a side in pixels

_TURNED: Final = Image.Exif()
_TURNED[0x0112] = 6
_BITS_12: Final = png_chunk(b"sBIT", b"\x0c")
_LINEAR: Final = png_chunk(b"gAMA", struct.pack(">I", 100_000))


def samples(side: int, channels: int = 1, kind: Any = np.uint8) -> Samples:
    """(side, side, channels), smooth, and no value the same all over."""
    top = 1000 if np.dtype(kind).kind == "f" else np.iinfo(kind).max
    line = np.linspace(0, top, side).astype(kind)
    picture = np.empty((side, side, channels), kind)
    for channel in range(channels):
        picture[..., channel] = line if channel % 2 else line[:, None]
    return picture


def _saved(channels: int, form: str, mode: str | None = None, **options: Any) -> Make:
    def make(side: int) -> bytes:
        pixels = samples(side, channels)
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels, {4: "RGBA", 2: "LA"}.get(channels))
        buffer = io.BytesIO()
        (image.convert(mode) if mode else image).save(buffer, form, **options)
        return buffer.getvalue()

    return make


def _png(depth: int, kind: int, channels: int, before: bytes = b"", most: int | None = None) -> Make:
    def make(side: int) -> bytes:
        pixels = samples(side, channels, np.uint16 if depth == 16 else np.uint8)
        if most is not None:
            pixels = pixels % most
        return png(pixels if channels > 1 else pixels[..., 0], depth, kind, before=before)

    return make


def _interlaced(depth: int, kind: int, channels: int) -> Make:
    def make(side: int) -> bytes:
        pixels = samples(side, channels, np.uint16 if depth == 16 else np.uint8).astype(">u2" if depth == 16 else "u1")
        rows = b""
        for x, y, across, down in _PASSES:
            part = pixels[y::down, x::across]
            line = np.ascontiguousarray(part).view(np.uint8).reshape(part.shape[0], -1)
            rows += np.pad(line, ((0, 0), (1, 0))).tobytes()
        header = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 1)
        coded = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + coded

    return make


def _tiff(channels: int, kind: Any, **options: Any) -> Make:
    def make(side: int) -> bytes:
        pixels = samples(side, channels, kind)
        if options.get("planarconfig") == "separate":
            pixels = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
        usual = {"photometric": "rgb" if channels == 3 else "minisblack", "compression": "zlib"}
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels[..., 0] if channels == 1 else pixels, **{**usual, **options})
        return buffer.getvalue()

    return make


def _bmp(bits: int) -> Make:
    def make(side: int) -> bytes:
        pixels = samples(side, bits // 8)
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if bits == 32 else (0xF800, 0x7E0, 0x1F, 0)
        header = struct.pack("<IiiHHIIiiII", 108, side, side, 1, bits, 3, 0, 0, 0, 0, 0) + struct.pack("<4I", *masks)
        header = header.ljust(108, b"\0")
        rows = pixels.reshape(side, -1)
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
        return struct.pack("<2sIII", b"BM", 14 + 108 + rows.size, 0, 14 + 108) + header + rows.tobytes()

    return make


def _simple(channels: int, space: str) -> Make:
    return lambda side: simplejpeg.encode_jpeg(samples(side, channels), 85, space, "444")


def _float_strip(side: int) -> bytes:
    return _tiff(1, np.float32, rowsperstrip=side)(side)


KINDS: Final[Mapping[str, Make]] = {
    "JPEG": _saved(3, "JPEG"),
    "JPEG grey": _saved(1, "JPEG"),
    "JPEG 4:4:4": _saved(3, "JPEG", subsampling=0),
    "JPEG progressive": _saved(3, "JPEG", progressive=True),
    "JPEG progressive 4:4:4": _saved(3, "JPEG", progressive=True, subsampling=0),
    "JPEG CMYK": _saved(3, "JPEG", "CMYK"),
    "JPEG CMYK progressive": _saved(3, "JPEG", "CMYK", progressive=True),
    "JPEG turned": _saved(3, "JPEG", exif=_TURNED),
    "JPEG profile turned": _saved(3, "JPEG", icc_profile=display_p3_profile(), exif=_TURNED),
    "PNG 1": _png(1, 0, 1, most=2),
    "PNG 8 grey": _png(8, 0, 1),
    "PNG 8 RGB": _png(8, 2, 3),
    "PNG 8 palette": _saved(3, "PNG", "P"),
    "PNG 8 grey alpha": _png(8, 4, 2),
    "PNG 8 RGBA": _png(8, 6, 4),
    "PNG 8 RGBA turned": _saved(4, "PNG", exif=_TURNED),
    "PNG 8 RGBA interlaced": _interlaced(8, 6, 4),
    "PNG 8 RGB gamma": _png(8, 2, 3, _LINEAR),
    "PNG 8 RGB profile": _saved(3, "PNG", icc_profile=display_p3_profile()),
    "PNG 16 grey": _png(16, 0, 1),
    "PNG 16 grey sBIT": _png(16, 0, 1, _BITS_12, most=4096),
    "PNG 16 grey gamma": _png(16, 0, 1, _LINEAR),
    "PNG 16 grey alpha": _png(16, 4, 2),
    "PNG 16 RGB": _png(16, 2, 3),
    "PNG 16 RGBA": _png(16, 6, 4),
    "PNG 16 RGBA gamma": _png(16, 6, 4, _LINEAR),
    "PNG 16 RGBA interlaced": _interlaced(16, 6, 4),
    "WebP": _saved(3, "WEBP"),
    "WebP alpha": _saved(4, "WEBP"),
    "WebP lossless": _saved(3, "WEBP", lossless=True, method=0),
    "WebP lossless alpha": _saved(4, "WEBP", lossless=True, method=0),
    "WebP turned": _saved(4, "WEBP", exif=_TURNED),
    "GIF": _saved(3, "GIF", "P"),
    "BMP 8": _saved(3, "BMP", "P"),
    "BMP 24": _saved(3, "BMP"),
    "BMP 16 masks": _bmp(16),
    "BMP 32 alpha": _bmp(32),
    "TIFF 1 fax": _saved(1, "TIFF", "1", compression="group4"),
    "TIFF 8 grey": _tiff(1, np.uint8),
    "TIFF 8 RGB": _tiff(3, np.uint8),
    "TIFF 8 RGB plain": _tiff(3, np.uint8, compression=None),
    "TIFF 8 RGB predictor": _tiff(3, np.uint8, predictor=True),
    "TIFF 8 RGB planes": _tiff(3, np.uint8, planarconfig="separate"),
    "TIFF 8 RGBA": _saved(4, "TIFF", compression="tiff_lzw"),
    "TIFF 8 RGB JPEG": _saved(3, "TIFF", compression="jpeg"),
    "TIFF 8 palette": _saved(3, "TIFF", "P", compression="tiff_deflate"),
    "TIFF CMYK": _saved(3, "TIFF", "CMYK", compression="tiff_deflate"),
    "TIFF 16 grey": _tiff(1, np.uint16),
    "TIFF 16 RGB": _tiff(3, np.uint16),
    "TIFF 16 RGB plain": _tiff(3, np.uint16, compression=None),
    "TIFF 16 RGB predictor": _tiff(3, np.uint16, predictor=True),
    "TIFF 16 RGB tiles": _tiff(3, np.uint16, tile=(256, 256)),
    "TIFF 32 grey": _tiff(1, np.uint32),
    "TIFF float": _tiff(1, np.float32),
    "TIFF float one strip": _float_strip,
    "TIFF float tiles": _tiff(1, np.float32, tile=(256, 256)),
    "TIFF float plain": _tiff(1, np.float32, compression=None),
    "TIFF double": _tiff(1, np.float64),
}  # fmt: skip
