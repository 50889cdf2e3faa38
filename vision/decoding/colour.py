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

from vision.image import RGB

Mode: TypeAlias = Literal["L", "RGB", "CMYK"]  # Pillow's names

MOST_PROFILE_BYTES: Final = 4 * 2**20  # the largest of printers have 2.7 MB; a larger one is ignored

_SPACES: Final = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}  # what a profile calls them, in its header
# Profiles that were made to be sRGB differ from each other by so much; Display P3 differs by 50 and more.
_SAME: Final = 3
_KEPT: Final = 16  # transforms; a fleet of cameras and phones has a handful of profiles


@dataclass(frozen=True)
class _Conversion:
    """From a profile's colours to sRGB; None where the profile is sRGB in effect."""

    transform: ImageCms.ImageCmsTransform | None


def to_srgb(samples: NDArray[np.uint8], profile: bytes | None) -> RGB:
    """(h, w), (h, w, 3) or (h, w, 4) samples of grey, RGB or CMYK as sRGB.

    A profile that is broken, too large or of another colour space is ignored, as viewers do. So is one that is sRGB in
    effect. CMYK of no profile is converted as 255 − ink.
    """
    mode: Mode = "L" if samples.ndim == 2 else "RGB" if samples.shape[2] == 3 else "CMYK"
    conversion = _conversion(profile, mode)
    if conversion is not None and conversion.transform is not None:
        return np.asarray(conversion.transform.apply(_image(samples, mode)))
    if mode == "RGB":
        return samples
    if mode == "L":
        return np.asarray(cv2.cvtColor(samples, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    return np.asarray(_image(samples, mode).convert("RGB"))


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
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return _Conversion(None if mode != "CMYK" and _is_srgb(transform, mode) else transform)


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: Mode) -> bool:
    """Whether a transform leaves a grid of 16³ colours, or all greys, as they are."""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(64, 64, 3)
    probe = grid if mode == "RGB" else np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = np.asarray(transform.apply(_image(probe, mode))).astype(int)
    expected = probe if mode == "RGB" else probe[..., None]
    return int(np.abs(found - expected).max()) <= _SAME


def _image(samples: NDArray[np.uint8], mode: Mode) -> Image.Image:
    height, width = samples.shape[:2]
    return Image.frombytes(mode, (width, height), np.ascontiguousarray(samples).data)
