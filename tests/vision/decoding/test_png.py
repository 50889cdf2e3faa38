from __future__ import annotations

import struct
import time
import zlib
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.vision.decoding.made import (
    MEGAPIXEL,
    chunk,
    decode,
    difference,
    encoded,
    noise,
    on_white,
    png,
    ramp,
    repeated,
    with_orientation,
    xmp_orientation,
)
from vision.decoding import DamagedImage, ImageTooLarge

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
PICTURE = noise(20, 30)
ALPHA = ramp(20, 30)


def key(*samples: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(samples)}H", *samples))


def damaged(piece: bytes) -> bytes:
    """A chunk with a wrong checksum."""
    return piece[:-1] + bytes([piece[-1] ^ 1])


# ── types and depths ──


@pytest.mark.parametrize("depth", [8, 16])
def test_colours_and_alpha_of_both_depths(depth: int) -> None:
    scale = 257 if depth == 16 else 1
    grey = PICTURE[..., 0]
    wide = [array.astype(np.uint16) * scale for array in (PICTURE, grey, ALPHA)]
    assert difference(png(wide[0], depth, COLOUR), PICTURE) == 0
    assert difference(png(wide[1], depth, GREY), repeated(grey)) == 0
    assert difference(png(np.dstack([wide[0], wide[2]]), depth, COLOUR_ALPHA), on_white(PICTURE, ALPHA)) <= 1
    assert difference(png(np.dstack([wide[1], wide[2]]), depth, GREY_ALPHA), on_white(repeated(grey), ALPHA)) <= 1


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_with_and_without_a_transparent_one(depth: int) -> None:
    samples = PICTURE[..., 0] >> (8 - depth)
    expected = repeated(np.asarray(samples * (255 // (2**depth - 1)), np.uint8))
    assert difference(png(samples, depth, GREY), expected) == 0
    expected[samples == 1] = 255
    assert difference(png(samples, depth, GREY, key(1)), expected) == 0


def test_a_transparent_colour_of_16_bits_is_compared_in_16_bits() -> None:
    samples = PICTURE.astype(np.uint16) * 257
    samples[0, 0], samples[0, 1] = (1000, 2000, 3000), (1001, 2000, 3000)
    expected = (samples >> 8).astype(np.uint8)
    expected[0, 0] = 255
    assert difference(png(samples, 16, COLOUR, key(1000, 2000, 3000)), expected) == 0
    grey = samples[..., 0]
    expected = repeated((grey >> 8).astype(np.uint8))
    expected[grey == 1000] = 255
    assert difference(png(grey, 16, GREY, key(1000)), expected) == 0


def test_a_transparent_colour_of_8_bits() -> None:
    expected = PICTURE.copy()
    expected[3, 4] = 255
    assert difference(png(PICTURE, 8, COLOUR, key(*map(int, PICTURE[3, 4]))), expected) == 0


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_with_transparent_entries_lies_on_white(depth: int) -> None:
    entries = 2**depth
    colours, alpha = noise(1, entries, seed=1)[0], np.linspace(0, 255, entries).astype(np.uint8)
    samples = PICTURE[..., 0] >> (8 - depth)
    palette, transparency = chunk(b"PLTE", colours.tobytes()), chunk(b"tRNS", alpha[:-1].tobytes())
    assert difference(png(samples, depth, PALETTE, palette), colours[samples]) == 0
    shown = on_white(colours[None], alpha[None])[0]
    assert difference(png(samples, depth, PALETTE, palette + transparency), shown[samples]) <= 1
    assert difference(png(samples, depth, PALETTE, transparency + palette), colours[samples]) == 0  # too early


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_an_opaque_picture_is_as_pillow_shows_it(mode: str) -> None:
    image = Image.fromarray(PICTURE).convert(mode)
    assert difference(encoded(image, "PNG"), np.asarray(image.convert("RGB"))) == 0


def interlaced(samples: NDArray[Any], depth: int, kind: int) -> bytes:
    """Adam7, of samples of 8 or 16 bits."""
    raw = b""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    for top, left, down, across in passes:
        part = np.ascontiguousarray(samples[top::down, left::across].astype(f">u{depth // 8}"))
        if part.size:
            raw += b"".join(b"\0" + row.tobytes() for row in part)
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 1)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_interlaced_pictures() -> None:
    wide, alpha = PICTURE.astype(np.uint16) * 257, ALPHA.astype(np.uint16) * 257
    grey = PICTURE[..., 0]
    assert difference(interlaced(PICTURE, 8, COLOUR), PICTURE) == 0
    assert difference(interlaced(wide, 16, COLOUR), PICTURE) == 0
    assert difference(interlaced(grey.astype(np.uint16) * 257, 16, GREY), repeated(grey)) == 0
    assert difference(interlaced(np.dstack([wide, alpha]), 16, COLOUR_ALPHA), on_white(PICTURE, ALPHA)) <= 1
    narrow = np.dstack([wide[..., 0], alpha])
    assert difference(interlaced(narrow, 16, GREY_ALPHA), on_white(repeated(grey), ALPHA)) <= 1


def test_of_an_animation_the_default_image_is_shown() -> None:
    first, second = Image.fromarray(PICTURE), Image.new("RGB", (30, 20), "red")
    data = encoded(first, "PNG", save_all=True, append_images=[second])
    assert b"acTL" in data
    assert difference(data, PICTURE) == 0


# ── significant bits ──


def sbit(*bits: int) -> bytes:
    return chunk(b"sBIT", bytes(bits))


def test_12_bits_in_the_low_bits_of_16_are_spread() -> None:
    grey = PICTURE[..., 0]
    low = grey.astype(np.uint32) * 4095 // 255
    assert difference(png(low, 16, GREY, sbit(12)), repeated(grey)) <= 1
    colour = PICTURE.astype(np.uint32) * 4095 // 255
    colour[..., 2] = 0  # a channel without anything in it says nothing of the others
    expected = PICTURE.copy()
    expected[..., 2] = 0
    assert difference(png(colour, 16, COLOUR, sbit(12, 12, 12)), expected) <= 1
    alpha = ALPHA.astype(np.uint32) * 4095 // 255
    both = png(np.dstack([low, alpha]), 16, GREY_ALPHA, sbit(12, 12))
    assert difference(both, on_white(repeated(grey), ALPHA)) <= 2


def test_4_bits_in_the_low_bits_of_8_are_spread() -> None:
    assert difference(png(PICTURE >> 4, 8, COLOUR, sbit(4, 4, 4)), np.asarray((PICTURE >> 4) * 17, np.uint8)) == 0


@pytest.mark.parametrize(("bits", "shift"), list(product([10, 12, 14], [0, 1])))
def test_a_dark_picture_of_left_aligned_bits_stays_dark(bits: int, shift: int) -> None:
    samples = (PICTURE[..., 0].astype(np.uint16) >> 5 + shift) << 16 - bits
    assert difference(png(samples, 16, GREY, sbit(bits)), repeated((samples >> 8).astype(np.uint8))) == 0
    scaled = np.round((samples >> 16 - bits) * (65535 / (2**bits - 1))).astype(np.uint16)
    assert difference(png(scaled, 16, GREY, sbit(bits)), repeated((scaled >> 8).astype(np.uint8))) == 0


@pytest.mark.parametrize("content", [b"", b"\0", b"\x11", b"\x10"])
def test_bits_that_make_no_sense_are_ignored(content: bytes) -> None:
    samples = PICTURE[..., 0].astype(np.uint16)
    assert difference(png(samples, 16, GREY, chunk(b"sBIT", content)), repeated((samples >> 8).astype(np.uint8))) == 0


# ── chunks ──


@pytest.mark.parametrize(
    "before",
    [
        damaged(chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1))),
        damaged(chunk(b"gAMA", struct.pack(">I", 100_000))),
        damaged(chunk(b"tRNS", bytes(6))),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 2_000_000)),
        chunk(b"zTXt", b"Comment\0\0no zlib"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(b"a" * 2_000_000)),
        chunk(b"tEXt", b"Comment\0" + b"a" * 2_000_000),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(b"a" * 1_500_000)),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(b"a" * 90_000_000)),
        chunk(b"iCCP", b"name\0\0no zlib"),
        chunk(b"iCCP", b""),
        chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        chunk(b"pHYs", b""),
        chunk(b"cHRM", b"short"),
        chunk(b"gAMA", bytes(4)),
        chunk(b"prVt", b"private"),
        chunk(b"acTL", b"short"),
        chunk(b"tEXt", b"\xff" * 10) * 5000,
    ],
    ids=range(18),
)
def test_chunks_beside_the_picture_do_not_cost_it(before: bytes) -> None:
    assert difference(png(PICTURE, 8, COLOUR, before), PICTURE) == 0
    assert difference(png(PICTURE, 8, COLOUR, b"", before), PICTURE) == 0


def test_a_wrong_checksum_of_a_critical_chunk_is_damage() -> None:
    data = png(PICTURE, 8, COLOUR)
    header_end, coded_end = 33, data.index(b"IEND") - 4
    for end in (header_end, coded_end):
        changed = data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]
        with pytest.raises(DamagedImage):
            decode(changed)
    with pytest.raises(DamagedImage, match="PLTE"):
        decode(png(PICTURE[..., 0], 8, PALETTE, damaged(chunk(b"PLTE", bytes(768)))))


def test_a_critical_chunk_of_another_standard_is_damage() -> None:
    with pytest.raises(DamagedImage, match="critical chunk"):
        decode(png(PICTURE, 8, COLOUR, chunk(b"WHAT", b"")))


@pytest.mark.parametrize("content", [b"", bytes(2), bytes(769)])
def test_a_palette_picture_without_a_sound_palette_is_damaged(content: bytes) -> None:
    with pytest.raises(DamagedImage, match="palette"):
        decode(png(PICTURE[..., 0], 8, PALETTE, chunk(b"PLTE", content)))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_colours_that_no_pixel_can_name_do_no_harm(depth: int) -> None:
    indices = np.arange(16, dtype=np.uint8).reshape(4, 4) % (1 << depth)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    assert difference(png(indices, depth, PALETTE, chunk(b"PLTE", palette.tobytes())), palette[indices]) == 0


@pytest.mark.parametrize("cut", [1, 4, 12, 13])
def test_what_is_cut_off_behind_the_picture_does_not_matter(cut: int) -> None:
    assert difference(png(PICTURE, 8, COLOUR)[:-cut], PICTURE) == 0


@pytest.mark.parametrize("kind", [COLOUR, GREY_ALPHA, COLOUR_ALPHA, GREY])
@pytest.mark.parametrize("depth", [8, 16])
def test_coded_data_that_end_too_early_are_damage(kind: int, depth: int) -> None:
    channels = {COLOUR: 3, GREY_ALPHA: 2, COLOUR_ALPHA: 4, GREY: 1}[kind]
    samples = np.random.default_rng(0).integers(0, 2**depth, (20, 30, channels))
    data = png(samples, depth, kind)
    start = data.index(b"IDAT") + 4
    (size,) = struct.unpack_from(">I", data, start - 8)
    shortened = data[: start - 8] + chunk(b"IDAT", data[start : start + size * 9 // 10]) + chunk(b"IEND", b"")
    for lost in (shortened, data[: start + size // 2]):
        with pytest.raises(DamagedImage):
            decode(lost)


@pytest.mark.parametrize("pieces", [2, 50])
def test_coded_data_may_come_in_pieces(pieces: int) -> None:
    data = png(PICTURE, 8, COLOUR)
    start = data.index(b"IDAT") + 4
    coded = data[start : start + struct.unpack_from(">I", data, start - 8)[0]]
    step = -(-len(coded) // pieces)
    parts = b"".join(chunk(b"IDAT", coded[place : place + step]) for place in range(0, len(coded), step))
    assert difference(data[: start - 8] + parts + chunk(b"IEND", b""), PICTURE) == 0


def test_orientation_may_stand_before_and_behind_the_picture() -> None:
    exif = chunk(b"eXIf", with_orientation(6).tobytes()[6:])
    assert decode(png(PICTURE, 8, COLOUR, exif)).shape == (30, 20, 3)
    assert decode(png(PICTURE, 8, COLOUR, b"", exif)).shape == (30, 20, 3)
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_orientation(6))
    assert decode(png(PICTURE, 8, COLOUR, text)).shape == (20, 30, 3)


# ── work ──


def test_a_million_empty_chunks_are_refused_quickly() -> None:
    for kind in (b"IDAT", b"prVt"):
        data = png(PICTURE, 8, COLOUR, chunk(kind, b"") * 800_000)
        began = time.thread_time()
        with pytest.raises(ImageTooLarge, match="chunks"):
            decode(data)
        assert time.thread_time() - began < 1


def test_a_bomb_of_coded_data_is_not_unpacked_further_than_the_picture_needs() -> None:
    raw = b"".join(b"\0" + row.tobytes() for row in PICTURE)
    data = png(PICTURE, 8, COLOUR)
    start = data.index(b"IDAT") - 4
    bomb = chunk(b"IDAT", zlib.compress(raw + bytes(60 * MEGAPIXEL), 1))
    began = time.thread_time()
    assert difference(data[:start] + bomb + chunk(b"IEND", b""), PICTURE) == 0
    assert time.thread_time() - began < 0.5
