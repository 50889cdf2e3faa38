from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.vision.decoding.made import (
    decode,
    difference,
    display_p3_profile,
    encoded,
    noise,
    on_white,
    p3_to_srgb,
    ramp,
    scene,
)
from vision.decoding import DamagedImage, UnsupportedFormat

PICTURE = noise(13, 21)  # rows end within a word of four bytes
ALPHA = ramp(13, 21)


def bmp(
    rows: NDArray[Any],
    bits: int,
    *,
    size: int = 40,
    compression: int = 0,
    masks: tuple[int, ...] = (),
    top_down: bool = False,
    table: bytes = b"",
    profile: bytes = b"",
    width: int = 21,
    coded: bytes | None = None,
) -> bytes:
    """A BMP of rows of bytes, top row first."""
    height = len(rows)
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    body = coded if coded is not None else (padded if top_down else padded[::-1]).tobytes()
    stored = -height if top_down else height
    header = struct.pack("<IiiHHIIiiII", size, width, stored, 1, bits, compression, len(body), 0, 0, 0, 0)
    header += struct.pack(f"<{len(masks)}I", *masks)
    header = header.ljust(size, b"\0")
    start = 14 + len(header) + len(table)
    if profile:
        header = header[:56] + b"DEBM" + header[60:112] + struct.pack("<II", start - 14 + len(body), len(profile))
        header = header.ljust(size, b"\0")
    return (
        struct.pack("<2sIHHI", b"BM", start + len(body) + len(profile), 0, 0, start) + header + table + body + profile
    )


def words(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values.astype(f"<u{bits // 8}")).view(np.uint8).reshape(len(values), -1)


def packed(masks: tuple[int, ...], *channels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pixels of channels cut to the bits of their masks."""
    pixels = np.zeros(channels[0].shape, np.uint32)
    for mask, channel in zip(masks, channels, strict=False):
        lowest = (mask & -mask).bit_length() - 1
        most = mask >> lowest
        pixels |= np.round(channel * (most / 255)).astype(np.uint32) << lowest
    return pixels


RGB = [PICTURE[..., index] for index in range(3)]


@pytest.mark.parametrize("top_down", [False, True])
def test_24_and_32_bits_from_either_end(top_down: bool) -> None:
    rows = PICTURE[..., ::-1].reshape(13, -1)
    assert difference(bmp(rows, 24, top_down=top_down), PICTURE) == 0
    pixels = packed((0xFF0000, 0xFF00, 0xFF), *RGB)
    assert difference(bmp(words(pixels, 32), 32, top_down=top_down), PICTURE) == 0


@pytest.mark.parametrize(
    ("bits", "masks", "error"),
    [
        (16, (0x7C00, 0x3E0, 0x1F), 5),
        (16, (0xF800, 0x7E0, 0x1F), 5),
        (16, (0xF00, 0xF0, 0xF), 9),
        (32, (0xFF, 0xFF00, 0xFF0000), 0),
        (32, (0x3FF00000, 0xFFC00, 0x3FF), 1),
        (32, (0xFF000000, 0xFF0000, 0xFF00), 0),
    ],
)
@pytest.mark.parametrize("top_down", [False, True])
def test_pixels_by_masks(bits: int, masks: tuple[int, ...], error: int, top_down: bool) -> None:
    pixels = words(packed(masks, *RGB), bits)
    table = struct.pack("<3I", *masks)
    assert difference(bmp(pixels, bits, compression=3, table=table, top_down=top_down), PICTURE) <= error
    data = bmp(pixels, bits, size=108, compression=3, masks=(*masks, 0), top_down=top_down)
    assert difference(data, PICTURE) <= error


def test_16_bits_without_masks_are_5_each() -> None:
    assert difference(bmp(words(packed((0x7C00, 0x3E0, 0x1F), *RGB), 16), 16), PICTURE) <= 5


@pytest.mark.parametrize("size", [56, 108, 124])
def test_alpha_lies_on_white_where_it_means_something(size: int) -> None:
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    shown = words(packed(masks, *RGB, ALPHA), 32)
    assert difference(bmp(shown, 32, size=size, compression=3, masks=masks), on_white(PICTURE, ALPHA)) <= 1
    unused = words(packed(masks, *RGB, np.zeros_like(ALPHA)), 32)
    assert difference(bmp(unused, 32, size=size, compression=3, masks=masks), PICTURE) == 0
    assert difference(bmp(shown, 32), PICTURE) == 0  # the fourth byte is reserved there


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(bits: int) -> None:
    colours = noise(1, 2**bits, seed=4)[0]
    indices = PICTURE[..., 0] >> (8 - bits)
    spread = indices[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8) & 1
    rows = np.packbits(spread.reshape(13, -1), axis=1)
    table = np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()
    assert difference(bmp(rows, bits, table=table), colours[indices]) == 0


def test_run_lengths() -> None:
    colours = noise(1, 256, seed=4)[0]
    indices = PICTURE[..., 0]
    table = np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()
    coded = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in indices[::-1].tolist()) + b"\0\1"
    assert difference(bmp(indices, 8, compression=1, table=table, coded=coded), colours[indices]) == 0
    few = indices >> 4
    coded = (
        b"".join(b"".join(bytes([1, value << 4]) for value in row) + b"\0\0" for row in few[::-1].tolist()) + b"\0\1"
    )
    data = bmp(few, 4, compression=2, table=table[: 4 * 16], coded=coded)
    assert difference(data, colours[few]) == 0


def test_the_profile_of_the_fifth_version_is_applied() -> None:
    pixels = scene(13, 21)
    rows = pixels[..., ::-1].reshape(13, -1)
    data = bmp(rows, 24, size=124, profile=display_p3_profile())
    assert difference(data, p3_to_srgb(pixels)) <= 1
    assert difference(bmp(rows, 24, size=124, profile=b"broken"), pixels) == 0


def test_the_header_of_os_2_is_read() -> None:
    rows = np.pad(PICTURE[..., ::-1].reshape(13, -1), ((0, 0), (0, 1)))[::-1]
    data = struct.pack("<2sIHHIIHHHH", b"BM", 26 + rows.size, 0, 0, 26, 12, 21, 13, 1, 24) + rows.tobytes()
    assert difference(data, PICTURE) == 0


@pytest.mark.parametrize(
    ("bits", "compression", "name"),
    [(0, 4, "JPEG"), (0, 5, "PNG"), (32, 11, "CMYK"), (24, 99, "99"), (2, 0, "2 bits"), (64, 0, "64 bits")],
)
def test_other_kinds_are_refused_by_name(bits: int, compression: int, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        decode(bmp(PICTURE.reshape(13, -1), bits, compression=compression))


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_missing_rows_are_damage(bits: int) -> None:
    data = bmp(words(packed((0xFF0000, 0xFF00, 0xFF), *RGB), 32)[:, : 21 * bits // 8], bits)
    with pytest.raises(DamagedImage):
        decode(data[:-4])


@pytest.mark.parametrize("masks", [(0b101, 0xF0, 0xF00, 0), (0xFF000000, 0xFF00, 0xFF, 0)])
def test_masks_that_make_no_sense_are_damage(masks: tuple[int, ...]) -> None:
    rows = words(packed((0x7C00, 0x3E0, 0x1F), *RGB), 16)
    with pytest.raises(DamagedImage, match="masks"):
        decode(bmp(rows, 16, size=108, compression=3, masks=masks))


def test_what_pillow_writes_is_read() -> None:
    for mode in ("1", "L", "P", "RGB"):
        image = Image.fromarray(PICTURE).convert(mode)
        assert difference(encoded(image, "BMP"), np.asarray(image.convert("RGB"))) == 0


@pytest.mark.parametrize(("bits", "masks"), [(32, ()), (16, ()), (32, (0xFF0000, 0xFF00, 0xFF))])
def test_pixels_whose_place_is_left_out_follow_the_header(bits: int, masks: tuple[int, ...]) -> None:
    plain = (0xFF0000, 0xFF00, 0xFF) if bits == 32 else (0x7C00, 0x3E0, 0x1F)
    pixels = words(packed(plain, *RGB), bits)
    data = bytearray(bmp(pixels, bits, compression=3, masks=masks) if masks else bmp(pixels, bits))
    expected = decode(bytes(data))
    data[10:14] = bytes(4)
    assert difference(bytes(data), expected) == 0
    data[10] = 20
    with pytest.raises(DamagedImage, match="begin within it"):
        decode(bytes(data))
