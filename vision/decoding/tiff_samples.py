"""Reads a TIFF's strips or tiles into an array of samples."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vision.bands import Rows
from vision.decoding import pillow
from vision.decoding.jpeg import open_jpeg
from vision.errors import DamagedImage, UnsupportedFormat

Samples: TypeAlias = NDArray[Any]  # (h, w, samples) of uint8, uint16, uint32 or floats

_NONE, _JPEG = 1, 7  # compressions
_FAX: Final = (2, 3, 4)
_FLOAT: Final = 3  # a sample format
_MARKER_BYTES: Final = 2  # SOI before and EOI after a JPEG's tables
_BYTES: Final = np.arange(256, dtype=np.uint8)
_BITS_REVERSED: Final = np.packbits(np.unpackbits(_BYTES[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


@dataclass(frozen=True)
class Coding:
    """How samples are stored. samples: per pixel. order: byte order, `<` or `>`. options: of CCITT 3 and 4."""

    compression: int
    bits: int
    format: int
    samples: int
    planar: bool
    order: str
    fill_order: int
    predictor: bool
    options: tuple[int, int]
    jpeg_tables: bytes


@dataclass(frozen=True)
class Segments:
    """Strips or tiles. width, height: of each, in pixels. across, down: how many cover a plane."""

    tiled: bool
    width: int
    height: int
    across: int
    down: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    def of_plane(self, plane: int) -> Segments:
        """The segments of one plane, if the planes are stored one after another."""
        part = slice(plane * self.across * self.down, (plane + 1) * self.across * self.down)
        size = (self.width, self.height, self.across, self.down)
        return Segments(self.tiled, *size, self.offsets[part], self.counts[part])


def read_samples(data: bytes, segments: Segments, coding: Coding, size: tuple[int, int]) -> Rows:
    """Decompress a picture; return access to its samples by rows. size: width, height. Raises DamagedImage."""
    if not coding.planar:
        return _plane(data, segments, coding, coding.samples, size)
    planes = [_plane(data, segments.of_plane(plane), coding, 1, size) for plane in range(coding.samples)]
    return lambda part: np.concatenate([plane(part) for plane in planes], axis=2)


def stored_bytes(segments: Segments, coding: Coding, size: tuple[int, int]) -> tuple[int, int]:
    """The size in bytes of the decompressed samples of the picture, and of one segment. size: width, height."""
    if coding.compression == _JPEG:
        segment = segments.width * segments.height * max(coding.samples, 4)
        return segments.across * segments.down * segments.width * segments.height * coding.samples, segment
    samples = 1 if coding.planar else coding.samples
    planes = coding.samples if coding.planar else 1
    bits = 8 if coding.compression in _FAX else coding.bits  # Pillow stores each bit in a byte
    row_bytes, segment_bytes = (-(-width * samples * bits // 8) for width in (size[0], segments.width))
    return row_bytes * size[1] * planes, segment_bytes * segments.height


def jpeg_samples(data: bytes, segments: Segments, coding: Coding, adobe: int | None) -> Samples:
    """Decode segments that are JPEGs with their tables in a tag. adobe: their transform, as in Adobe's marker.

    The array may be larger than the picture, because segments at its edges may extend beyond it. Raises DamagedImage
    and UnsupportedFormat.
    """
    shape = (segments.down * segments.height, segments.across * segments.width, coding.samples)
    samples = np.zeros(shape, np.uint8)
    for place, (offset, count) in enumerate(zip(segments.offsets, segments.counts, strict=True)):
        row, column = divmod(place, segments.across)
        coded = data[offset + _MARKER_BYTES : offset + count]
        jpeg = open_jpeg(coding.jpeg_tables[:-_MARKER_BYTES] + coded if coding.jpeg_tables else b"\xff\xd8" + coded)
        if jpeg.passes > 1:
            raise UnsupportedFormat("TIFFs with progressive JPEGs in them are not accepted; send baseline ones")
        if jpeg.width != segments.width or jpeg.height > segments.height or jpeg.components != coding.samples:
            raise DamagedImage("the TIFF is damaged: a JPEG in it has another size than its strip or tile")
        top, left = row * segments.height, column * segments.width
        part = jpeg.samples(adobe)
        samples[top : top + jpeg.height, left : left + jpeg.width] = part[..., None] if part.ndim == 2 else part
    return samples


def eight_bits(samples: Samples, bits: int) -> NDArray[np.uint8]:
    """Scale samples of up to 8 bits to 0…255, and cut longer ones to their upper 8 bits."""
    if bits <= 8:
        return np.asarray(samples * np.uint8(255 // (2**bits - 1)) if bits < 8 else samples, dtype=np.uint8)
    highest: NDArray[np.uint8] = (samples >> samples.dtype.type(bits - 8)).astype(np.uint8)
    return highest


def range_of(parts: Iterable[Samples]) -> tuple[float, float]:
    """The minimum and maximum of floats, which have no fixed range. NaN and infinities count as 0."""
    ranges = [(float(known.min()), float(known.max())) for known in map(_known, parts)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def of_range(values: Samples, lowest: float, highest: float) -> NDArray[np.uint8]:
    """Scale floats from lowest…highest to 0…255."""
    span = max(highest - lowest, 1e-12)
    return np.asarray((_known(values).astype(np.float64) - lowest) / span * 255, dtype=np.uint8)


def _plane(data: bytes, segments: Segments, coding: Coding, samples: int, size: tuple[int, int]) -> Rows:
    width, height = size
    if coding.compression in _FAX:
        bits = pillow.rows_of(pillow.decoded(_rewritten(data, segments, coding, width, segments.width, height), "TIFF"))
        return lambda part: bits(part)[..., None].astype(np.uint8)
    row_bytes = -(-width * samples * coding.bits // 8)
    segment_bytes = -(-segments.width * samples * coding.bits // 8)
    if coding.compression == _NONE and not segments.tiled:
        rows: Rows = _joined(data, segments, row_bytes, height, coding.fill_order).__getitem__
    else:
        rows = pillow.rows_of(
            pillow.decoded(_rewritten(data, segments, coding, row_bytes, segment_bytes, height), "TIFF"), "L"
        )

    def unpacked(part: slice) -> Samples:
        values = _unpacked(rows(part), coding)[:, : width * samples].reshape(-1, width, samples)
        return _summed(values, segments.width) if coding.predictor else values

    return unpacked


def _joined(data: bytes, segments: Segments, row_bytes: int, height: int, fill_order: int) -> NDArray[np.uint8]:
    """Join uncompressed strips to (height, row_bytes)."""
    strips, view = [], memoryview(data)
    for index, (offset, count) in enumerate(zip(segments.offsets, segments.counts, strict=True)):
        needed = row_bytes * min(segments.height, height - index * segments.height)
        if count < needed:
            raise DamagedImage("the TIFF is damaged: a strip is shorter than its rows")
        strips.append(view[offset : offset + needed])
    rows = np.frombuffer(b"".join(strips), np.uint8).reshape(height, row_bytes)
    return _BITS_REVERSED[rows] if fill_order == 2 else rows


def _rewritten(data: bytes, segments: Segments, coding: Coding, width: int, segment_width: int, height: int) -> bytes:
    """Append a new directory to the file, so that libtiff reads grey bytes, or single bits for CCITT.

    width, segment_width: in bytes, or in bits for CCITT.
    """
    fax = coding.compression in _FAX
    tags: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (1 if fax else 8,),
        259: (coding.compression,),
        262: (1,),  # black is zero, so that nothing is inverted
        266: (coding.fill_order,),
        277: (1,),
    }
    if segments.tiled:
        tags |= {322: (segment_width,), 323: (segments.height,), 324: segments.offsets, 325: segments.counts}
    else:
        tags |= {273: segments.offsets, 278: (segments.height,), 279: segments.counts}
    if fax:
        tags |= {292: (coding.options[0],), 293: (coding.options[1],)}
    start = len(data) + len(data) % 2
    table, body = struct.pack("<H", len(tags)), b""
    behind = start + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        table += struct.pack("<HHI", tag, 4, len(values))
        table += struct.pack("<I", values[0] if len(values) == 1 else behind + len(body))
        body += struct.pack(f"<{len(values)}I", *values) if len(values) > 1 else b""
    return b"".join(
        (struct.pack("<2sHI", b"II", 42, start), memoryview(data)[8:], bytes(len(data) % 2), table, bytes(4), body)
    )


def _unpacked(rows: NDArray[np.uint8], coding: Coding) -> NDArray[Any]:
    """Unpack (h, row bytes) to (h, samples), in native byte order. A row may end with padding samples."""
    if coding.bits == 8:
        return rows
    if coding.bits > 12:
        kind = np.dtype(f"{coding.order}{'f' if coding.format == _FLOAT else 'u'}{coding.bits // 8}")
        return np.ascontiguousarray(rows).view(kind).astype(kind.newbyteorder("="), copy=False)
    if coding.bits == 1:
        return np.unpackbits(rows, axis=1)
    if coding.bits == 12:
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 3))).astype(np.uint16)
        first, middle, last = padded[:, 0::3], padded[:, 1::3], padded[:, 2::3]
        pairs = np.stack([first << 4 | middle >> 4, (middle & 15) << 8 | last], axis=2)
        return pairs.reshape(len(rows), -1)
    shifts = np.arange(8 - coding.bits, -1, -coding.bits, dtype=np.uint8)
    return (rows[..., None] >> shifts & np.uint8(2**coding.bits - 1)).reshape(len(rows), -1)


def _summed(values: Samples, segment_width: int) -> Samples:
    """Undo the horizontal predictor: samples are stored as differences to their left neighbour in the segment."""
    parts = [
        np.cumsum(values[:, left : left + segment_width], axis=1, dtype=values.dtype)
        for left in range(0, values.shape[1], segment_width)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _known(values: Samples) -> NDArray[Any]:
    return np.nan_to_num(values, posinf=0.0, neginf=0.0)
