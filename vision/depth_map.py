"""Normalises relative depth maps, cuts regions out of them and encodes them as files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.arrays import F32
from vision.bands import bands

Format = Literal["png8", "png16", "npy"]
Colormap = Literal["inferno", "magma", "plasma", "viridis", "cividis", "turbo"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
COLORMAPS: Final[Mapping[Colormap, int]] = MappingProxyType(
    {name: getattr(cv2, f"COLORMAP_{name.upper()}") for name in get_args(Colormap)}
)
# Bytes of each pixel while a map is encoded: the array, its colours, the file and its copy.
_JSON_BYTES: Final = 5
_MOST_SAMPLES: Final = 1024  # on a side; a call may ask for 64 boxes of 50 megapixels each
_COLOUR_BYTES: Final = 10
_FILE_BYTES: Final[Mapping[Format, int]] = MappingProxyType({"png8": 3, "png16": 6, "npy": 9})


@dataclass(frozen=True)
class FileForm:
    """The form of a depth map as a file.

    format: 8- or 16-bit PNG, or NumPy's .npy of float32 0…1. 1 and bright is near. colormap: of an 8-bit PNG in
    colours; None = grey.
    """

    format: Format
    colormap: Colormap | None = None


@dataclass(frozen=True)
class Rendered:
    """A region of a depth map as a PNG, 8-bit grey, bright is near.

    low, high, mean: of the region's depth, 0…1, before rounding to 8 bits.
    """

    png: bytes
    low: float
    high: float
    mean: float


def normalise(depth: F32) -> F32:
    """Scale a (h, w) map of relative inverse depth to 0…1: 1 is the map's nearest point, 0 its farthest.

    A constant map becomes all 0. Raises ValueError for NaN or infinite values.
    """
    low, high = float(depth.min()), float(depth.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("the depth map has values that are not finite")
    if high == low:
        return np.zeros_like(depth, dtype=np.float32)
    return ((depth - low) / (high - low)).astype(np.float32)


def region(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int]) -> F32:
    """The depth within a box of the image: (bottom - top, right - left) float32, from a normalised (h, w) map.

    image_size: width, height of the image in pixels. box: left, top, right, bottom in whole pixels of the image.
    Bilinear sampling from the whole map: a box has the same values as the whole map at that place.
    """
    return _resampled(depth, image_size, box, box[2] - box[0], box[3] - box[1])


def sampled(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int]) -> F32:
    """The same part as `region`, to be measured: at most 1024 samples on each side, twice what a network's map has."""
    across, down = (min(side, _MOST_SAMPLES) for side in (box[2] - box[0], box[3] - box[1]))
    return _resampled(depth, image_size, box, across, down)


def _resampled(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int], across: int, down: int) -> F32:
    """A box of the map as (down, across)."""
    height, width = depth.shape
    left, top, right, bottom = box
    per_x, per_y = width / image_size[0], height / image_size[1]
    source = (left * per_x, top * per_y, right * per_x, bottom * per_y)
    image = Image.fromarray(depth).resize((across, down), Image.Resampling.BILINEAR, box=source)
    return np.asarray(image, dtype=np.float32)


def rendered(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int]) -> Rendered:
    """Render the same part as `region`, as a PNG. It works in strips, because a full float32 map needs more memory.

    Raises ValueError if the PNG can't be encoded.
    """
    grey = np.empty(_shape(box), np.uint8)
    low, high, total = np.inf, -np.inf, 0.0
    for rows, strip in _strips(depth, image_size, box):
        low, high = min(low, float(strip.min())), max(high, float(strip.max()))
        total += float(strip.sum(dtype=np.float64))
        strip *= 255
        grey[rows] = np.rint(strip, out=strip)
    return Rendered(_png(grey), low, high, total / grey.size)


def as_file(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int], form: FileForm) -> bytes:
    """Encode the same part as `region`. Raises ValueError if the PNG can't be encoded."""
    if form.format == "npy":
        return _npy(_shape(box), (strip for _, strip in _strips(depth, image_size, box)))
    pixels: NDArray[Any] = np.empty(_shape(box), np.uint8 if form.format == "png8" else np.uint16)
    highest = np.iinfo(pixels.dtype).max
    for rows, strip in _strips(depth, image_size, box):
        strip *= highest
        pixels[rows] = np.rint(strip, out=strip)
    return _png(pixels if form.colormap is None else cv2.applyColorMap(pixels, COLORMAPS[form.colormap]))


def answer_bytes(box: tuple[int, int, int, int], form: FileForm | None = None) -> int:
    """An upper bound in bytes for the peak memory of `as_file`.

    Without a form it is that of `rendered`, and of its PNG as base64 and JSON.
    """
    height, width = _shape(box)
    if form is None:
        return _JSON_BYTES * height * width
    return (_FILE_BYTES[form.format] if form.colormap is None else _COLOUR_BYTES) * height * width


def _shape(box: tuple[int, int, int, int]) -> tuple[int, int]:
    left, top, right, bottom = box
    return bottom - top, right - left


def _strips(depth: F32, image_size: tuple[int, int], box: tuple[int, int, int, int]) -> Iterator[tuple[slice, F32]]:
    """The region's rows in strips, each writable."""
    left, top, right, _ = box
    wide = region(depth, (image_size[0], len(depth)), (left, 0, right, len(depth)))
    for rows in bands(*_shape(box)):
        yield rows, _rows(wide, image_size[1], top + rows.start, top + rows.stop)


def _rows(wide: F32, image_height: int, top: int, bottom: int) -> F32:
    """Rows top…bottom of the image, writable. wide: (h, image width), scaled to the image in width only."""
    height, width = wide.shape
    if image_height < height:
        return region(wide, (width, image_height), (0, top, width, bottom)).copy()
    # The same arithmetic as Pillow's enlarging, but faster.
    positions = ((np.arange(top, bottom) + 0.5) * (height / image_height) - 0.5).clip(0, height - 1)
    above = positions.astype(np.intp)
    upper: F32 = wide[above]
    strip: F32 = wide[np.minimum(above + 1, height - 1)]
    strip -= upper
    strip *= (positions - above).astype(np.float32)[:, None]
    strip += upper
    return strip


def _npy(shape: tuple[int, int], strips: Iterable[F32]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for strip in strips:
        buffer.write(strip.astype("<f4", copy=False).tobytes())
    return buffer.getvalue()


def _png(pixels: NDArray[Any]) -> bytes:
    """Encode grey (h, w) of 8 or 16 bits, or BGR (h, w, 3)."""
    done, png = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"no PNG could be made of a map of {pixels.shape[1]}×{pixels.shape[0]} pixels")
    return png.tobytes()
