"""Decodes PNG files with only the chunks for pixels, colour and orientation. An animation shows its default image."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from vision.arrays import RGB
from vision.bands import Rows, band_bytes, bands, in_bands
from vision.decoding import alpha, pillow
from vision.decoding.colour import to_srgb
from vision.decoding.orientation import orientation_of, turn
from vision.decoding.picture_file import PictureFile
from vision.decoding.png_colour import ColourSpace, colour_space
from vision.decoding.significant_bits import is_narrow, present, right_aligned_peaks, spread
from vision.errors import DamagedImage, ImageTooLarge

Samples = NDArray[Any]  # uint8 or uint16

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_DEPTHS: Final = {_GREY: (1, 2, 4, 8, 16), _COLOUR: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_COLOUR_CHUNKS: Final = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"sBIT"})
_USE_ALL_BITS: Final = (b"cICP", b"gAMA", b"sBIT", b"tRNS")
_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_READ: Final = _CRITICAL | _COLOUR_CHUNKS | {b"tRNS", b"eXIf"}
_ANCILLARY: Final = 0x20  # this bit of the first letter is set in ancillary chunks
_LARGEST_PALETTE: Final = 768  # bytes
_MOST_CHUNKS: Final = 10_000  # libpng writes 8 KB per chunk, 1280 chunks in 10 MB; an attacker could send a million


@dataclass(frozen=True, kw_only=True)
class PngFile(PictureFile):
    """A PNG. depth: bits per sample. kind: the colour type. header: the content of the IHDR chunk."""

    FORMAT: ClassVar[str] = "PNG"

    data: bytes
    header: bytes
    depth: int
    kind: int

    @property
    def peak_bytes(self) -> int:
        if self._needs_16_bits():  # OpenCV holds the samples twice, and grey as three channels
            decoded = 12 if self.kind == _COLOUR else 16
        elif self.kind == _PALETTE or (self.kind == _GREY and self.depth < 16):
            decoded = 1
        else:
            decoded = 2 if self.kind == _GREY else 4  # Pillow stores two to four channels in four bytes
        turned = 6  # the picture may have to be turned: EXIF may follow the pixels
        per_pixel = max(decoded if self._needs_16_bits() else decoded + 3, turned)
        return self.pixels * per_pixel + 2 * len(self.data) + band_bytes(self.height, self.width)

    def decode(self) -> RGB:
        chunks = _read(self.data, self.kind)
        pixels = self._palette_pixels(chunks) if self.kind == _PALETTE else self._sample_pixels(chunks)
        return turn(pixels, orientation_of(chunks.found.get(b"eXIf")))

    def _palette_pixels(self, chunks: _Chunks) -> RGB:
        """Decode with a palette that has colour and transparency applied, which is faster than on all pixels."""
        palette = chunks.found.get(b"PLTE", b"")
        if not palette or len(palette) % 3 or len(palette) > _LARGEST_PALETTE:
            raise DamagedImage("the PNG's palette is missing or damaged")
        palette = palette[: 3 << self.depth]  # no pixel can name the others
        colours = np.frombuffer(palette, np.uint8).reshape(1, -1, 3)
        space = colour_space(chunks.found, "RGB")
        colours = to_srgb(_transferred(colours, space), space.profile)
        opacity = np.full(colours.shape[:2], 255, np.uint8)
        transparency = np.frombuffer(chunks.found.get(b"tRNS", b""), np.uint8)[: opacity.shape[1]]
        opacity[0, : len(transparency)] = transparency
        table = alpha.on_white(np.ascontiguousarray(colours), opacity)
        return pillow.samples(self._file(chunks, table.tobytes()), "PNG", "RGB")

    def _sample_pixels(self, chunks: _Chunks) -> RGB:
        rows, depth = self._rows(chunks)
        channels, has_alpha = 1 if self.kind in (_GREY, _GREY_ALPHA) else 3, self.kind in (_GREY_ALPHA, _COLOUR_ALPHA)

        def colours(part: slice) -> Samples:
            found = rows(part)
            return (found[..., 0] if channels == 1 else found[..., :3]) if has_alpha else found

        def opacity(part: slice) -> Samples:
            return rows(part)[..., -1]

        def peaks(of: Rows, significant: bytes, number: int) -> NDArray[np.uint32] | None:
            if not is_narrow(significant, number, depth):
                return None
            return right_aligned_peaks(present(map(of, self._bands()), number, depth), significant)

        bits = chunks.found.get(b"sBIT", b"")
        is_transparent = has_alpha and not all(alpha.is_opaque(opacity(part)) for part in self._bands())
        colour_peaks = peaks(colours, bits[:channels], channels)
        opacity_peaks = peaks(opacity, bits[channels:], 1) if is_transparent else None
        space, key = colour_space(chunks.found, "L" if channels == 1 else "RGB"), self._transparent_key(chunks)

        def convert(part: slice) -> RGB:
            found = np.ascontiguousarray(colours(part))
            pixels = to_srgb(_eight_bits(_transferred(spread(found, colour_peaks), space)), space.profile)
            if is_transparent:
                return alpha.on_white(pixels, _eight_bits(spread(opacity(part), opacity_peaks)))
            if key is not None:
                hidden = found == key
                pixels = pixels.copy()
                pixels[hidden if channels == 1 else hidden.all(axis=2)] = alpha.WHITE
            return pixels

        return in_bands(convert, self.height, self.width)

    def _bands(self) -> Iterator[slice]:
        return bands(self.height, self.width)

    def _rows(self, chunks: _Chunks) -> tuple[Rows, int]:
        """Decode all channels, with access by rows; and the bits per sample, 8 or 16. Grey below 8 bits is scaled."""
        file = self._file(chunks)
        if not self._needs_16_bits():
            depth = 16 if self.depth == 16 and self.kind == _GREY else 8
            return pillow.rows_of(pillow.decoded(file, "PNG"), "L" if self.depth == 1 else None), depth
        # OpenCV, because Pillow keeps only the upper 8 bits.
        found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.dtype != np.uint16 or found.shape[:2] != (self.height, self.width):
            raise DamagedImage("the PNG image is damaged or truncated")
        if self.kind == _GREY_ALPHA:  # OpenCV repeats the grey three times
            return lambda part: found[part, :, 2:], 16
        order = [2, 1, 0] if self.kind == _COLOUR else [2, 1, 0, 3]
        return lambda part: found[part][..., order], 16

    def _needs_16_bits(self) -> bool:
        """Whether the lower 8 bits of 16 may matter. Grey does not count, because Pillow decodes it in 16 bits."""
        head = self.data[: self.data.find(b"IDAT")]
        return self.depth == 16 and self.kind != _GREY and any(kind in head for kind in _USE_ALL_BITS)

    def _transparent_key(self, chunks: _Chunks) -> Samples | None:
        """The grey (1,) or colour (3,) that means transparency; None if there is none."""
        content = chunks.found.get(b"tRNS", b"")
        if len(content) != {_GREY: 2, _COLOUR: 6}.get(self.kind):
            return None
        most = 2**self.depth - 1
        key = np.frombuffer(content, ">u2").astype(np.int64) & most
        return np.asarray(key * (255 // most) if self.depth < 8 else key)

    def _file(self, chunks: _Chunks, palette: bytes = b"") -> bytes:
        """A PNG file of only the chunks that the pixels need."""
        parts = [_SIGNATURE, _chunk(b"IHDR", self.header), _chunk(b"PLTE", palette) if palette else b""]
        return b"".join([*parts, *chunks.coded, _chunk(b"IEND", b"")])


@dataclass
class _Chunks:
    """The chunks of a PNG. found: kind → content of its first chunk. coded: the whole IDAT chunks."""

    found: dict[bytes, bytes] = field(default_factory=dict)
    coded: list[bytes | memoryview] = field(default_factory=list)

    def take(self, kind: bytes, content: bytes, colour_type: int) -> None:
        """Keep a chunk, unless the standard forbids it at this place."""
        too_late = bool(self.coded) or (kind in _COLOUR_CHUNKS and b"PLTE" in self.found)
        too_early = kind == b"tRNS" and colour_type == _PALETTE and b"PLTE" not in self.found
        if kind == b"eXIf" or not (too_late or too_early):
            self.found.setdefault(kind, content)


def open_png(data: bytes) -> PngFile:
    """Read a PNG's header. Raises DamagedImage."""
    header = data[16:29]
    if data[8:16] != b"\0\0\0\x0dIHDR" or len(header) < 13 or data[29:33] != _checksum(b"IHDR", header):
        raise DamagedImage("the PNG's header is damaged or truncated")
    width, height, depth, kind, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if not width or not height or depth not in _DEPTHS.get(kind, ()) or compression or filtering or interlace > 1:
        raise DamagedImage("the PNG's header is damaged")
    return PngFile(width=width, height=height, data=data, header=header, depth=depth, kind=kind)


def _read(data: bytes, colour_type: int) -> _Chunks:
    """Read the chunks. Raises DamagedImage for damaged critical ones; ignores other damaged ones, as viewers do."""
    chunks, view, position = _Chunks(), memoryview(data), len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(data):
            return chunks  # the file is truncated; decoding shows whether pixels are missing
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            if kind == b"IDAT":
                chunks.coded.append(_chunk(kind, data[start:end]))
            return chunks
        if kind in _READ:
            good = zlib.crc32(view[position + 4 : end]) == int.from_bytes(data[end : end + 4])
            if not good and kind in _CRITICAL:
                raise DamagedImage(f"the PNG is damaged: the checksum of its chunk {kind.decode()} is wrong")
            if kind == b"IDAT":
                chunks.coded.append(view[position : end + 4])
            elif kind == b"IEND":
                return chunks
            elif good:
                chunks.take(kind, data[start:end], colour_type)
        elif not kind[0] & _ANCILLARY:
            raise DamagedImage("the PNG is damaged: it has a critical chunk that the standard does not know")
        position = end + 4
    raise ImageTooLarge(f"the PNG has more than {_MOST_CHUNKS} chunks")


def _checksum(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + _checksum(kind, content)


def _transferred(samples: Samples, space: ColourSpace) -> Samples:
    return samples if space.transfer is None else space.transfer(samples)


def _eight_bits(samples: Samples) -> NDArray[np.uint8]:
    return samples if samples.dtype == np.uint8 else (samples >> 8).astype(np.uint8)
