from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np
import pytest
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
    webp_chunks,
    with_orientation,
    xmp_orientation,
)
from vision.decoding import DamagedImage, ImageTooLarge, open_image
from vision.decoding.opening import Limits

PICTURE = scene(40, 60)
ALPHA = ramp(40, 60)
RGBA = Image.fromarray(np.dstack([PICTURE, ALPHA]))


def webp(image: Image.Image, **options: Any) -> bytes:
    return encoded(image, "WEBP", **options)


def test_lossless_pictures_keep_every_pixel_and_lie_on_white() -> None:
    pixels = noise(40, 60)
    assert difference(webp(Image.fromarray(pixels), lossless=True), pixels) == 0
    image = Image.fromarray(np.dstack([pixels, ALPHA]))
    assert difference(webp(image, lossless=True, exact=True), on_white(pixels, ALPHA)) <= 1


def test_lossy_pictures_lie_on_white_where_their_colours_were_thrown_away() -> None:
    hidden = np.where(ALPHA[..., None] > 100, PICTURE, 0).astype(np.uint8)
    alpha = np.where(ALPHA > 100, 255, 0).astype(np.uint8)
    shown = decode(webp(Image.fromarray(np.dstack([hidden, alpha])), quality=95))
    assert np.abs(shown.astype(int) - on_white(PICTURE, alpha)).mean() < 3


@pytest.mark.parametrize("lossless", [False, True])
def test_of_an_animation_the_first_frame_is_shown(lossless: bool) -> None:
    options = {"save_all": True, "append_images": [Image.new("RGBA", (60, 40), "red")] * 20, "lossless": lossless}
    assert np.abs(decode(webp(Image.fromarray(PICTURE), **options)).astype(int) - PICTURE).mean() < 3
    shown = on_white(PICTURE, ALPHA)
    assert np.abs(decode(webp(RGBA, exact=True, **options)).astype(int) - shown).mean() < 4


def test_what_the_first_frame_leaves_free_is_white() -> None:
    small = webp(Image.fromarray(PICTURE), lossless=True)[12:]
    frame = struct.pack("<I", 10)[:3] + struct.pack("<I", 8)[:3] + struct.pack("<I", 59)[:3] + struct.pack("<I", 39)[:3]
    frame += bytes(4) + small
    canvas = struct.pack("<I", 99)[:3] + struct.pack("<I", 79)[:3]
    chunks = (b"VP8X", b"\x02\0\0\0" + canvas), (b"ANIM", bytes(6)), (b"ANMF", frame), (b"ANMF", frame[:-40])
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(content)) + content for kind, content in chunks)
    data = b"RIFF" + struct.pack("<I", len(body)) + body
    shown = np.full((80, 100, 3), 255, np.uint8)
    shown[16:56, 20:80] = PICTURE
    assert difference(data, shown) == 0
    outside = data.replace(frame[:6], struct.pack("<I", 30)[:3] * 2)
    with pytest.raises(DamagedImage, match="another size"):
        decode(outside)


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"ICCP"])
@pytest.mark.parametrize("content", [b"", b"MM\0*\xff\xff\xff\xff", b"\xff" * 2_000_000])
def test_metadata_of_any_size_and_state_do_no_harm(kind: bytes, content: bytes) -> None:
    options = {"exif": with_orientation(1), "xmp": b"x", "icc_profile": display_p3_profile(), "lossless": True}
    data = webp(Image.fromarray(PICTURE), **options)
    changed = webp_chunks(data, lambda name, old: content if name == kind else None if name == b"ICCP" else old)
    assert difference(changed, PICTURE) == 0


def test_metadata_that_the_file_s_end_cuts_off_do_no_harm() -> None:
    data = webp(Image.fromarray(PICTURE), lossless=True, exif=with_orientation(6), xmp=b"x" * 1000)
    assert difference(data[:-500], np.rot90(PICTURE, -1)) == 0


def test_exif_turns_the_picture_and_xmp_does_not() -> None:
    image = Image.fromarray(PICTURE)
    assert difference(webp(image, lossless=True, exif=with_orientation(6)), np.rot90(PICTURE, -1)) == 0
    assert difference(webp(image, lossless=True, xmp=xmp_orientation(6)), PICTURE) == 0


def test_a_profile_is_applied_before_the_picture_lies_on_white() -> None:
    data = webp(RGBA, lossless=True, exact=True, icc_profile=display_p3_profile())
    assert difference(data, on_white(p3_to_srgb(PICTURE), ALPHA)) <= 2


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
@pytest.mark.parametrize("image", [Image.fromarray(PICTURE), RGBA], ids=["RGB", "RGBA"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.98])
def test_a_picture_that_is_cut_is_damaged(options: dict[str, Any], image: Image.Image, share: float) -> None:
    data = webp(image, **options)
    with pytest.raises(DamagedImage):
        decode(data[: int(len(data) * share)])


def test_a_canvas_of_another_size_than_its_picture_is_damaged() -> None:
    data = webp(RGBA)
    (place,) = (data.index(b"VP8X") + 12,)
    with pytest.raises(DamagedImage, match="another size"):
        decode(data[:place] + b"\x10\0\0" + data[place + 3 :])


@pytest.mark.parametrize("data", [b"RIFF\4\0\0\0WAVE", b"RIFF\4\0\0\0WEBP", b"RIFF\x10\0\0\0WEBPVP8 \0\0\0\0"])
def test_a_riff_file_without_a_picture_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedImage):
        decode(data)


def test_millions_of_chunks_are_refused_quickly() -> None:
    data = webp(Image.fromarray(PICTURE))
    for kind in (b"ALPH", b"none"):
        began = time.perf_counter()
        with pytest.raises(ImageTooLarge, match="chunks"):
            open_image(data[:12] + (kind + bytes(4)) * 1_000_000 + data[12:], Limits(10_000, 10_000))
        assert time.perf_counter() - began < 1
