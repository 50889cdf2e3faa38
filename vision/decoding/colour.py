"""Converts pictures with any ICC profile to sRGB, on which the networks were trained."""

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

MOST_PROFILE_BYTES: Final = 4 * 2**20  # larger than the largest printer profiles (2.7 MB); larger ones are ignored

_SPACES: Final = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}  # mode → its name in a profile's header
# The largest difference, of 255, between profiles that mean sRGB. Display P3 differs by 50 and more.
_SAME: Final = 3
_KEPT: Final = 16  # cached transforms; cameras and phones share a handful of profiles

_STEPS: Final = np.arange(0, 256, 17, dtype=np.uint8)
_SOME_COLOURS: Final = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS), axis=-1).reshape(64, 64, 3)
_ALL_GREYS: Final = np.arange(256, dtype=np.uint8)[None]


@dataclass(frozen=True)
class _Conversion:
    """A conversion to sRGB: a transform, or a table of all 256 greys. It has neither if the profile equals sRGB."""

    transform: ImageCms.ImageCmsTransform | None = None
    greys: NDArray[np.uint8] | None = None


def to_srgb(samples: NDArray[np.uint8], profile: bytes | None) -> RGB:
    """Convert samples of grey (h, w), RGB (h, w, 3) or CMYK (h, w, 4) to sRGB (h, w, 3).

    A profile that is broken, too large or of another colour space is ignored, as viewers do. So is a profile that
    equals sRGB. CMYK without a profile is converted as 255 − ink.
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
    """Whether a profile is valid for samples of this mode."""
    return _conversion(profile, mode) is not None


def _conversion(profile: bytes | None, mode: Mode) -> _Conversion | None:
    if profile is None or len(profile) > MOST_PROFILE_BYTES or profile[16:20] != _SPACES[mode]:
        return None
    return _cached_conversion(profile, mode)


# Threads may share a transform: lcms2's cmsDoTransform only reads it, and its one-pixel cache is on the stack.
@lru_cache(maxsize=_KEPT)
def _cached_conversion(profile: bytes, mode: Mode) -> _Conversion | None:
    # With its optimization, lcms2 computes only 33 greys and interpolates, which is inexact for linear profiles.
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
