from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from PIL import Image

from tests.vision.decoding.made import decode, difference, encoded, noise
from vision.decoding import DamagedImage, ImageTooLarge

COLOURS = noise(1, 64, seed=3)[0]
INDICES = noise(20, 30)[..., 0] >> 2
PICTURE = COLOURS[INDICES]


def image() -> Image.Image:
    made = Image.fromarray(INDICES)
    made.putpalette(COLOURS.tobytes())
    return made


def moved(data: bytes, left: int, top: int, width: int, height: int) -> bytes:
    """The same GIF with its frame elsewhere on a screen of another size."""
    frame = data.index(b",\0\0\0\0")
    screen = data[:6] + struct.pack("<HH", width, height) + data[10:frame]
    return screen + struct.pack("<BHH", 0x2C, left, top) + data[frame + 5 :]


def extension(label: int, content: bytes) -> bytes:
    blocks = (content[place : place + 255] for place in range(0, len(content), 255))
    return bytes([0x21, label]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def with_extension(data: bytes, *labels: int, content: bytes = b"") -> bytes:
    end = 13 + (3 << ((data[10] & 7) + 1))
    return data[:end] + b"".join(extension(label, content) for label in labels) + data[end:]


@pytest.mark.parametrize("interlace", [False, True])
def test_a_picture_is_shown(interlace: bool) -> None:
    assert difference(encoded(image(), "GIF", interlace=interlace), PICTURE) == 0


def test_what_the_first_frame_leaves_free_is_white() -> None:
    shown = np.full((50, 60, 3), 255, np.uint8)
    shown[7:27, 5:35] = PICTURE
    assert difference(moved(encoded(image(), "GIF"), 5, 7, 60, 50), shown) == 0


def test_a_frame_larger_than_its_screen_is_shown_whole() -> None:
    assert difference(moved(encoded(image(), "GIF"), 0, 0, 8, 8), PICTURE) == 0


def test_the_transparent_colour_is_white() -> None:
    index = int(INDICES[0, 0])
    shown = PICTURE.copy()
    shown[index == INDICES] = 255
    assert difference(encoded(image(), "GIF", transparency=index), shown) == 0


def test_the_frame_s_own_colours_go_before_the_screen_s() -> None:
    data = encoded(image(), "GIF")
    frame = data.index(b",\0\0\0\0")
    table = data[13 : 13 + (3 << ((data[10] & 7) + 1))]
    own = data[: frame + 9] + bytes([data[frame + 9] | 0x80 | data[10] & 7]) + table + data[frame + 10 :]
    assert difference(own[:13] + bytes(len(table)) + own[13 + len(table) :], PICTURE) == 0


@pytest.mark.parametrize("label", [0xFE, 0xFF, 0x01, 0x99])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_comments_and_the_like_do_not_cost_the_picture(label: int, size: int) -> None:
    data = with_extension(encoded(image(), "GIF"), label, content=b"a" * size)
    began = time.perf_counter()
    assert difference(data, PICTURE) == 0
    assert time.perf_counter() - began < 1


def test_millions_of_blocks_are_refused_quickly() -> None:
    data = encoded(image(), "GIF")
    end = 13 + (3 << ((data[10] & 7) + 1))
    began = time.perf_counter()
    with pytest.raises(ImageTooLarge, match="blocks"):
        decode(data[:end] + b"\x21\xfe" + b"\x01a" * 4_000_000 + b"\0" + data[end:])
    with pytest.raises(ImageTooLarge, match="blocks"):
        decode(data[:end] + b"\x21\xfe\0" * 3_000_000 + data[end:])
    assert time.perf_counter() - began < 1


def test_of_many_frames_only_the_first_is_decoded() -> None:
    data = encoded(image(), "GIF")
    frame = data.index(b",\0\0\0\0")
    assert difference(data[:-1] + data[frame:-1] * 10_000 + b";", PICTURE) == 0
    assert difference(data[:-1] + b"no frame at all", PICTURE) == 0


@pytest.mark.parametrize("size", [(0, 20), (30, 0)])
def test_a_frame_without_pixels_is_damaged(size: tuple[int, int]) -> None:
    data = encoded(image(), "GIF")
    frame = data.index(b",\0\0\0\0")
    with pytest.raises(DamagedImage, match="no pixels"):
        decode(data[: frame + 5] + struct.pack("<HH", *size) + data[frame + 9 :])


def test_anything_else_before_the_first_frame_is_damage() -> None:
    data = encoded(image(), "GIF")
    end = 13 + (3 << ((data[10] & 7) + 1))
    for behind in (b"?" + data[end:], b";", b""):
        with pytest.raises(DamagedImage, match="before its first frame"):
            decode(data[:end] + behind)
