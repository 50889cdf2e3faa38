from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.vision.decoding.made import (
    DISPLAY_P3,
    chunk,
    decode,
    decoded_light,
    difference,
    display_p3_profile,
    encoded,
    encoded_light,
    p3_to_srgb,
    png,
    ramp,
    repeated,
    scene,
    srgb_profile,
)
from vision.arrays import RGB
from vision.decoding import colour
from vision.decoding.primaries import SRGB, profile_of

PICTURE = scene(40, 60)
P3 = display_p3_profile()
GREY, COLOUR, PALETTE = 0, 2, 3


@pytest.fixture(autouse=True)
def no_transforms_kept() -> Iterator[None]:
    colour._cached_conversion.cache_clear()
    yield
    colour._cached_conversion.cache_clear()


def grey_profile(gamma: float) -> bytes:
    """Light is sample ** gamma."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63_190, 65_536, 54_061)
    place = 128 + 4 + 24
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", place, len(white), b"kTRC", place + len(white), len(curve))
    header = struct.pack(">I4xI4s4s4s", place + len(white) + len(curve), 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += struct.pack(">12x4s28x3i", b"acsp", 63_190, 65_536, 54_061)
    return header.ljust(128, b"\0") + tags + white + curve


def cmyk_profile() -> bytes:
    """A printer's profile of a table of two steps a colour: the more ink, the darker, and no hue."""
    steps = np.stack(np.meshgrid(*[np.arange(2)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    light = np.clip(1 - steps.sum(axis=1) / 4, 0, 1)
    lab = np.stack([light * 65_280, np.full(16, 32_768), np.full(16, 32_768)], axis=1).astype(">u2")
    linear = np.array([0, 65_535], ">u2").tobytes()
    table = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", 65_536, 0, 0, 0, 65_536, 0, 0, 0, 65_536) + struct.pack(">HH", 2, 2)
    table += linear * 4 + lab.tobytes() + linear * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63_190, 65_536, 54_061)
    place = 128 + 4 + 24
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", place, len(white), b"A2B0", place + len(white), len(table))
    header = struct.pack(">I4xI4s4s4s", place + len(white) + len(table), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">12x4s28x3i", b"acsp", 63_190, 65_536, 54_061)
    return header.ljust(128, b"\0") + tags + white + table


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(profile))


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chrm(chromaticities: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(number * 100_000) for number in chromaticities)))


# ── profiles ──


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95})],
)
def test_display_p3_becomes_srgb(form: str, options: dict[str, Any]) -> None:
    image = Image.fromarray(PICTURE)
    assert np.abs(p3_to_srgb(PICTURE).astype(int) - PICTURE).max() > 30  # what would be missed
    off = np.abs(decode(encoded(image, form, icc_profile=P3, **options)).astype(int) - p3_to_srgb(PICTURE))
    assert off.mean() < 4 if form == "JPEG" else off.max() <= 1


def test_a_grey_profile_is_applied_to_grey() -> None:
    grey = ramp(40, 60)
    expected = repeated(encoded_light((grey / 255) ** 1.0))
    for form in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(grey), form, icc_profile=grey_profile(1.0))
        assert difference(data, expected) <= 1
    data = encoded(Image.fromarray(grey), "JPEG", quality=100, icc_profile=grey_profile(1.0))
    assert np.abs(decode(data).astype(int) - expected).mean() < 2


def test_a_printer_s_profile_is_applied_to_cmyk() -> None:
    inks = np.full((8, 8, 4), 255, np.uint8)
    inks[:4] = 0
    for form in ("TIFF", "JPEG"):
        shown = decode(encoded(Image.fromarray(inks, "CMYK"), form, icc_profile=cmyk_profile()))
        assert shown[0, 0].min() >= 254
        assert shown[7, 7].max() <= 1
    half = np.zeros((8, 8, 4), np.uint8)
    half[..., 0] = 255  # a quarter of the ink; without the profile it would be cyan
    shown = decode(encoded(Image.fromarray(half, "CMYK"), "TIFF", icc_profile=cmyk_profile()))
    assert np.ptp(shown[0, 0]) <= 1
    assert 180 < shown[0, 0, 0] < 190


def test_a_profile_that_is_srgb_in_effect_changes_nothing_and_costs_nothing() -> None:
    again = profile_of(SRGB)
    assert again is not None
    for profile in (srgb_profile(), again):
        data = encoded(Image.fromarray(PICTURE), "PNG", icc_profile=profile)
        assert difference(data, PICTURE) == 0
        made = colour._cached_conversion.cache_info().misses
        decode(data)
        assert colour._cached_conversion.cache_info().misses == made
        conversion = colour._conversion(profile, "RGB")
        assert conversion is not None
        assert conversion.transform is None


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"a profile, or so they say",
        P3[:200],
        P3[:128] + bytes(len(P3) - 128),
        P3[:132] + b"\xff" * 100 + P3[232:],
        grey_profile(1.0),
        cmyk_profile(),
        P3 + bytes(5 * 2**20),
    ],
    ids=["empty", "text", "cut", "no tags", "wrong tags", "grey", "cmyk", "huge"],
)
def test_a_profile_that_is_of_no_use_is_ignored(profile: bytes) -> None:
    for form, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        assert difference(encoded(Image.fromarray(PICTURE), form, icc_profile=profile, **options), PICTURE) == 0


def test_few_transforms_are_kept() -> None:
    for number in range(50):
        profile = profile_of((0.3127, 0.3290, 0.640 + number / 1000, 0.330, 0.300, 0.600, 0.150, 0.060))
        assert profile is not None
        colour.to_srgb(PICTURE, profile)
    info = colour._cached_conversion.cache_info()
    assert (info.misses, info.currsize) == (50, info.maxsize)
    assert info.maxsize is not None
    assert info.maxsize <= 16


def test_threads_share_a_transform() -> None:
    pictures = [np.roll(PICTURE, number, axis=1) for number in range(40)]
    expected = [p3_to_srgb(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda picture: colour.to_srgb(picture, P3), pictures * 5))
    for index, found in enumerate(made):
        assert np.abs(found.astype(int) - expected[index % 40]).max() <= 1


def test_the_profile_written_for_primaries_is_one_that_others_read() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(P3))
    assert profile.profile.xcolor_space.strip() == "RGB"
    colorant = profile.profile.red_colorant
    assert colorant is not None
    red = colorant[0]
    assert red == pytest.approx((0.51512, 0.24120, -0.00105), abs=0.0002)  # Apple's own Display P3


@pytest.mark.parametrize(
    "chromaticities",
    [(0.0,) * 8, (0.3, 0.3) * 4, (0.3127, 0.329, 0.64, 0.0, 0.3, 0.6, 0.15, 0.06), (40_000.0,) * 8, (1e-9,) * 8],
)
def test_primaries_that_span_no_colours_have_no_profile(chromaticities: tuple[float, ...]) -> None:
    assert profile_of(chromaticities) is None  # type: ignore[arg-type]
    data = png(PICTURE, 8, COLOUR, gama(1 / 2.2) + chrm(tuple(min(number, 42_000) for number in chromaticities)))
    assert difference(data, PICTURE) == 0


# ── PNG's own chunks ──

LINEAR: RGB = encoded_light(PICTURE / 255)
P3_LINEAR: RGB = p3_to_srgb(LINEAR)


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        (gama(1 / 2.2), PICTURE),
        (gama(0.45), PICTURE),
        (gama(1.0), LINEAR),
        (gama(1.0) + chunk(b"sRGB", b"\0"), PICTURE),
        (gama(1.0) + chrm(SRGB), LINEAR),
        (gama(1 / 2.2) + chrm(DISPLAY_P3), p3_to_srgb(PICTURE)),
        (gama(1.0) + chrm(DISPLAY_P3), P3_LINEAR),
        (chrm(DISPLAY_P3), PICTURE),
        (gama(1 / 2.2) + chrm(DISPLAY_P3) + chunk(b"sRGB", b"\0"), PICTURE),
        (iccp(P3) + gama(1.0), p3_to_srgb(PICTURE)),
        (iccp(P3) + chunk(b"sRGB", b"\0"), p3_to_srgb(PICTURE)),
        (iccp(srgb_profile()) + gama(1.0), PICTURE),
        (iccp(b"broken") + gama(1.0), LINEAR),
        (iccp(grey_profile(1.0)) + gama(1.0), LINEAR),
        (chunk(b"cICP", bytes([12, 13, 0, 1])) + iccp(srgb_profile()), p3_to_srgb(PICTURE)),
        (chunk(b"cICP", bytes([1, 13, 0, 1])) + iccp(P3), PICTURE),
        (chunk(b"cICP", bytes([1, 8, 0, 1])), LINEAR),
        (chunk(b"cICP", bytes([12, 8, 0, 1])), P3_LINEAR),
        (chunk(b"cICP", bytes([1, 1, 0, 1])) + gama(1.0), PICTURE),
        (chunk(b"cICP", bytes([9, 16, 0, 1])) + iccp(P3), p3_to_srgb(PICTURE)),  # HDR: left to the next chunk
        (chunk(b"cICP", bytes([12, 13, 0, 0])), PICTURE),  # a narrow range
        (chunk(b"cICP", bytes([12, 13, 1, 1])), PICTURE),  # not RGB
        (chunk(b"cICP", b"\x0c"), PICTURE),
    ],
    ids=range(23),
)
def test_the_colour_chunks_go_before_one_another(before: bytes, shown: RGB) -> None:
    assert difference(png(PICTURE, 8, COLOUR, before), shown) <= 2


def test_a_colour_chunk_behind_the_palette_or_the_picture_is_ignored() -> None:
    assert difference(png(PICTURE, 8, COLOUR, b"", gama(1.0)), PICTURE) == 0
    colours = scene(16, 16).reshape(-1, 3)
    palette, indices = chunk(b"PLTE", colours.tobytes()), PICTURE[..., 0]
    assert difference(png(indices, 8, PALETTE, palette + gama(1.0)), colours[indices]) == 0
    assert difference(png(indices, 8, PALETTE, gama(1.0) + palette), encoded_light(colours / 255)[indices]) <= 1
    assert difference(png(indices, 8, PALETTE, iccp(P3) + palette), p3_to_srgb(colours[None])[0][indices]) <= 1


def test_light_of_16_bits_keeps_its_dark_tones() -> None:
    light = (np.arange(2400, dtype=np.float64).reshape(40, 60) / 2399) ** 2.4
    samples = np.round(light * 65_535).astype(np.uint16)
    shown = decode(png(samples, 16, GREY, gama(1.0)))
    assert np.abs(shown - encoded_light(light)[..., None].astype(int)).max() <= 1


def test_the_light_of_a_picture_is_the_inverse_of_its_code() -> None:
    assert np.array_equal(encoded_light(decoded_light(PICTURE)), PICTURE)


def test_new_profiles_cost_bounded_time() -> None:
    for mode, profile in (("RGB", P3), ("CMYK", cmyk_profile())):
        data = encoded(Image.new(mode, (8, 8)), "TIFF", icc_profile=profile)
        began = time.thread_time()
        decode(data)
        assert time.thread_time() - began < 0.5
