"""What holds of every format."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from tests.vision.decoding.made import (
    LIMITS,
    MEGAPIXEL,
    decode,
    encoded,
    noise,
    png_of_size,
    scene,
    with_orientation,
    xmp_orientation,
)
from vision.decoding import (
    FORMATS,
    MAX_SIDE,
    DamagedImage,
    ImageTooLarge,
    Limits,
    UnsupportedFormat,
    open_image,
)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(form: str) -> None:
    pixels = noise(20, 30)
    decoded = decode(encoded(Image.fromarray(pixels), form))
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize(("form", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("MPO", {})])
def test_lossy_formats_keep_the_picture(form: str, options: dict[str, Any]) -> None:
    pixels = scene(64, 96)
    decoded = decode(encoded(Image.fromarray(pixels), form, **options))
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).mean() < 4


def test_the_photograph_of_a_phone_with_two_pictures_in_it_is_a_jpeg() -> None:
    first, second = Image.fromarray(scene(64, 96)), Image.new("RGB", (96, 64), (255, 0, 0))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(decode(data).astype(int) - scene(64, 96)).mean() < 4


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_taken(form: str) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 10, 10)), Image.new("RGB", (8, 8), (10, 10, 200))
    options = {"lossless": True} if form == "WEBP" else {}
    decoded = decode(encoded(first, form, save_all=True, append_images=[second], **options))
    assert decoded[4, 4].tolist() == [200, 10, 10]


@pytest.mark.parametrize(
    ("mode", "colour", "form", "expected"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("LA", (77, 0), "PNG", (255, 255, 255)),
        ("LA", (77, 255), "PNG", (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), "PNG", (255, 255, 255)),
        ("RGBA", (10, 20, 30, 128), "TIFF", (132, 137, 142)),
        ("RGBA", (10, 20, 30, 255), "BMP", (10, 20, 30)),
        ("I;16", 0, "PNG", (0, 0, 0)),
        ("I;16", 0x0100, "PNG", (1, 1, 1)),
        ("I;16", 0x80FF, "PNG", (128, 128, 128)),
        ("I;16", 0xFFFF, "TIFF", (255, 255, 255)),
        ("I;16", 0x4000, "TIFF", (64, 64, 64)),
        ("CMYK", (255, 0, 0, 0), "TIFF", (0, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "JPEG", (254, 0, 0)),
        ("YCbCr", (255, 128, 128), "TIFF", (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb_of_the_right_values(
    mode: str, colour: int | tuple[int, ...], form: str, expected: tuple[int, int, int]
) -> None:
    decoded = decode(encoded(Image.new(mode, (9, 7), colour), form))
    assert decoded.shape == (7, 9, 3)
    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_gives_its_colours(form: str) -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([0, 0, 0, 250, 120, 10, 20, 30, 240])
    image.putdata([0, 1, 2, 1, 2, 2, 0, 1])
    decoded = decode(encoded(image, form))
    assert decoded[0].tolist() == [[0, 0, 0], [250, 120, 10], [20, 30, 240], [250, 120, 10]]


def test_sixteen_bits_of_grey_keep_their_gradient() -> None:
    ramp = np.tile(np.arange(0, 65536, 256, dtype=np.uint16), (4, 1))
    decoded = decode(encoded(Image.fromarray(ramp), "PNG"))
    assert decoded[0, :, 0].tolist() == list(range(256))


def test_float_grey_is_scaled_by_its_own_range() -> None:
    values = np.array([[-2.0, 0.0, 2.0, np.nan]], np.float32)
    decoded = decode(encoded(Image.fromarray(values), "TIFF"))
    assert decoded[0, :3, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    image = Image.fromarray(scene(40, 64))
    data = encoded(image, form, exif=with_orientation(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    decoded = decode(data)
    assert decoded.shape == ((40, 64, 3) if orientation < 5 else (64, 40, 3))
    np.testing.assert_array_equal(decoded, upright)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    data = encoded(Image.fromarray(scene(40, 64)), "JPEG", exif=with_orientation(orientation))
    assert decode(data).shape == (40, 64, 3)


def test_damaged_metadata_around_a_good_picture_do_no_harm() -> None:
    data = encoded(Image.fromarray(scene(40, 64)), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert decode(data).shape == (40, 64, 3)


@pytest.mark.parametrize("form", FORMATS)
def test_the_header_says_how_many_pixels_there_are(form: str) -> None:
    file = open_image(encoded(Image.fromarray(scene(40, 64)), form), LIMITS)
    assert (file.FORMAT, file.width, file.height, file.pixels) == (form, 64, 40, 2560)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_extreme_shapes_are_images(size: tuple[int, int]) -> None:
    assert decode(encoded(Image.new("RGB", size, (1, 2, 3)), "PNG")).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_damaged(form: str, share: float) -> None:
    data = encoded(Image.fromarray(noise(40, 64)), form)
    with pytest.raises(DamagedImage, match=r"damaged|truncated|no image"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_alone_says_which_way_up_a_picture_is(form: str) -> None:
    image, xmp = Image.fromarray(scene(40, 64)), xmp_orientation(6)
    if form == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        data = encoded(image, form, pnginfo=text)
    elif form == "TIFF":
        data = encoded(image, form, tiffinfo={700: xmp})
    else:
        data = encoded(image, form, xmp=xmp)
    assert b"tiff:Orientation" in data
    assert decode(data).shape == (40, 64, 3)


@pytest.mark.parametrize("data", [b"", b"\x00", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_bytes_that_are_no_image_are_damaged(data: bytes) -> None:
    with pytest.raises(DamagedImage):
        decode(data)


@pytest.mark.parametrize("form", ["PPM", "ICO", "EPS", "PCX", "JPEG2000"])
def test_another_format_is_not_accepted_and_those_that_are_get_named(form: str) -> None:
    with pytest.raises(UnsupportedFormat, match="send one of JPEG, PNG, WEBP, BMP, GIF, TIFF"):
        decode(encoded(Image.fromarray(noise(16, 16)), form))


@pytest.mark.parametrize("size", [(12_000, 12_000), (20_000, 20_000), (2**31 - 1, 1), (1, MAX_SIDE + 1)])
def test_too_many_pixels_are_refused_by_the_header(size: tuple[int, int]) -> None:
    data = png_of_size(*size)
    assert len(data) < 100
    began = time.thread_time()
    with pytest.raises(ImageTooLarge):
        open_image(data, Limits(50 * MEGAPIXEL, 50 * MEGAPIXEL))
    assert time.thread_time() - began < 0.5


def test_the_limit_of_pixels_is_the_last_that_is_allowed() -> None:
    data = encoded(Image.new("RGB", (100, 50)), "PNG")
    assert decode(data, Limits(5000, 5000)).shape == (50, 100, 3)
    with pytest.raises(ImageTooLarge, match="100×50"):
        open_image(data, Limits(4999, 5000))
