"""Reads the colour space of a PNG. In PNG's third edition, cICP precedes iCCP, then sRGB, then gAMA with cHRM."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vision.decoding import primaries
from vision.decoding.colour import MOST_PROFILE_BYTES, Mode, is_usable

Samples = NDArray[Any]  # uint8 or uint16

_USUAL_GAMMA: Final = 1 / 2.2
# libpng's threshold: smaller differences to the display's gamma are ignored.
_THRESHOLD: Final = 0.05
_CHROMATICITY: Final = 0.001  # the precision with which encoders write sRGB's primaries
_FULL_RANGE: Final = 1
_LINEAR: Final = 1.0
# ITU-T H.273, table 3: TransferCharacteristics → gamma; None = sRGB's curve. Television's curves count as sRGB's, as in
# browsers.
_TRANSFERS: Final = {1: None, 4: 1 / 2.2, 5: 1 / 2.8, 6: None, 8: _LINEAR, 13: None, 14: None, 15: None}


@dataclass(frozen=True)
class ColourSpace:
    """The conversion to sRGB in two steps; None = nothing to do.

    transfer: converts the file's curve to sRGB's. profile: the ICC profile of the result.
    """

    transfer: Callable[[Samples], Samples] | None = None
    profile: bytes | None = None


def colour_space(chunks: Mapping[bytes, bytes], mode: Mode) -> ColourSpace:
    """The colour space of samples in mode L or RGB, from the first usable colour chunk.

    cICP for HDR (PQ, HLG) or a narrow range is ignored: no standard defines its look on a standard display.
    """
    coded = chunks.get(b"cICP", b"")
    if len(coded) == 4:
        primary, transfer, matrix, full_range = coded
        if primary in primaries.CODED and transfer in _TRANSFERS and (matrix, full_range) == (0, _FULL_RANGE):
            return _of(_TRANSFERS[transfer], primaries.CODED[primary], mode)
    profile = _embedded(chunks.get(b"iCCP", b""))
    if profile is not None and is_usable(profile, mode):
        return ColourSpace(profile=profile)
    gamma = chunks.get(b"gAMA", b"")
    if b"sRGB" in chunks or len(gamma) != 4 or not any(gamma):
        return ColourSpace()
    return _of(int.from_bytes(gamma) / 100_000, _chromaticities(chunks.get(b"cHRM", b"")), mode)


def _of(gamma: float | None, chromaticities: primaries.Chromaticities, mode: Mode) -> ColourSpace:
    usual = gamma is None or abs(gamma / _USUAL_GAMMA - 1) < _THRESHOLD
    same = all(abs(here - there) < _CHROMATICITY for here, there in zip(chromaticities, primaries.SRGB, strict=True))
    return ColourSpace(
        transfer=None if gamma is None or usual else partial(_to_srgb_curve, gamma),
        profile=None if same or mode == "L" else primaries.profile_of(chromaticities),
    )


def _chromaticities(content: bytes) -> primaries.Chromaticities:
    if len(content) != 32:
        return primaries.SRGB
    white_x, white_y, *rest = (number / 100_000 for number in struct.unpack(">8I", content))
    red_x, red_y, green_x, green_y, blue_x, blue_y = rest
    return white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y


def _embedded(content: bytes) -> bytes | None:
    """The ICC profile in an iCCP chunk; None if it is missing, too large or damaged."""
    name_end = content.find(b"\0", 0, 80)
    if name_end < 1:
        return None
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(content[name_end + 2 :], MOST_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflater.eof else None


def _to_srgb_curve(gamma: float, samples: Samples) -> Samples:
    """Convert samples from a power curve, sample = light ** gamma, to sRGB's curve."""
    most = np.iinfo(samples.dtype).max
    light = (np.arange(most + 1) / most) ** (1 / gamma)
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(encoded * most).astype(samples.dtype)[samples]
