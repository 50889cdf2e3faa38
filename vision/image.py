"""Bytes → upright RGB arrays, and the crops and resizes that networks want."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import simplejpeg
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

RGB = NDArray[np.uint8]  # (height, width, 3)
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_SIDE: Final = 65_535  # JPEG's own limit; a PNG can announce two thousand million
LETTERBOX_GREY: Final = 114  # ultralytics/data/augment.py, LetterBox(padding_value=114)

# Judged by MAX_SIDE and max_pixels instead, from the header, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

# Formats that are known, and refused: name, offset and bytes of their signatures. Asking Pillow would run every decoder
# that it has on the bytes of strangers, some of them in pure Python for seconds.
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

# What cykooz_resizer calls Pillow's filters.
_FILTERS: Final = {
    Image.Resampling.BILINEAR: FilterType.bilinear,
    Image.Resampling.BICUBIC: FilterType.catmull_rom,
}
_MUCH_LONGER: Final = 4  # a side than the other: Pillow is quicker then, as it can scale a part alone

_EXIF_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on damaged files: none of them has an error class of its own for all of it.
_DAMAGED: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """The bytes or the box sent can't be used as an image; the text says why."""


class DamagedImage(ImageError):
    """The bytes are no image, or a truncated or damaged one."""


class UnsupportedFormat(ImageError):
    """The bytes are an image, of a format that is not accepted."""


class ImageTooLarge(ImageError):
    """The header announces more pixels than are allowed; nothing was decoded."""


class BoxOutside(ImageError):
    """The box has no pixel in common with the image."""


def count_pixels(data: bytes, max_pixels: int) -> int:
    """How many pixels an image file has, by its header alone. Raises DamagedImage, UnsupportedFormat, ImageTooLarge."""
    width, height = _open(data, max_pixels).size
    return width * height


def decode(data: bytes, max_pixels: int) -> RGB:
    """Decode an image file (first frame) into an upright (height, width, 3) uint8 RGB array.

    EXIF orientation is applied, alpha is dropped, 16-bit grey is scaled to 8 bits. `max_pixels` is judged from the
    header. Raises DamagedImage, UnsupportedFormat or ImageTooLarge.
    """
    image = _open(data, max_pixels)
    pixels = _jpeg_pixels(data, image)
    if pixels is not None:
        return pixels
    try:
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        image = _to_rgb(image)
    except _DAMAGED as error:
        raise DamagedImage(f"the {image.format} image is damaged or truncated: {error}") from None
    return np.ascontiguousarray(image.transpose(turn) if turn is not None else image)


def crop(image: RGB, box: Box) -> tuple[RGB, tuple[int, int]]:
    """The part of `image` inside `box` (pixels, clamped to the image, grown to whole ones), and its left upper corner.

    Returns a view, not a copy. Raises BoxOutside where the box and the image don't overlap.
    """
    height, width = image.shape[:2]
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if left >= right or top >= bottom:
        raise BoxOutside(f"the box {list(box)} lies outside the image of {width}×{height} pixels")
    return image[top:bottom, left:right], (left, top)


# What letterbox makes of camera frames: 1:1 (the largest), 16:9, 4:3, 3:4, 9:16; height, width at size 640, stride 32.
LETTERBOX_SIZES: Final = ((640, 640), (384, 640), (480, 640), (640, 480), (640, 384))


@dataclass(frozen=True)
class Letterbox:
    """An image scaled into a network's input, and the way back.

    `image` is (h, w, 3) uint8. A point (x, y) of the original lies at `(x, y) * scale + (left, top)` in it. The scales
    of x and y differ a little, because each side was rounded to whole pixels.
    """

    image: RGB
    scale: tuple[float, float]
    left: int
    top: int

    def to_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (..., 2) points x, y from pixels of the network's input to pixels of the image."""
        corner = np.array([self.left, self.top], dtype=np.float32)
        scale: NDArray[np.float32] = np.array(self.scale, dtype=np.float32)
        return (points - corner) / scale


def letterbox(image: RGB, size: int, stride: int) -> Letterbox:
    """Scale so that the longer side is `size` and pad the shorter one with grey to a multiple of `stride`.

    The same arithmetic as ultralytics' LetterBox(auto=True), which its predictor uses: the answers are then the same
    to the pixel, and a 16:9 frame costs 0.6 of the padded square. All inputs are at most size × size.
    """
    height, width = image.shape[:2]
    scale = min(size / height, size / width)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    spare_x, spare_y = ((size - inner_width) % stride) / 2, ((size - inner_height) % stride) / 2
    if (inner_width, inner_height) != (width, height):
        image = np.asarray(
            cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
        )
    left, right = round(spare_x - 0.1), round(spare_x + 0.1)
    top, bottom = round(spare_y - 0.1), round(spare_y + 0.1)
    if top or bottom or left or right:
        grey = (LETTERBOX_GREY,) * 3
        padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey)
        image = np.asarray(padded, dtype=np.uint8)
    return Letterbox(image, (inner_width / width, inner_height / height), left, top)


def resize(image: RGB, width: int, height: int, resample: Image.Resampling) -> RGB:
    """Resize to (height, width, 3) with an antialiasing filter, bilinear or bicubic: as Pillow, but four times as fast.

    First in width, then in height, rounded after each, as Pillow does it: one value in a hundred differs by 1 of 255.
    """
    # Always the whole image: with a crop box of fractions cykooz_resizer 4.0.1 was seen to crash the process.
    source = ImageData(image.shape[1], image.shape[0], PixelType.U8x3, image.tobytes())
    options = ResizeOptions(ResizeAlg.convolution(_FILTERS[resample]))
    for size in ((width, image.shape[0]), (width, height)):
        resized = ImageData(*size, PixelType.U8x3)
        Resizer().resize(source, resized, options)
        source = resized
    return np.frombuffer(source.get_buffer(), dtype=np.uint8).reshape(height, width, 3)


def resize_shortest_edge(image: RGB, edge: int, crop_size: int, resample: Image.Resampling) -> RGB:
    """Scale so that the shorter side is `edge`, then cut the central square of `crop_size`: (crop_size, crop_size, 3).

    Of an image much longer than wide only what ends up in the square is scaled: 1×3000 costs no more than another.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    scaled_width, scaled_height = int(edge * width / shorter), int(edge * height / shorter)
    left, top = (scaled_width - crop_size) // 2, (scaled_height - crop_size) // 2
    if resample in _FILTERS and max(height, width) <= _MUCH_LONGER * shorter:
        scaled = resize(image, scaled_width, scaled_height, resample)
        return scaled[top : top + crop_size, left : left + crop_size]
    per_x, per_y = width / scaled_width, height / scaled_height
    source = (left * per_x, top * per_y, (left + crop_size) * per_x, (top + crop_size) * per_y)
    return np.asarray(Image.fromarray(image).resize((crop_size, crop_size), resample, box=source))


def _open(data: bytes, max_pixels: int) -> Image.Image:
    image = _identify(data)
    width, height = image.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise ImageTooLarge(
            f"the image has {width}×{height} pixels; at most {max_pixels / 1e6:g} megapixels"
            f" and {MAX_SIDE} pixels on a side are taken"
        )
    return image


def _jpeg_pixels(data: bytes, image: Image.Image) -> RGB | None:
    """A usual JPEG straight into an array, without the copies that Pillow makes: of a large frame half of the time.

    None where it is another format or mode, is to be turned, or something is wrong with it: then Pillow judges.
    """
    if image.format != "JPEG" or image.mode != "RGB" or _orientation(image) in _UPRIGHT:
        return None
    try:
        pixels: RGB = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return pixels


def _identify(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        pass  # unknown bytes, or a format that is known but not accepted: told apart below
    except _DAMAGED as error:
        raise DamagedImage(f"the image's header is damaged: {error}") from None
    other = next((name for name, offset, magic in _REFUSED if data[offset : offset + len(magic)] == magic), None)
    if other is None:
        raise DamagedImage("the bytes are no image that can be read")
    raise UnsupportedFormat(f"images of the format {other} are not accepted; send one of {', '.join(FORMATS)}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except _DAMAGED:
        return 1  # damaged metadata around a good picture: cameras do that, and viewers show it unturned


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey (PNG, TIFF): Pillow's own conversion clips instead of scaling
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.mode == "F":  # float TIFF: no fixed range, so its own
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        span = max(float(np.ptp(values)), 1e-12)
        image = Image.fromarray(((values - values.min()) / span * 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy it
