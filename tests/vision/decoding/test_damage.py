"""Damaged files of every kind: errors of ours only, in words of ours, in bounded time."""

from __future__ import annotations

import random
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.vision.decoding.made import (
    FILES,
    chunk,
    decode,
    display_p3_profile,
    encoded,
    noise,
    png,
    with_orientation,
)
from tests.vision.decoding.test_bmp import bmp, packed, words
from tests.vision.decoding.test_gif import moved
from tests.vision.decoding.test_tiff import packed as packed_tiff
from tests.vision.decoding.test_tiff import tiff
from vision.decoding import ImageError

# Words that only decoders, their sources or this machine would use.
FOREIGN = re.compile(r"PIL|Pillow|object at|0x[0-9a-f]{6}|Traceback|/|buffer|zlib|struct|not enough values|b'")


def fuzz_seeds() -> list[bytes]:
    pixels = noise(17, 23)
    picture, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    sixteen = np.random.default_rng(1).integers(0, 65536, (17, 23)).astype(np.uint16)
    wide, alpha = pixels.astype(np.uint16) * 257, np.dstack([pixels, pixels[..., :1]])
    turned, profile = with_orientation(6), display_p3_profile()
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    channels = [alpha[..., index] for index in range(4)]
    palette = chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", bytes(range(256)))
    return [
        encoded(picture, "JPEG", exif=turned, icc_profile=profile),
        encoded(picture, "JPEG", progressive=True, exif=turned),
        encoded(picture, "JPEG", restart_marker_blocks=2),
        encoded(picture.convert("CMYK"), "JPEG"),
        *(path.read_bytes() for path in sorted(FILES.glob("*.jpg"))),
        encoded(picture, "PNG", exif=turned, icc_profile=profile),
        png(pixels[..., 0], 8, 3, palette),
        png(alpha, 8, 6),
        png(alpha[..., :2], 8, 4),
        png(wide, 16, 2, chunk(b"sBIT", b"\x0c\x0c\x0c") + chunk(b"tRNS", bytes(6))),
        png(sixteen, 16, 0, chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"cHRM", bytes(range(32)))),
        encoded(picture, "WEBP", exif=turned, icc_profile=profile),
        encoded(picture.convert("RGBA"), "WEBP", lossless=True),
        encoded(Image.fromarray(alpha), "WEBP", save_all=True, append_images=[picture]),
        encoded(picture, "BMP"),
        encoded(picture.convert("P"), "BMP"),
        bmp(words(packed(masks, *channels), 32), 32, size=124, compression=3, masks=masks, width=23),
        bmp(words(packed((0xF800, 0x7E0, 0x1F), *channels[:3]), 16), 16, width=23),
        encoded(grey, "GIF"),
        moved(encoded(picture, "GIF", save_all=True, append_images=[picture]), 3, 4, 40, 40),
        encoded(picture, "TIFF", exif=turned),
        encoded(picture.convert("CMYK"), "TIFF"),
        encoded(picture.convert("P"), "TIFF", compression="tiff_lzw"),
        encoded(picture, "TIFF", compression="jpeg"),
        encoded(picture.convert("1"), "TIFF", compression="group4"),
        tiff(sixteen, "miniswhite", order=">"),
        tiff(np.moveaxis(wide, 2, 0), "rgb", planarconfig="separate", compression="zlib", predictor=True, big=True),
        tiff(pixels, "rgb", tile=(16, 16), compression="zlib"),
        tiff(alpha, "rgb", extrasamples=["assocalpha"]),
        packed_tiff(sixteen >> 4, 12, 1),
    ]


def repaired(data: bytes) -> bytes:
    """A PNG whose checksums are right again: most damage would not get past them."""
    if not data.startswith(b"\x89PNG"):
        return data
    parts, place = [data[:8]], 8
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        if place + 12 + size > len(data):
            break
        checksum = zlib.crc32(data[place + 4 : place + 8 + size])
        parts.append(data[place : place + 8 + size] + struct.pack(">I", checksum))
        place += 12 + size
    return b"".join([*parts, data[place:]])


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


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    return fuzz_seeds()


def test_the_undamaged_files_are_all_decoded(seeds: list[bytes]) -> None:
    for data in seeds:
        assert decode(data).shape[2] == 3


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_of_any_kind_raise_image_errors_only(seed: int, seeds: list[bytes]) -> None:
    dice = random.Random(seed)
    decoded, errors = 0, []
    for _ in range(5000):
        try:
            picture = decode(repaired(mutated(dice.choice(seeds), dice)))
        except ImageError as error:
            errors.append(str(error))
        else:
            decoded += 1
            assert picture.ndim == 3
            assert picture.shape[2] == 3
    assert min(decoded, len(errors)) > 500  # else the damage is too small or too great to show anything
    assert [text for text in errors if FOREIGN.search(text) or not 20 < len(text) < 400] == []
