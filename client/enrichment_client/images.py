"""Turns whatever holds a picture or a box into what is sent. Pillow and numpy are never imported here."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeGuard, Union

from pydantic import BaseModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as PillowImage

#: A file's path, an encoded picture as bytes or an open file, a Pillow image, or (h, w, 3) uint8 RGB pixels.
Image = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, IO[bytes], "PillowImage", "NDArray[np.uint8]"]
#: x1, y1, x2, y2 in pixels of the upright picture, an object as the API takes it, or the `bbox` of an answer.
Bbox = Union[Sequence[float], Mapping[str, float], BaseModel, "NDArray[Any]"]

_LARGE_PNG: Final = 8 * 2**20  # bytes; the service refuses an encoded picture over 10 MiB
_JPEG_QUALITY: Final = 95
_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_GREY_MODES: Final = frozenset({"1", "L", "LA", "I;16"})
_RGB_MODES: Final = frozenset({"CMYK", "YCbCr", "LAB", "HSV", "RGBX"})  # Pillow converts them without loss of range
_PNG_COLOURS: Final = {1: 0, 3: 2, 4: 6}  # channels → PNG's colour type
_ORIENTATION: Final = 0x0112  # EXIF's tag


def encoded(image: Image) -> bytes:
    """Return the picture as an encoded file.

    Files and bytes stay as they are. Pixels become a PNG: the service sees exactly these. A Pillow image whose PNG has
    over 8 MiB becomes a JPEG of quality 95 instead, as the service refuses files over 10 MiB. Raises TypeError or
    ValueError for anything else, OSError for a file that can't be read.
    """
    if isinstance(image, str | os.PathLike):
        return _file(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if _is_pillow(image):
        return _pillow(image)
    if _is_array(image):
        return _png(image)
    if hasattr(image, "read") and isinstance(data := image.read(), bytes):
        return data
    raise TypeError(
        f"image: a {type(image).__name__} was given; give a path, the bytes of a file, a Pillow image or an array of"
        " (h, w, 3) uint8 RGB"
    )


def box(bbox: Bbox) -> list[float] | dict[str, float]:
    """Return a box as JSON has it. The service checks its numbers. Raises TypeError for what is no box."""
    if isinstance(bbox, BaseModel):
        bbox = bbox.model_dump()
    if isinstance(bbox, Mapping):
        return {str(name): float(value) for name, value in bbox.items()}
    if isinstance(bbox, str):
        raise TypeError("bbox: a str was given; give four numbers: x1, y1, x2, y2")
    return [float(value) for value in bbox]


def _is_pillow(value: object) -> TypeGuard[PillowImage]:
    return "PIL.Image" in sys.modules and isinstance(value, sys.modules["PIL.Image"].Image)


def _is_array(value: object) -> TypeGuard[NDArray[np.uint8]]:
    return "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].ndarray)


def _file(path: str | os.PathLike[str]) -> bytes:
    text = os.fspath(path)
    if text.startswith(("http://", "https://", "data:")) or len(text) > 4096:
        raise ValueError("image: a str must be the path of a file; for a URL or base64 give the decoded bytes")
    return Path(text).read_bytes()


def _pillow(image: PillowImage) -> bytes:
    """Encode a Pillow image and its EXIF orientation, so that the image is seen as its file would be."""
    image.load()  # Pillow turns a TIFF upright while loading, and removes its orientation
    if image.mode in _RGB_MODES:
        image = image.convert("RGB")
        image.info.pop("icc_profile", None)  # it describes the former colour space
    elif image.mode not in _PNG_MODES:
        raise ValueError(f"image: a Pillow image of mode {image.mode} was given; convert it to RGB")
    exif = image.getexif()
    options = {"exif": exif.tobytes()} if exif.get(_ORIENTATION, 1) != 1 else {}
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, **options)  # 1: a tenth of the default's time
    if buffer.tell() > _LARGE_PNG:
        buffer = io.BytesIO()
        profile = image.info.get("icc_profile")
        _opaque(image).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, icc_profile=profile, **options)
    return buffer.getvalue()


def _opaque(image: PillowImage) -> PillowImage:
    """Return an image in a mode of JPEG, as the service would see its PNG: 8 bits a channel, on white."""
    mode = "L" if image.mode in _GREY_MODES else "RGB"  # the colour profile is of this kind
    if image.mode == "I;16":
        image = image.point(lambda value: value * (1 / 256))  # `convert` would cut values over 255
    elif image.mode in {"LA", "RGBA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        clear = image.getchannel("A").point(lambda alpha: 255 - alpha)
        image = image.convert("RGB")
        image.paste((255, 255, 255), (0, 0), clear)
    return image.convert(mode)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode (h, w), (h, w, 3) or (h, w, 4) uint8 pixels: grey, RGB or RGBA."""
    shape = pixels.shape
    channels = shape[2] if len(shape) == 3 else 1
    if pixels.dtype != "uint8" or len(shape) not in (2, 3) or channels not in _PNG_COLOURS or 0 in shape:
        raise ValueError(f"image: an array of {shape} {pixels.dtype} was given; give (h, w, 3) uint8 RGB")
    rows = pixels.copy()
    rows[1:] -= pixels[:-1]  # PNG's filter 2: each row as its difference to the row above, modulo 256
    data = zlib.compress(b"".join(b"\2" + row.tobytes() for row in rows), 1)
    header = struct.pack(">IIBBBBB", shape[1], shape[0], 8, _PNG_COLOURS[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
