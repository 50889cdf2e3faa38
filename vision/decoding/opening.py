"""Recognises the format of image bytes, and checks their header against the limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vision.decoding.bmp import open_bmp
from vision.decoding.gif import open_gif
from vision.decoding.jpeg import open_jpeg
from vision.decoding.picture_file import PictureFile
from vision.decoding.png import open_png
from vision.decoding.tiff import open_tiff
from vision.decoding.webp import open_webp
from vision.errors import DamagedImage, ImageTooLarge, UnsupportedFormat

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_SIDE: Final = 65_535  # pixels; JPEG's limit, while a PNG can announce up to 2³¹ − 1

_OPENERS: Final[tuple[tuple[bytes, Callable[[bytes], PictureFile]], ...]] = (
    (b"\xff\xd8\xff", open_jpeg),
    (b"\x89PNG\r\n\x1a\n", open_png),
    (b"RIFF", open_webp),
    (b"BM", open_bmp),
    (b"GIF87a", open_gif),
    (b"GIF89a", open_gif),
    (b"II*\0", open_tiff),
    (b"MM\0*", open_tiff),
    (b"II+\0", open_tiff),  # BigTIFF
    (b"MM\0+", open_tiff),
)

# Known formats that are refused: name, offset and bytes of the signature.
_REFUSED: Final = (
    ("AVIF or HEIF", 4, b"ftyp"),
    ("EPS", 0, b"%!PS"),
    ("ICO", 0, b"\0\0\1\0"),
    ("JPEG 2000", 0, b"\0\0\0\x0cjP  "),
    ("JPEG XL", 0, b"\0\0\0\x0cJXL "),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("PCX", 0, b"\x0a\x05\x01"),
    ("PDF", 0, b"%PDF"),
    *(("PPM", 0, b"P%d" % kind) for kind in range(1, 8)),
    ("PSD", 0, b"8BPS"),
    ("SVG", 0, b"<svg"),
    ("SVG", 0, b"<?xml"),
)


@dataclass(frozen=True)
class Limits:
    """The limits of an image. pixels: width × height. pass_pixels: pixels × decoding passes over them."""

    pixels: int
    pass_pixels: int


OWN_FILES: Final = Limits(pixels=100_000_000, pass_pixels=2_000_000_000)  # for trusted files of a tool's user


def open_image(data: bytes, limits: Limits) -> PictureFile:
    """Read the header of an image file. Raises DamagedImage, UnsupportedFormat, ImageTooLarge."""
    opener = next((opener for magic, opener in _OPENERS if data.startswith(magic)), None)
    if opener is None:
        other = next((name for name, offset, magic in _REFUSED if data[offset : offset + len(magic)] == magic), None)
        accepted = f"send one of {', '.join(FORMATS)}"
        if other is None:
            raise DamagedImage(f"the bytes are no image that can be read; {accepted}")
        raise UnsupportedFormat(f"images of the format {other} are not accepted; {accepted}")
    picture = opener(data)
    _check(picture, limits)
    return picture


def _check(picture: PictureFile, limits: Limits) -> None:
    size = f"the image has {picture.width}×{picture.height} pixels"
    if picture.pixels > limits.pixels or max(picture.width, picture.height) > MAX_SIDE:
        raise ImageTooLarge(
            f"{size}; at most {limits.pixels / 1e6:g} megapixels and {MAX_SIDE} pixels on a side are taken"
        )
    if picture.passes > 1 and picture.pixels * picture.passes > limits.pass_pixels:
        raise ImageTooLarge(
            f"{size} in {picture.passes} scans; at most {limits.pass_pixels / 1e6:g} megapixels are taken"
            " over all scans together"
        )
