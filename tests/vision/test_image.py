from __future__ import annotations

import io
import random
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vision.image import (
    FORMATS,
    LETTERBOX_SIZES,
    MAX_SIDE,
    RGB,
    Box,
    BoxOutside,
    DamagedImage,
    ImageError,
    ImageTooLarge,
    UnsupportedFormat,
    crop,
    decode,
    letterbox,
    resize,
    resize_shortest_edge,
)

MEGAPIXEL = 1_000_000
# Pillow warns of what it would still open and we refuse, and of metadata that it can't read.
pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(height: int, width: int, seed: int = 0) -> RGB:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(height: int, width: int) -> RGB:
    """Smooth, so that lossy formats keep it, and different at each edge."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=2).astype(np.uint8)


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of fewer than 100 bytes that announces so many pixels and holds none of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# ── decode ──


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(form: str) -> None:
    pixels = noise(20, 30)
    decoded = decode(encoded(Image.fromarray(pixels), form), MEGAPIXEL)
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize(("form", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("MPO", {})])
def test_lossy_formats_keep_the_picture(form: str, options: dict[str, Any]) -> None:
    pixels = scene(64, 96)
    decoded = decode(encoded(Image.fromarray(pixels), form, **options), MEGAPIXEL)
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).mean() < 4


def test_the_photograph_of_a_phone_with_two_pictures_in_it_is_a_jpeg() -> None:
    first, second = Image.fromarray(scene(64, 96)), Image.new("RGB", (96, 64), (255, 0, 0))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(decode(data, MEGAPIXEL).astype(int) - scene(64, 96)).mean() < 4


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_taken(form: str) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 10, 10)), Image.new("RGB", (8, 8), (10, 10, 200))
    options = {"lossless": True} if form == "WEBP" else {}
    decoded = decode(encoded(first, form, save_all=True, append_images=[second], **options), MEGAPIXEL)
    assert decoded[4, 4].tolist() == [200, 10, 10]


@pytest.mark.parametrize(
    ("mode", "colour", "form", "expected"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("LA", (77, 0), "PNG", (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), "PNG", (10, 20, 30)),
        ("RGBA", (10, 20, 30, 128), "TIFF", (10, 20, 30)),
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
    decoded = decode(encoded(Image.new(mode, (9, 7), colour), form), MEGAPIXEL)
    assert decoded.shape == (7, 9, 3)
    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_gives_its_colours(form: str) -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([0, 0, 0, 250, 120, 10, 20, 30, 240])
    image.putdata([0, 1, 2, 1, 2, 2, 0, 1])
    decoded = decode(encoded(image, form), MEGAPIXEL)
    assert decoded[0].tolist() == [[0, 0, 0], [250, 120, 10], [20, 30, 240], [250, 120, 10]]


def test_sixteen_bits_of_grey_keep_their_gradient() -> None:
    ramp = np.tile(np.arange(0, 65536, 256, dtype=np.uint16), (4, 1))
    decoded = decode(encoded(Image.fromarray(ramp), "PNG"), MEGAPIXEL)
    assert decoded[0, :, 0].tolist() == list(range(256))


def test_float_grey_is_scaled_by_its_own_range() -> None:
    values = np.array([[-2.0, 0.0, 2.0, np.nan]], np.float32)
    decoded = decode(encoded(Image.fromarray(values), "TIFF"), MEGAPIXEL)
    assert decoded[0, :3, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    image = Image.fromarray(scene(40, 64))
    data = encoded(image, form, exif=with_orientation(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    decoded = decode(data, MEGAPIXEL)
    assert decoded.shape == ((40, 64, 3) if orientation < 5 else (64, 40, 3))
    np.testing.assert_array_equal(decoded, upright)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    data = encoded(Image.fromarray(scene(40, 64)), "JPEG", exif=with_orientation(orientation))
    assert decode(data, MEGAPIXEL).shape == (40, 64, 3)


def test_damaged_metadata_around_a_good_picture_do_no_harm() -> None:
    data = encoded(Image.fromarray(scene(40, 64)), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert decode(data, MEGAPIXEL).shape == (40, 64, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_extreme_shapes_are_images(size: tuple[int, int]) -> None:
    assert decode(encoded(Image.new("RGB", size, (1, 2, 3)), "PNG"), MEGAPIXEL).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_damaged(form: str, share: float) -> None:
    data = encoded(Image.fromarray(noise(40, 64)), form)
    with pytest.raises(DamagedImage, match=r"damaged|no image"):
        decode(data[: int(len(data) * share)], MEGAPIXEL)


@pytest.mark.parametrize("data", [b"", b"\x00", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_bytes_that_are_no_image_are_damaged(data: bytes) -> None:
    with pytest.raises(DamagedImage):
        decode(data, MEGAPIXEL)


@pytest.mark.parametrize("form", ["PPM", "ICO", "EPS", "PCX", "JPEG2000"])
def test_another_format_is_not_accepted_and_those_that_are_get_named(form: str) -> None:
    with pytest.raises(UnsupportedFormat, match="send one of JPEG, PNG, WEBP, BMP, GIF, TIFF"):
        decode(encoded(Image.fromarray(noise(16, 16)), form), MEGAPIXEL)


@pytest.mark.parametrize("size", [(12_000, 12_000), (20_000, 20_000), (2**31 - 1, 1), (1, MAX_SIDE + 1)])
def test_too_many_pixels_are_refused_by_the_header(size: tuple[int, int]) -> None:
    data = png_of_size(*size)
    assert len(data) < 100
    began = time.perf_counter()
    with pytest.raises(ImageTooLarge):
        decode(data, 50 * MEGAPIXEL)
    assert time.perf_counter() - began < 0.5


def test_the_limit_of_pixels_is_the_last_that_is_allowed() -> None:
    data = encoded(Image.new("RGB", (100, 50)), "PNG")
    assert decode(data, 5000).shape == (50, 100, 3)
    with pytest.raises(ImageTooLarge, match="100×50"):
        decode(data, 4999)


def fuzz_seeds() -> list[bytes]:
    picture, grey = Image.fromarray(noise(17, 23)), Image.fromarray(noise(17, 23)[..., 0])
    sixteen = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (17, 23)).astype(np.uint16))
    turned = with_orientation(6)
    return [
        encoded(picture, "JPEG"),
        encoded(picture, "JPEG", progressive=True, exif=turned),
        encoded(picture.convert("CMYK"), "JPEG"),
        encoded(picture, "PNG", exif=turned),
        encoded(picture.convert("P"), "PNG"),
        encoded(picture.convert("RGBA"), "PNG"),
        encoded(grey.convert("LA"), "PNG"),
        encoded(sixteen, "PNG"),
        encoded(picture, "WEBP", exif=turned),
        encoded(picture.convert("RGBA"), "WEBP", lossless=True),
        encoded(picture, "BMP"),
        encoded(picture.convert("P"), "BMP"),
        encoded(grey, "GIF"),
        encoded(picture, "GIF", save_all=True, append_images=[picture]),
        encoded(picture, "TIFF", exif=turned),
        encoded(picture.convert("CMYK"), "TIFF"),
        encoded(sixteen, "TIFF"),
        encoded(picture, "TIFF", compression="tiff_deflate"),
    ]


def mutated(data: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place = dice.randrange(min(len(damaged), dice.choice((60, 200, len(damaged)))))
        match dice.randrange(5):
            case 0 | 1:
                damaged[place] = dice.choice((0, 127, 128, 255, damaged[place] ^ 1 << dice.randrange(8)))
            case 2:
                del damaged[place + 1 : place + 1 + dice.choice((1, 2, 50))]
            case 3:
                damaged[place:place] = dice.randbytes(dice.choice((1, 4, 30)))
            case 4:
                del damaged[place + 1 :]
    return bytes(damaged)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_of_any_kind_raise_image_errors_only(seed: int) -> None:
    dice, seeds = random.Random(seed), fuzz_seeds()
    outcomes = {"decoded": 0, "refused": 0}
    for _ in range(5000):
        try:
            decoded = decode(mutated(dice.choice(seeds), dice), MEGAPIXEL)
        except ImageError:
            outcomes["refused"] += 1
        else:
            outcomes["decoded"] += 1
            assert decoded.ndim == 3
            assert decoded.shape[2] == 3
    assert min(outcomes.values()) > 500  # else the damage is too small or too great to show anything


# ── crop ──


@pytest.mark.parametrize(
    ("box", "corner", "size"),
    [
        ((10, 5, 30, 25), (10, 5), (20, 20)),
        ((0, 0, 60, 40), (0, 0), (60, 40)),
        ((-20, -1e6, 1e6, 7), (0, 0), (60, 7)),
        ((50, 30, 70, 50), (50, 30), (10, 10)),
        ((10.6, 5.2, 30.1, 24.9), (10, 5), (21, 20)),
        ((10.2, 5.2, 10.3, 5.3), (10, 5), (1, 1)),
        ((59.5, 39.5, 61, 41), (59, 39), (1, 1)),
    ],
)
def test_a_box_is_clamped_and_grown_to_whole_pixels(box: Box, corner: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = noise(40, 60)
    part, found = crop(pixels, box)
    assert found == corner
    np.testing.assert_array_equal(part, pixels[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]])
    assert part.shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "box", [(60, 0, 70, 40), (0, 40, 60, 50), (-10, 0, 0, 40), (0, -9, 60, -1), (900, 900, 999, 999)]
)
def test_a_box_outside_is_refused(box: Box) -> None:
    with pytest.raises(BoxOutside, match="60×40"):
        crop(noise(40, 60), box)


# ── letterbox ──


@pytest.mark.parametrize(
    ("image_size", "shape", "inner", "corner"),
    [
        # width, height → height, width of the input; width, height of the picture in it; its left upper corner.
        # The figures are those of ultralytics' LetterBox((640, 640), auto=True, stride=32).
        ((640, 640), (640, 640), (640, 640), (0, 0)),
        ((810, 1080), (640, 480), (480, 640), (0, 0)),
        ((1280, 720), (384, 640), (640, 360), (0, 12)),
        ((1920, 1080), (384, 640), (640, 360), (0, 12)),
        ((640, 361), (384, 640), (640, 361), (0, 11)),
        ((333, 641), (640, 352), (332, 640), (10, 0)),
        ((100, 50), (320, 640), (640, 320), (0, 0)),
        ((1, 1), (640, 640), (640, 640), (0, 0)),
        ((1, 3000), (640, 32), (1, 640), (15, 0)),
        ((3000, 1), (32, 640), (640, 1), (0, 15)),
        ((65535, 1), (32, 640), (640, 1), (0, 15)),
    ],
)
def test_letterbox_is_ultralytics_arithmetic(
    image_size: tuple[int, int], shape: tuple[int, int], inner: tuple[int, int], corner: tuple[int, int]
) -> None:
    fitted = letterbox(np.full((image_size[1], image_size[0], 3), 200, np.uint8), 640, 32)
    assert fitted.image.shape == (*shape, 3)
    assert (fitted.left, fitted.top) == corner
    edges = np.array([corner, (corner[0] + inner[0], corner[1] + inner[1])], np.float32)
    np.testing.assert_allclose(fitted.to_image(edges), [(0, 0), image_size], rtol=1e-5)
    picture = np.full((*shape, 3), 114, np.uint8)
    picture[corner[1] : corner[1] + inner[1], corner[0] : corner[0] + inner[0]] = 200
    np.testing.assert_array_equal(fitted.image, picture)


def test_letterbox_leaves_a_picture_of_the_right_size_alone() -> None:
    pixels = noise(480, 640)
    np.testing.assert_array_equal(letterbox(pixels, 640, 32).image, pixels)


def test_points_of_a_letterbox_go_back_to_where_they_came_from() -> None:
    rng = np.random.default_rng(0)
    for width, height in rng.integers(1, 3000, size=(20, 2)):
        fitted = letterbox(np.zeros((height, width, 3), np.uint8), 640, 32)
        points = (rng.uniform(0, 1, size=(17, 2)) * (width, height)).astype(np.float32)
        inside = points * np.array(fitted.scale) + (fitted.left, fitted.top)
        np.testing.assert_allclose(fitted.to_image(inside.astype(np.float32)), points, atol=max(width, height) / 1e4)


@pytest.mark.parametrize("ratio", [1, 16 / 9, 4 / 3, 3 / 4, 9 / 16])
def test_the_sizes_that_warm_up_uses_are_those_of_camera_frames(ratio: float) -> None:
    frame = np.zeros((1080, round(1080 * ratio), 3), np.uint8)
    assert letterbox(frame, 640, 32).image.shape[:2] in LETTERBOX_SIZES


def test_no_input_is_larger_than_the_one_that_warm_up_takes_for_the_largest() -> None:
    assert max(LETTERBOX_SIZES, key=lambda size: size[0] * size[1]) == LETTERBOX_SIZES[0] == (640, 640)


# ── resize ──


def naive_shortest_edge(pixels: RGB, edge: int, side: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    scaled = Image.fromarray(pixels).resize(
        (int(edge * width / shorter), int(edge * height / shorter)), Image.Resampling.BICUBIC
    )
    left, top = (scaled.width - side) // 2, (scaled.height - side) // 2
    return np.asarray(scaled.crop((left, top, left + side, top + side)))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (40, 90), (1200, 400)])
def test_the_shortest_edge_is_scaled_and_the_centre_cut_out(size: tuple[int, int]) -> None:
    pixels = scene(size[1], size[0])
    cut = resize_shortest_edge(pixels, 256, 224, Image.Resampling.BICUBIC)
    assert cut.shape == (224, 224, 3)
    assert np.abs(cut.astype(int) - naive_shortest_edge(pixels, 256, 224)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (1, 65535)])
def test_extreme_shapes_cost_no_more_than_others(size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 3), 99, np.uint8)
    began = time.perf_counter()
    assert np.all(resize_shortest_edge(pixels, 256, 224, Image.Resampling.BICUBIC) == 99)
    assert time.perf_counter() - began < 0.5


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, 16, 16, Image.Resampling.BILINEAR)
    assert small.shape == (16, 16, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (60, 150), (128, 256), (1, 1), (1, 3000), (65_535, 1)])
def test_resizing_is_pillow_s_but_for_rounding(size: tuple[int, int], resample: Image.Resampling) -> None:
    pixels = scene(*size[::-1])
    for width, height in [(128, 256), (686, 518)]:
        expected = np.asarray(Image.fromarray(pixels).resize((width, height), resample))
        assert np.abs(resize(pixels, width, height, resample).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.LANCZOS])
def test_a_checkpoint_may_want_any_of_pillow_s_filters(resample: Image.Resampling) -> None:
    pixels = noise(60, 80)
    expected = np.asarray(Image.fromarray(pixels).resize((32, 24), resample))[:24, 4:28]
    assert np.abs(resize_shortest_edge(pixels, 24, 24, resample).astype(int) - expected).max() <= 1


def test_a_part_of_an_image_is_resized_as_a_copy_of_it() -> None:
    pixels = scene(480, 640)
    part = pixels[50:400, 100:250]
    assert np.array_equal(
        resize(part, 128, 256, Image.Resampling.BILINEAR), resize(part.copy(), 128, 256, Image.Resampling.BILINEAR)
    )


def test_what_was_resized_is_held_by_nothing_else() -> None:
    """Many threads resize at once: none may write into what another was given."""
    scenes = [np.full((480, 640, 3), value, np.uint8) for value in range(64)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda pixels: resize(pixels, 128, 256, Image.Resampling.BILINEAR), scenes))
    assert [np.unique(image).tolist() for image in made] == [[value] for value in range(64)]
