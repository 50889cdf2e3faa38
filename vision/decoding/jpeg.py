"""Decodes JPEG files with libjpeg-turbo, after removing all segments that the pixels don't need.

So metadata can neither damage a picture nor hide lost data. libjpeg-turbo reports only its first warning. Without
metadata, nearly every warning means lost data.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import ClassVar, Final, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vision.arrays import RGB
from vision.bands import band_bytes
from vision.decoding import pillow
from vision.decoding.colour import to_srgb
from vision.decoding.orientation import UPRIGHT, orientation_of, turn
from vision.decoding.picture_file import PictureFile
from vision.errors import DamagedImage, ImageTooLarge, UnsupportedFormat


class _Space(NamedTuple):
    """The names of a colour space in simplejpeg and in Pillow."""

    simplejpeg: str
    pillow: str


_SOI: Final = b"\xff\xd8"
_EOI: Final = b"\xff\xd9"
# The marker of the next segment. The excluded bytes after FF belong to the coded data, or are markers without a length.
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SEARCHED: Final = 2**20  # bytes of a step
_TABLES: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # DHT, DAC, DQT, DRI
_DRI, _SOS, _END, _APP0, _APP1, _APP2, _APP14 = 0xDD, 0xDA, 0xD9, 0xE0, 0xE1, 0xE2, 0xEE
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1, 0xC9})  # frames with Huffman or arithmetic coding
_PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
_ARITHMETIC: Final = frozenset({0xC9, 0xCA})
_LOSSLESS: Final = 0xC3
_DECODED: Final = _SEQUENTIAL | _PROGRESSIVE | {_LOSSLESS}
_REFUSED: Final = {
    0xCB: "lossless with arithmetic coding",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical"),
    0xF7: "JPEG-LS",
}
_SPACES: Final = {1: _Space("Gray", "L"), 3: _Space("RGB", "RGB"), 4: _Space("CMYK", "CMYK")}  # by components
_USUAL_SAMPLINGS: Final = frozenset({(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)})  # luma: across, down
_ROWS, _FEW = 256, 4 * 2**20  # libjpeg-turbo's working memory in bytes: per column of pixels, and fixed
_BLOCK_SIDE: Final = 8  # pixels
_COEFFICIENTS: Final = 64  # per block
_MISSING: Final = 255
# 10 MB have 160 segments of the largest size, and encoders write about a dozen scans. An attacker could send millions.
_MOST_SEGMENTS: Final = 1000
# libjpeg-turbo's warning about bytes behind the last block, which several cameras write.
_LAST_BYTES: Final = "extraneous bytes before marker 0xd9"
# Warnings that may be harmless. Such bytes can also be within the coded data, where they hide later warnings about lost
# data. Rare samplings can be decoded by Pillow.
_UNKNOWN_SAMPLING: Final = "Could not determine subsampling"
_TOLERATED: Final = ("extraneous bytes before marker", _UNKNOWN_SAMPLING)
# Bytes that a decoder skips if all blocks are there, and decodes to visible garbage if some are missing.
_FILLING: Final = bytes(range(250, 10, -12))
_FILLING_OF_ARITHMETIC: Final = bytes(4) + _FILLING  # arithmetic encoders omit zeros at the end
_MOST_FILLED: Final = 65_536
_FILLED: Final = re.compile(rb"(?<!\xff)\xff{1,9}(?=[^\x00\xff])")  # every marker, restart markers included
_CODED_MARKER: Final = re.compile(rb"\xff([^\x00\xff])")
_FIRST_RESTART: Final = 0xD0
_RESTARTS: Final = 8  # restart markers are numbered modulo 8

_JFIF: Final = bytes.fromhex("ffe000104a46494600010100000100010000")


@dataclass(frozen=True)
class _Scan:
    """The coded data of a scan, perhaps with more bytes behind. restarts: the number of restart markers in it."""

    coded: memoryview
    restarts: int

    def has_all_restarts(self) -> bool:
        found = islice(_CODED_MARKER.finditer(self.coded), self.restarts)
        expected = (_FIRST_RESTART + number % _RESTARTS for number in range(self.restarts))
        return all(marker is not None and marker[1][0] == code for marker, code in zip_longest(found, expected))

    def filled(self, filling: bytes) -> bytes | memoryview:
        """Insert a filling before each marker and at the end. Raises DamagedImage for too many markers."""
        if not filling:
            return self.coded
        coded, number = _FILLED.subn(lambda marker: filling + marker[0], self.coded, count=_MOST_FILLED)
        if number == _MOST_FILLED:
            raise _loss()
        return coded + filling


@dataclass(frozen=True, kw_only=True)
class JpegFile(PictureFile):
    """A JPEG.

    kept: the segments and coded data that the pixels need. adobe: the colour transform of Adobe's marker.
    complete: whether the scans have all bits of all coefficients. The standard does not require that, but encoders
    write them all. A file that is cut between two scans has no other sign of its loss.
    coefficient_bytes: libjpeg-turbo's buffer between scans. is_rare: only Pillow may be able to decode the sampling.
    """

    FORMAT: ClassVar[str] = "JPEG"

    kept: tuple[bytes | _Scan, ...]
    complete: bool
    arithmetic: bool
    components: int
    jfif: bool
    adobe: int | None
    orientation: int
    profile: bytes | None
    coefficient_bytes: int
    is_rare: bool

    @property
    def peak_bytes(self) -> int:
        own = self.components * self.pixels
        # Pillow's four bytes per pixel exist first with the coefficients, then with the array made from them.
        decoded = 4 * self.pixels + max(own, self.coefficient_bytes) if self.is_rare else own + self.coefficient_bytes
        is_converted = self.components != 3 or self.profile is not None
        converted = own + 3 * self.pixels if is_converted else own
        turned = 0 if self.orientation == UPRIGHT else 6 * self.pixels
        copies = 2 * sum(len(part) if isinstance(part, bytes) else len(part.coded) for part in self.kept)
        around = band_bytes(self.height, self.width) if is_converted or self.is_rare else _ROWS * self.width + _FEW
        return max(decoded, converted, turned) + copies + around

    def decode(self) -> RGB:
        return turn(to_srgb(self._positive(self.samples(self.adobe)), self.profile), self.orientation)

    def _positive(self, samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """CMYK as amounts of ink. Adobe's marker means inverted CMYK."""
        return np.invert(samples, out=samples) if self.components == 4 and self.adobe is not None else samples

    def samples(self, adobe: int | None) -> NDArray[np.uint8]:
        """Decode to grey (h, w), RGB (h, w, 3) or CMYK (h, w, 4) as stored. adobe: the transform of Adobe's marker.

        Raises DamagedImage if any part of the coded data is missing.
        """
        if not self.complete:
            raise DamagedImage("the JPEG is truncated: scans that its picture needs are missing")
        samples, warning = self._decoded(adobe)
        if warning is not None and not (any(text in warning for text in _TOLERATED) and self._has_all_restarts()):
            raise _loss()
        if self.arithmetic or (warning is not None and _LAST_BYTES not in warning):
            found = _digest(samples)
            del samples  # two decoded pictures would take twice the memory
            samples, _ = self._decoded(adobe, filling=_FILLING_OF_ARITHMETIC if self.arithmetic else _FILLING)
            if _digest(samples) != found:
                raise _loss()
        return samples[..., 0] if self.components == 1 else samples

    def _has_all_restarts(self) -> bool:
        return all(part.has_all_restarts() for part in self.kept if isinstance(part, _Scan))

    def _decoded(self, adobe: int | None, filling: bytes = b"") -> tuple[NDArray[np.uint8], str | None]:
        """Decode to (h, w, components), with libjpeg-turbo's first warning. filling: inserted before each marker."""
        space = _SPACES[self.components]
        samples = np.empty((self.height, self.width, self.components), np.uint8)
        kept = (part if isinstance(part, bytes) else part.filled(filling) for part in self.kept)
        file = b"".join((_SOI, _JFIF if self.jfif else b"", _adobe_segment(adobe), *kept, _EOI))
        try:
            simplejpeg.decode_jpeg(file, space.simplejpeg, buffer=samples)
        except ValueError as warning:
            if _UNKNOWN_SAMPLING not in str(warning):
                return samples, str(warning)
            del samples
            found = pillow.samples(file, "JPEG", space.pillow).reshape(self.height, self.width, self.components)
            inverted = self.components == 4 and adobe is not None  # Pillow has inverted it already
            return np.invert(found) if inverted else found, str(warning)
        return samples, None


def open_jpeg(data: bytes) -> JpegFile:
    """Read a JPEG up to its coded data, or through all scans if it has several.

    Raises DamagedImage, UnsupportedFormat or ImageTooLarge.
    """
    reader, coded = _Reader(), memoryview(data)
    position = len(_SOI)
    for _ in range(_MOST_SEGMENTS):
        found = _next_marker(data, position)
        if found is None or data[found.end() - 1] == _END:
            break
        start = found.end() + 2
        end = found.end() + int.from_bytes(data[found.end() : start])
        if not start <= end <= len(data):
            break
        marker = data[found.end() - 1]
        reader.take(marker, data[start:end])
        position = end
        if marker == _SOS:
            if not reader.has_several_scans:
                reader.kept.append(_Scan(coded[end:], reader.restarts))
                break
            following = _next_marker(data, end)
            position = len(data) if following is None else following.start()
            reader.kept.append(_Scan(coded[end:position], reader.restarts))
    else:
        raise ImageTooLarge(f"the JPEG has more than {_MOST_SEGMENTS} segments")
    return reader.file()


def _next_marker(data: bytes, start: int) -> re.Match[bytes] | None:
    """Search in steps: one search holds the GIL, for 0.2 s if 10 MB consist of FF."""
    while start < len(data):
        if found := _MARKER.search(data, start, start + _SEARCHED + 1):
            return found
        start += _SEARCHED
    return None


@dataclass
class _Reader:
    """Collects the segments of a JPEG.

    samplings: across and down, by component. interval: blocks between restart markers. restarts: markers in the scan.
    lost: by component, the low bits of each coefficient that no scan has had yet.
    """

    kept: list[bytes | _Scan] = field(default_factory=list)
    frame: int | None = None
    width: int = 0
    height: int = 0
    samplings: dict[int, tuple[int, int]] = field(default_factory=dict)
    interval: int = 0
    restarts: int = 0
    scans: int = 0
    has_several_scans: bool = False
    lost: dict[int, bytearray] = field(default_factory=dict)
    jfif: bool = False
    adobe: int | None = None
    exif: bytes | None = None
    profile: dict[int, bytes] = field(default_factory=dict)
    profile_parts: int = 0

    def take(self, marker: int, segment: bytes) -> None:
        """Take a segment, given without its marker and length. Raises DamagedImage or UnsupportedFormat."""
        if marker in _TABLES:
            self._keep(marker, segment)
            if marker == _DRI and len(segment) == 2:
                self.interval = int.from_bytes(segment)
        elif marker in _DECODED:
            self._frame(marker, segment)
        elif marker == _SOS:
            self._scan(segment)
        elif marker in _REFUSED:
            raise UnsupportedFormat(
                f"JPEGs of the kind {_REFUSED[marker]} are not accepted; send a baseline or progressive one"
            )
        elif self.scans == 0:
            self._application(marker, segment)

    def file(self) -> JpegFile:
        if self.frame is None or self.scans == 0:
            raise DamagedImage("the JPEG is damaged or truncated: it ends before its coded data")
        whole = self.profile_parts and sorted(self.profile) == list(range(1, self.profile_parts + 1))
        return JpegFile(
            width=self.width,
            height=self.height,
            passes=self.scans,
            kept=tuple(self.kept),
            complete=not (self.has_several_scans and any(any(bits) for bits in self.lost.values())),
            arithmetic=self.frame in _ARITHMETIC,
            components=len(self.lost),
            jfif=self.jfif,
            adobe=self._known_transform(),
            orientation=orientation_of(self.exif),
            profile=b"".join(self.profile[part] for part in sorted(self.profile)) if whole else None,
            coefficient_bytes=self._coefficient_bytes() if self.has_several_scans else 0,
            is_rare=self._is_rare(),
        )

    def _coefficient_bytes(self) -> int:
        across, down = (max(sampling[axis] for sampling in self.samplings.values()) for axis in (0, 1))
        groups = -(-self.width // (_BLOCK_SIDE * across)) * -(-self.height // (_BLOCK_SIDE * down))
        blocks = groups * sum(right * below for right, below in self.samplings.values())
        return blocks * _COEFFICIENTS * 2

    def _is_rare(self) -> bool:
        first, *others = self.samplings.values()
        return bool(others) and (first not in _USUAL_SAMPLINGS or any(other != (1, 1) for other in others[:2]))

    def _keep(self, marker: int, segment: bytes) -> None:
        self.kept.append(struct.pack(">BBH", 0xFF, marker, len(segment) + 2) + segment)

    def _frame(self, marker: int, segment: bytes) -> None:
        if self.frame is not None or len(segment) < 6 or len(segment) != 6 + 3 * segment[5]:
            raise DamagedImage("the JPEG's frame header is damaged")
        bits, self.height, self.width, components = struct.unpack_from(">BHHB", segment)
        if bits != 8:
            raise UnsupportedFormat(f"JPEGs of {bits} bits a sample are not accepted; send one of 8")
        if self.height == 0:
            raise UnsupportedFormat("JPEGs that give their height behind the picture are not accepted")
        self.lost = {segment[place]: bytearray([_MISSING] * _COEFFICIENTS) for place in range(6, len(segment), 3)}
        self.samplings = {segment[place]: divmod(segment[place + 1], 16) for place in range(6, len(segment), 3)}
        if not all(all(sampling) for sampling in self.samplings.values()):
            raise DamagedImage("the JPEG's frame header is damaged")
        if self.width == 0 or len(self.lost) != components:
            raise DamagedImage("the JPEG's frame header is damaged")
        if components not in _SPACES:
            raise UnsupportedFormat(f"JPEGs of {components} components are not accepted; send one of 1, 3 or 4")
        self.frame = marker
        self._keep(marker, segment)

    def _scan(self, segment: bytes) -> None:
        if self.frame is None or len(segment) < 6 or len(segment) != 4 + 2 * segment[0]:
            raise DamagedImage("the JPEG's scan header is damaged")
        components, end = segment[1:-3:2], segment[-3:]
        if not self.lost.keys() >= set(components):
            raise DamagedImage("the JPEG's scan header names a component that the frame has not")
        first, last, shift = 0, _COEFFICIENTS - 1, 0
        if self.frame in _PROGRESSIVE:
            first, last, shift = end[0], end[1], end[2] & 15
        elif self.frame in _SEQUENTIAL:
            end = bytes([first, last, shift])  # some encoders write other values, which have no meaning here
        if not first <= last < _COEFFICIENTS:
            raise DamagedImage("the JPEG's scan header is damaged")
        for component in components:
            self.lost[component][first : last + 1] = bytes([shift]) * (last + 1 - first)
        if self.scans == 0:
            self.has_several_scans = self.frame in _PROGRESSIVE or len(components) < len(self.lost)
        self.scans += 1
        self.restarts = (self._units(components) - 1) // self.interval if self.interval else 0
        self._keep(_SOS, segment[:-3] + end)

    def _units(self, components: bytes) -> int:
        """The number of coded units in a scan: blocks for one component, groups of blocks (MCUs) for several."""
        most_across, most_down = (max(sampling[axis] for sampling in self.samplings.values()) for axis in (0, 1))
        side = 1 if self.frame == _LOSSLESS else _BLOCK_SIDE
        if len(components) > 1:
            return -(-self.width // (side * most_across)) * -(-self.height // (side * most_down))
        across, down = self.samplings[components[0]]
        width, height = -(-self.width * across // most_across), -(-self.height * down // most_down)
        return -(-width // side) * -(-height // side)

    def _application(self, marker: int, segment: bytes) -> None:
        """Take the metadata for colour and orientation. It precedes the first scan."""
        if marker == _APP0 and segment.startswith(b"JFIF\0") and len(segment) >= 14:
            self.jfif = True
        elif marker == _APP1 and segment.startswith(b"Exif\0") and self.exif is None:
            self.exif = segment
        elif marker == _APP2 and segment.startswith(b"ICC_PROFILE\0") and len(segment) > 14:
            self.profile.setdefault(segment[12], segment[14:])
            self.profile_parts = segment[13]
        elif marker == _APP14 and segment.startswith(b"Adobe") and len(segment) >= 12:
            self.adobe = segment[11]

    def _known_transform(self) -> int | None:
        """Adobe's transform. An unknown value becomes libjpeg's assumption: YCbCr, or YCCK for four components."""
        if self.adobe is None or len(self.lost) not in (3, 4):
            return self.adobe
        usual = 1 if len(self.lost) == 3 else 2
        return self.adobe if self.adobe in (0, usual) else usual


def _adobe_segment(transform: int | None) -> bytes:
    if transform is None:
        return b""
    return bytes.fromhex("ffee000e41646f6265006400000000") + bytes([transform])


def _digest(samples: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(samples.data).digest()


def _loss() -> DamagedImage:
    return DamagedImage("the JPEG is damaged or truncated: a part of its coded data is missing")
