from __future__ import annotations

import io
import re
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.vision.decoding.made import FILES, LIMITS, MEGAPIXEL, decode, difference, encoded, scene, xmp_orientation
from vision.decoding import DamagedImage, ImageTooLarge, Limits, UnsupportedFormat, open_image

EOI = b"\xff\xd9"
GARBAGE = b"\0\x17\x42"
KINDS = [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"progressive": True, "restart_marker_rows": 1}]


def jpeg(**options: Any) -> bytes:
    return encoded(Image.fromarray(scene(64, 96)), "JPEG", quality=90, **options)


def places(pattern: bytes, data: bytes) -> list[int]:
    return [found.start() for found in re.finditer(pattern, data)]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + segment(marker, content) + data[2:]


# ── what is lost, and what is not ──


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("behind", [b"", b"\xff", GARBAGE, GARBAGE + EOI, b"\xff\xff" + EOI, EOI + GARBAGE * 999])
def test_what_stands_behind_the_last_block_does_not_matter(options: dict[str, Any], behind: bytes) -> None:
    data = jpeg(**options)
    assert difference(data[:-2] + behind, decode(data)) == 0


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("behind", [b"", EOI])
def test_a_picture_of_which_a_part_is_lost_is_damaged(options: dict[str, Any], share: float, behind: bytes) -> None:
    data = jpeg(**options)
    with pytest.raises(DamagedImage, match="JPEG"):
        decode(data[: int(len(data) * share)] + behind)


def test_a_progressive_picture_cut_between_two_scans_is_damaged() -> None:
    data = jpeg(progressive=True)
    scans = places(rb"\xff\xda", data)
    assert len(scans) > 5
    for start in scans[1:]:
        for behind in (b"", EOI):
            with pytest.raises(DamagedImage, match="scans that its picture needs are missing"):
                decode(data[:start] + behind)


def test_components_in_scans_of_their_own_must_all_be_there() -> None:
    data = (FILES / "three-scans.jpg").read_bytes()
    assert difference(data[:-2], decode(data)) == 0
    for start in places(rb"\xff\xda", data)[1:]:
        with pytest.raises(DamagedImage):
            decode(data[:start] + EOI)


@pytest.mark.parametrize("options", [{"restart_marker_rows": 1}, {"restart_marker_rows": 1, "progressive": True}])
def test_a_lost_restart_interval_or_marker_is_damage(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    restarts = places(rb"\xff[\xd0-\xd7]", data)
    first, second, last = restarts[1], restarts[2], restarts[-1]
    for damaged in (data[:first] + data[second:], data[:first] + data[first + 2 :], data[:last] + data[last + 2 :]):
        with pytest.raises(DamagedImage, match="a part of its coded data is missing"):
            decode(damaged)


# libjpeg-turbo gives the first warning only: each of these would hide the loss behind it.
def with_bytes_before_tables(data: bytes) -> bytes:
    return data[:20] + GARBAGE + data[20:]


def with_unknown_jfif(data: bytes) -> bytes:
    return data.replace(b"JFIF\0\x01\x01", b"JFIF\0\x09\x09")


def with_unknown_adobe(data: bytes) -> bytes:
    return with_segment(data, 0xEE, b"Adobe\0\x64\0\0\0\0\x09")


def with_odd_scan(data: bytes) -> bytes:
    start = data.index(b"\xff\xda") + 2 + struct.unpack_from(">H", data, data.index(b"\xff\xda") + 2)[0]
    return data[: start - 3] + b"\x01\x05\x11" + data[start:]


@pytest.mark.parametrize("harmless", [with_bytes_before_tables, with_unknown_jfif, with_unknown_adobe, with_odd_scan])
def test_a_harmless_oddity_is_shown_and_hides_no_loss(harmless: Any) -> None:
    data = jpeg()
    odd = harmless(data)
    assert odd != data
    assert difference(odd, decode(data)) == 0
    with pytest.raises(DamagedImage):
        decode(odd[: len(odd) // 2] + EOI)


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_between_restart_intervals_are_shown_and_hide_no_loss(progressive: bool) -> None:
    data = jpeg(restart_marker_rows=1, progressive=progressive)
    second, last = places(rb"\xff[\xd0-\xd7]", data)[1], places(rb"\xff[\xd0-\xd7]", data)[-1]
    odd = data[:second] + GARBAGE + data[second:]
    assert difference(odd, decode(data)) == 0
    for damaged in (odd[: last + 3] + EOI, odd[:last] + odd[last + 20 :], odd[:-4] + EOI):
        with pytest.raises(DamagedImage):
            decode(damaged)


# ── kinds of JPEG ──


@pytest.mark.parametrize(
    "name",
    [path.stem for path in sorted(FILES.glob("*.jpg"))],
)
def test_kinds_that_cameras_seldom_send_are_shown(name: str) -> None:
    data = (FILES / f"{name}.jpg").read_bytes()
    assert np.abs(decode(data).astype(int) - scene(24, 40)).mean() < 6
    with pytest.raises(DamagedImage):
        decode(data[: len(data) * 4 // 5] + EOI)


def test_a_lossless_jpeg_keeps_every_pixel() -> None:
    assert difference((FILES / "lossless.jpg").read_bytes(), scene(24, 40)) == 0


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_samplings_and_modes_are_what_pillow_shows(sampling: str, mode: str) -> None:
    image = Image.fromarray(scene(64, 96)).convert(mode)
    data = encoded(image, "JPEG", subsampling=sampling)
    assert difference(data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) == 0


def test_frames_of_motion_jpeg_have_no_huffman_tables() -> None:
    data = jpeg()
    tables = b"".join(segment(0xC4, content) for content in contents(data, 0xC4))
    assert tables
    bare = data
    for content in contents(data, 0xC4):
        bare = bare.replace(segment(0xC4, content), b"")
    assert difference(bare, decode(data)) == 0


def contents(data: bytes, marker: int) -> list[bytes]:
    found, place = [], 2
    while data[place + 1] != 0xDA:
        (size,) = struct.unpack_from(">H", data, place + 2)
        if data[place + 1] == marker:
            found.append(data[place + 4 : place + 2 + size])
        place += 2 + size
    return found


def with_frame(data: bytes, marker: int, bits: int = 8) -> bytes:
    frame = segment(0xC0, contents(data, 0xC0)[0])
    changed = bytearray(frame)
    changed[1], changed[4] = marker, bits
    return data.replace(frame, bytes(changed))


@pytest.mark.parametrize(
    ("marker", "bits", "name"),
    [(0xC1, 12, "12 bits"), (0xC5, 8, "hierarchical"), (0xCB, 8, "lossless with"), (0xF7, 8, "JPEG-LS")],
)
def test_kinds_that_are_not_decoded_are_refused_by_name(marker: int, bits: int, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        decode(with_frame(jpeg(), marker, bits))


def test_a_height_behind_the_picture_is_refused_by_name() -> None:
    data = jpeg()
    content = contents(data, 0xC0)[0]
    with pytest.raises(UnsupportedFormat, match="height"):
        decode(data.replace(content, content[:1] + b"\0\0" + content[3:]))


def test_two_components_are_refused_by_name() -> None:
    content = contents(jpeg(), 0xC0)[0]
    with pytest.raises(UnsupportedFormat, match="2 components"):
        decode(b"\xff\xd8" + segment(0xC0, content[:5] + b"\x02" + content[6:12]))


# ── metadata ──


def test_metadata_of_any_size_and_state_do_no_harm() -> None:
    data, full = jpeg(), b"\xaa" * 65_500
    expected = decode(data)
    for marker in (*range(0xE0, 0xF0), 0xFE):
        assert difference(with_segment(data, marker, full), expected) == 0
    for content in (b"Exif\0\0", b"Exif\0\0MM\0*" + full, b"ICC_PROFILE\0", b"ICC_PROFILE\0\x02\x03" + full):
        for marker in (0xE1, 0xE2):
            assert difference(with_segment(data, marker, content), expected) == 0
    many = data[:2] + b"".join(segment(0xE1, full) for _ in range(150)) + data[2:]
    assert difference(many, expected) == 0


def test_xmp_does_not_turn_a_picture() -> None:
    data = jpeg()
    content = b"http://ns.adobe.com/xap/1.0/\0" + xmp_orientation(6)
    assert decode(with_segment(data, 0xE1, content)).shape == (64, 96, 3)


def test_a_picture_within_the_metadata_is_not_taken_for_the_picture() -> None:
    data = jpeg()
    small = encoded(Image.new("RGB", (8, 8), (255, 0, 0)), "JPEG")
    assert difference(with_segment(data, 0xE1, b"Exif\0\0" + small), decode(data)) == 0


# ── work ──


def of_empty_scans(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG whose scans hold one code each: an end of blocks as long as the picture."""
    table = segment(0xC4, b"\x10" + bytes([0, 1] + [0] * 14) + b"\xe0") + segment(0xC4, b"\0\x01" + bytes(15) + b"\0")
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0")
    quantisation = segment(0xDB, b"\0" + b"\x01" * 64)
    blocks = -(-width // 8) * -(-height // 8)
    first = segment(0xDA, b"\x01\x01\0\0\0\0") + b"\0" * (blocks // 8 + 1)
    empty = b"".join(
        segment(0xDA, bytes([1, 1, 0, 1 + index % 63, 1 + index % 63, 0])) + b"\x3f\xff\x00" * (blocks // 16_384 + 2)
        for index in range(scans - 1)
    )
    return b"\xff\xd8" + quantisation + frame + table + first + empty + EOI


@pytest.mark.parametrize("scans", [100, 900, 5000])
def test_a_jpeg_of_many_empty_scans_is_refused_before_decoding(scans: int) -> None:
    data = of_empty_scans(7000, 7000, scans)
    taken_s = []
    for _ in range(3):  # the best of them: something else may hit one
        began = time.thread_time()
        with pytest.raises(ImageTooLarge, match=r"scans|segments"):
            open_image(data, Limits(50 * MEGAPIXEL, 1000 * MEGAPIXEL))
        taken_s.append(time.thread_time() - began)
    assert min(taken_s) < 0.05


def test_scans_are_counted_times_the_pixels() -> None:
    data = jpeg(progressive=True)
    scans = len(places(rb"\xff\xda", data))
    pixels = 64 * 96
    assert open_image(data, Limits(pixels, pixels * scans)).passes == scans
    with pytest.raises(ImageTooLarge, match=f"{scans} scans"):
        open_image(data, Limits(pixels, pixels * scans - 1))
    assert open_image(jpeg(), Limits(pixels, 1)).passes == 1


def test_ten_megabytes_are_looked_through_quickly() -> None:
    coded = np.random.default_rng(0).bytes(10 * 2**20).replace(b"\xff", b"\xff\0")
    data = jpeg(progressive=True)
    start = data.index(b"\xff\xda") + 14
    began = time.thread_time()
    open_image(data[:start] + coded + data[start:], LIMITS)
    assert time.thread_time() - began < 0.3
