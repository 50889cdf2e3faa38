"""Colour profiles: pictures of any ICC profile → sRGB, which the networks were trained on."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vision.arrays import RGB
from vision.bands import in_bands

Mode: TypeAlias = Literal["L", "RGB", "CMYK"]  # Pillow's names

MOST_PROFILE_BYTES: Final = 4 * 2**20  # the largest of printers have 2.7 MB; a larger one is ignored

_SPACES: Final = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}  # what a profile calls them, in its header
# Profiles that were made to be sRGB differ from each other by so much; Display P3 differs by 50 and more.
_SAME: Final = 3
_KEPT: Final = 16  # transforms; a fleet of cameras and phones has a handful of profiles

_STEPS: Final = np.arange(0, 256, 17, dtype=np.uint8)
_SOME_COLOURS: Final = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS), axis=-1).reshape(64, 64, 3)
_ALL_GREYS: Final = np.arange(256, dtype=np.uint8)[None]


@dataclass(frozen=True)
class _Conversion:
    """To sRGB: a transform, or a table of all 256 greys. Neither where a profile is sRGB in effect."""

    transform: ImageCms.ImageCmsTransform | None = None
    greys: NDArray[np.uint8] | None = None


def to_srgb(samples: NDArray[np.uint8], profile: bytes | None) -> RGB:
    """(h, w), (h, w, 3) or (h, w, 4) samples of grey, RGB or CMYK as sRGB.

    A profile that is broken, too large or of another colour space is ignored, as viewers do. So is one that is sRGB in
    effect. CMYK of no profile is converted as 255 − ink.
    """
    mode: Mode = "L" if samples.ndim == 2 else "RGB" if samples.shape[2] == 3 else "CMYK"
    conversion = _conversion(profile, mode) or _Conversion()
    if mode == "CMYK" or conversion.transform is not None:
        return _converted(samples, mode, conversion.transform)
    if mode == "RGB":
        return samples
    colours = cv2.cvtColor(samples, cv2.COLOR_GRAY2RGB)
    return np.asarray(
        colours if conversion.greys is None else cv2.LUT(colours, conversion.greys, dst=colours), dtype=np.uint8
    )


def _converted(samples: NDArray[np.uint8], mode: Mode, transform: ImageCms.ImageCmsTransform | None) -> RGB:
    def convert(rows: slice) -> RGB:
        image = _image(samples[rows], mode)
        return np.asarray(image.convert("RGB") if transform is None else transform.apply(image))

    return in_bands(convert, *samples.shape[:2])


def is_usable(profile: bytes, mode: Mode) -> bool:
    """Whether a profile is one for samples of this mode."""
    return _conversion(profile, mode) is not None


def _conversion(profile: bytes | None, mode: Mode) -> _Conversion | None:
    if profile is None or len(profile) > MOST_PROFILE_BYTES or profile[16:20] != _SPACES[mode]:
        return None
    return _cached_conversion(profile, mode)


# Threads may share a transform: lcms2's cmsDoTransform only reads it, and keeps its cache of one pixel on the stack.
@lru_cache(maxsize=_KEPT)
def _cached_conversion(profile: bytes, mode: Mode) -> _Conversion | None:
    # Of grey lcms2 would compute 33 steps only and interpolate: 9 of 255 off where a profile is linear.
    flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            flags=flags,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "CMYK":
        return _Conversion(transform)
    probe = _ALL_GREYS if mode == "L" else _SOME_COLOURS
    found = np.asarray(transform.apply(_image(probe, mode)))
    expected = probe[..., None] if mode == "L" else probe
    if int(np.abs(found.astype(int) - expected).max()) <= _SAME:
        return _Conversion()
    return _Conversion(greys=found) if mode == "L" else _Conversion(transform)


def _image(samples: NDArray[np.uint8], mode: Mode) -> Image.Image:
    height, width = samples.shape[:2]
    return Image.frombytes(mode, (width, height), np.ascontiguousarray(samples).data)
