"""Makes ICC profiles from the primaries of PNG's cHRM and cICP chunks."""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

# x and y of white, red, green and blue.
Chromaticities: TypeAlias = tuple[float, float, float, float, float, float, float, float]

SRGB: Final[Chromaticities] = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
# ITU-T H.273, table 2: the ColourPrimaries that still images use.
CODED: Final[dict[int, Chromaticities]] = {
    1: SRGB,
    5: (0.3127, 0.3290, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),  # BT.601 of 625 lines
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # BT.601 of 525 lines
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI P3
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}

_D50: Final = (0.9642, 1.0, 0.8249)  # white of the connection space
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# sRGB's curve: ICC.1:2022, parametric curve of type 3, with the parameters of IEC 61966-2-1.
_CURVE: Final = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile_of(chromaticities: Chromaticities) -> bytes | None:
    """Make an ICC profile of RGB with these primaries and sRGB's curve; None if they span no colour space."""
    white, red, green, blue = (_xyz(*chromaticities[place : place + 2]) for place in (0, 2, 4, 6))
    primaries = np.stack([red, green, blue], axis=1)
    if not np.isfinite(primaries).all() or abs(np.linalg.det(primaries)) < 1e-6 or not np.isfinite(white).all():
        return None
    scaled = primaries * np.linalg.solve(primaries, white)
    cones = _BRADFORD @ white
    if np.abs(cones).min() < 1e-6:
        return None
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ np.array(_D50) / cones) @ _BRADFORD @ scaled
    if np.abs(adapted).max() >= 32768:  # beyond the range of s15Fixed16Number
        return None
    curve = b"para" + struct.pack(">IHH", 0, 3, 0) + b"".join(_fixed(number) for number in _CURVE)
    tags = {b"wtpt": _xyz_tag(np.array(_D50)), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {name: _xyz_tag(adapted[:, column]) for column, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(tags)


def _xyz(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x / y, 1.0, (1 - x - y) / y]) if y > 0 else np.full(3, np.nan)


def _fixed(number: float) -> bytes:
    return struct.pack(">i", round(number * 65536))


def _xyz_tag(xyz: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(float(number)) for number in xyz)


def _profile(tags: dict[bytes, bytes]) -> bytes:
    """Make a version 4 display profile of RGB with these tags."""
    position = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", position + len(body), len(content))
        body += content.ljust(-(-len(content) // 4) * 4, b"\0")
    header = struct.pack(">I4xI4s4s4s", position + len(body), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">12x4s28x", b"acsp") + b"".join(_fixed(number) for number in _D50)
    return header.ljust(128, b"\0") + table + body
