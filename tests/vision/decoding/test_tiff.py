from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.vision.decoding.made import LIMITS, decode, difference, encoded, noise, on_white, ramp, repeated, scene
from vision.decoding import DamagedImage, ImageTooLarge, Limits, UnsupportedFormat, open_image

PICTURE = noise(50, 70)  # no multiple of a tile
GREY = PICTURE[..., 0]
ALPHA = ramp(50, 70)
TILE = (32, 48)


def tiff(samples: NDArray[Any], photometric: str, *, order: Any = "<", big: bool = False, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as writer:
        writer.write(samples, photometric=photometric, **options)
    return buffer.getvalue()


def wide(samples: NDArray[np.uint8], bits: int) -> NDArray[Any]:
    """Samples of 8 bits, spread to more."""
    spread = samples.astype(np.uint64) * (2**bits - 1) // 255
    return np.asarray(spread, np.uint16 if bits <= 16 else np.uint32)


# ── layouts: grey, colours, alpha, in both byte orders, strips and tiles ──


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("tile", [None, TILE])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_layouts_in_every_way_of_storing_them(order: str, big: bool, tile: Any, compression: str | None) -> None:
    stored: dict[str, Any] = {"order": order, "big": big, "tile": tile, "compression": compression}
    for predictor in [False, True] if compression else [False]:
        stored["predictor"] = predictor
        assert difference(tiff(PICTURE, "rgb", **stored), PICTURE) == 0
        assert difference(tiff(wide(PICTURE, 16), "rgb", **stored), PICTURE) == 0
        assert difference(tiff(GREY, "minisblack", **stored), repeated(GREY)) == 0
        assert difference(tiff(wide(GREY, 16), "minisblack", **stored), repeated(GREY)) == 0
        assert difference(tiff(wide(GREY, 32), "minisblack", **stored), repeated(GREY)) == 0
        assert difference(tiff(255 - GREY, "miniswhite", **stored), repeated(GREY)) == 0
        assert difference(tiff(65535 - wide(GREY, 16), "miniswhite", **stored), repeated(GREY)) == 0
        planes = {**stored, "planarconfig": "separate"}
        assert difference(tiff(np.moveaxis(PICTURE, 2, 0), "rgb", **planes), PICTURE) == 0
        assert difference(tiff(np.moveaxis(wide(PICTURE, 16), 2, 0), "rgb", **planes), PICTURE) == 0


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_strips_of_any_height(rows: int) -> None:
    for compression in (None, "zlib"):
        data = tiff(wide(PICTURE, 16), "rgb", rowsperstrip=rows, compression=compression)
        assert difference(data, PICTURE) == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_of_packed_bits(bits: int, photometric: int) -> None:
    samples = wide(GREY, 12) if bits == 12 else GREY >> (8 - bits)
    shown = GREY if bits == 12 else np.asarray(samples * (255 // (2**bits - 1)), np.uint8)
    assert difference(packed(samples, bits, photometric), repeated(shown if photometric else 255 - shown)) <= 1


def test_grey_of_packed_bits_in_reversed_order() -> None:
    for bits in (1, 2, 4):
        samples = GREY >> (8 - bits)
        data = packed(samples, bits, 1)
        start = data.index(packed_rows(samples, bits).tobytes())
        rows = packed_rows(samples, bits)
        reverse = np.packbits(np.unpackbits(rows[..., None], axis=2)[..., ::-1], axis=2)
        data = data[:start] + reverse.tobytes() + data[start + rows.size :]
        shown = np.asarray(samples * (255 // (2**bits - 1)), np.uint8)
        assert difference(with_entry(data, struct.pack("<HHII", 266, 3, 1, 2)), repeated(shown)) == 0


def packed_rows(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    spread = samples[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(spread.reshape(len(samples), -1).astype(np.uint8), axis=1)


def packed(samples: NDArray[Any], bits: int, photometric: int) -> bytes:
    """A TIFF of grey samples of any number of bits."""
    data = tiff(packed_rows(samples, bits), "minisblack")
    for tag, value in ((256, samples.shape[1]), (258, bits), (262, photometric)):
        data = with_entry(data, struct.pack("<HHII", tag, 4, 1, value))
    return data


def with_entry(data: bytes, entry: bytes) -> bytes:
    """A little-endian classic TIFF with one entry added to its directory, which moves to the end."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    table = data[start + 2 : start + 2 + 12 * count]
    entries = [table[place : place + 12] for place in range(0, len(table), 12)]
    entries = sorted([*(old for old in entries if old[:2] != entry[:2]), entry], key=lambda e: e[1:2] + e[:1])
    data += b"\0" * (len(data) % 2)
    moved = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + moved


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_floats_are_scaled_by_their_own_range(kind: str, order: str) -> None:
    values = np.array([[-2.0, 0.0, 2.0, np.nan]], kind)
    assert decode(tiff(values, "minisblack", order=order))[0, :3, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_either_kind_lies_on_white(bits: int) -> None:
    samples, alpha = (wide(PICTURE, bits), wide(ALPHA, bits)) if bits == 16 else (PICTURE, ALPHA)
    expected = on_white(PICTURE, ALPHA)
    plain = np.dstack([samples, alpha])
    assert difference(tiff(plain, "rgb", extrasamples=["unassalpha"]), expected) <= 1
    assert difference(tiff(plain, "rgb", extrasamples=["unspecified"]), PICTURE) == 0
    multiplied = np.dstack([np.round(samples * (ALPHA[..., None] / 255)).astype(samples.dtype), alpha])
    assert difference(tiff(multiplied, "rgb", extrasamples=["assocalpha"]), expected) <= 2
    grey = np.dstack([samples[..., 0], alpha])
    assert difference(tiff(grey, "minisblack", extrasamples=["unassalpha"]), on_white(repeated(GREY), ALPHA)) <= 1
    planes = tiff(np.moveaxis(plain, 2, 0), "rgb", planarconfig="separate", extrasamples=["unassalpha"])
    assert difference(planes, expected) <= 1


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_with_another_sample_are_refused_by_name(extra: str, dtype: type) -> None:
    samples: NDArray[Any] = np.dstack([GREY, GREY]).astype(dtype)
    with pytest.raises(UnsupportedFormat, match="float"):
        decode(tiff(samples, "minisblack", extrasamples=[extra], planarconfig="contig"))


def test_cmyk_of_both_depths_and_in_planes() -> None:
    inks = np.asarray(Image.fromarray(PICTURE).convert("CMYK"))
    assert difference(tiff(inks, "separated"), PICTURE) <= 1
    assert difference(tiff(wide(inks, 16), "separated"), PICTURE) <= 1
    assert difference(tiff(np.moveaxis(inks, 2, 0), "separated", planarconfig="separate"), PICTURE) <= 1


@pytest.mark.parametrize("scale", [1, 257])
def test_palettes_of_8_and_of_16_bits(scale: int) -> None:
    colours = noise(1, 256, seed=2)[0]
    data = tiff(GREY, "palette", colormap=colours.T.astype(np.uint16) * scale)
    assert difference(data, colours[GREY]) == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd"])
def test_compressions_that_pillow_writes(mode: str, compression: str | None) -> None:
    image = Image.fromarray(wide(GREY, 16)) if mode == "I;16" else Image.fromarray(PICTURE).convert(mode)
    expected = repeated(GREY) if mode == "I;16" else np.asarray(image.convert("RGB"))
    assert difference(encoded(image, "TIFF", compression=compression), expected) <= 1


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_facsimiles(compression: str, photometric: int) -> None:
    image = Image.fromarray(GREY).convert("1")
    data = encoded(image, "TIFF", compression=compression, tiffinfo={262: photometric})
    assert difference(data, np.asarray(image.convert("RGB"))) == 0


@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr"])
def test_jpegs_within_a_tiff_and_what_they_lose(mode: str) -> None:
    image = Image.fromarray(scene(50, 70)).convert(mode)
    data = encoded(image, "TIFF", compression="jpeg")
    assert difference(data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) == 0
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    assert isinstance(page, tifffile.TiffPage)
    start, size = page.dataoffsets[0], page.databytecounts[0]
    half = start + size // 2
    with pytest.raises(DamagedImage):
        decode(data[:half] + b"\xff\xd9" + bytes(size - size // 2 - 2) + data[start + size :])


def test_the_first_page_is_shown() -> None:
    assert difference(tiff(np.stack([PICTURE, 255 - PICTURE]), "rgb"), PICTURE) == 0


def test_orientation_is_the_tag_s() -> None:
    assert difference(encoded(Image.fromarray(PICTURE), "TIFF", tiffinfo={274: 6}), np.rot90(PICTURE, -1)) == 0
    assert decode(encoded(Image.fromarray(PICTURE), "TIFF", tiffinfo={700: b"x" * 99_999})).shape == (50, 70, 3)


# ── layouts that nobody has tried are refused by name ──


@pytest.mark.parametrize(
    ("samples", "photometric", "options", "name"),
    [
        (GREY.view(np.int8), "minisblack", {}, "8 bits, signed"),
        (wide(GREY, 16).view(np.int16), "minisblack", {}, "16 bits, signed"),
        (wide(GREY, 32).view(np.int32), "minisblack", {}, "32 bits, signed"),
        (GREY.astype(np.complex64), "minisblack", {}, "complex"),
        (PICTURE.astype(np.float32), "rgb", {}, "3 × 32 bits, float"),
        (wide(PICTURE, 32), "rgb", {}, "3 × 32 bits"),
        (GREY.astype(np.uint64), "minisblack", {}, "64 bits"),
        (PICTURE, "cielab", {}, "Lab"),
        (GREY, "cfa", {}, "colour filter array"),
        (np.dstack([PICTURE, PICTURE]), "rgb", {"extrasamples": [0, 0, 0]}, "6 × 8 bits"),
        (np.dstack([PICTURE] * 4), "minisblack", {"planarconfig": "contig"}, "12 × 8 bits"),
    ],
)
def test_a_layout_outside_the_list_is_refused_by_name(
    samples: NDArray[Any], photometric: str, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(UnsupportedFormat, match=name) as refused:
        decode(tiff(samples, photometric, **options))
    assert "send grey of 1, 2, 4, 8, 12, 16, 32 bits" in str(refused.value)


def test_grey_of_10_bits_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormat, match="1 × 10 bits"):
        decode(packed(wide(GREY, 10), 10, 1))


@pytest.mark.parametrize(
    ("tag", "value", "name"),
    [
        (259, 6, "old-style JPEG"),
        (259, 34712, "JPEG 2000"),
        (259, 999, "compression 999"),
        (262, 6, "YCbCr"),
        (262, 999, "photometric 999"),
        (339, 2, "signed"),
        (266, 2, "bits reversed"),
    ],
)
def test_a_tag_outside_the_list_is_refused_by_name(tag: int, value: int, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        decode(with_entry(encoded(Image.fromarray(PICTURE), "TIFF"), struct.pack("<HHII", tag, 3, 1, value)))


# ── damage ──


@pytest.mark.parametrize("tag", [256, 257, 273, 278, 279])
@pytest.mark.parametrize("value", [0, 2**31, 2**32 - 1])
def test_a_directory_that_contradicts_itself_is_damaged_or_too_large(tag: int, value: int) -> None:
    data = with_entry(encoded(Image.fromarray(PICTURE), "TIFF"), struct.pack("<HHII", tag, 4, 1, value))
    if tag == 278 and value:  # more rows in a strip than there are: allowed
        assert difference(data, PICTURE) == 0
        return
    with pytest.raises((DamagedImage, ImageTooLarge)):
        decode(data)


@pytest.mark.parametrize("entry", [struct.pack("<HHII", 305, 2, 2**32 - 1, 5), struct.pack("<HHII", 700, 99, 9, 9)])
def test_damaged_tags_beside_the_picture_do_no_harm(entry: bytes) -> None:
    assert difference(with_entry(encoded(Image.fromarray(PICTURE), "TIFF"), entry), PICTURE) == 0


# ── work ──


def test_a_directory_that_points_to_itself_ends() -> None:
    data = bytearray(encoded(Image.fromarray(PICTURE), "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    assert difference(bytes(data), PICTURE) == 0


def test_tens_of_thousands_of_strips_and_tiles_cost_bounded_time() -> None:
    samples = noise(20_000, 10)[..., 0]
    for options in ({"rowsperstrip": 1}, {"tile": (16, 16)}):
        for compression in (None, "zlib"):
            data = tiff(samples, "minisblack", compression=compression, **options)
            began = time.thread_time()
            assert difference(data, repeated(samples)) == 0
            assert time.thread_time() - began < 2
    for side, limit in ((1600, None), (1616, "10201 strips or tiles; at most 10000")):
        data = tiled(CODED["jpeg"][0], side, 16, CODED["jpeg"][1])
        with pytest.raises(ImageTooLarge, match=limit) if limit else contextlib.nullcontext():
            open_image(data, Limits(3_000_000, 3_000_000))
    many = struct.pack("<HHII", 278, 4, 1, 1)
    tall = with_entry(encoded(Image.new("L", (1, 100_000)), "TIFF"), many)
    with pytest.raises(ImageTooLarge, match="100000 strips or tiles"):
        open_image(tall, LIMITS)


def test_a_tile_much_larger_than_its_picture_is_refused() -> None:
    data = bytearray(tiff(GREY, "minisblack", tile=TILE, compression="zlib"))
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0]
    assert isinstance(page, tifffile.TiffPage)
    for tag in (322, 323):
        struct.pack_into("<H", data, page.tags[tag].valueoffset, 65_520)
    with pytest.raises(DamagedImage, match="65520×65520"):
        decode(bytes(data))


def tiled(compression: int, side: int, tile: int, coded: bytes) -> bytes:
    """A grey picture of 8 bits whose tiles are all the same bytes of the file."""
    count = (side // tile) ** 2
    place = 8 + 2 + 12 * 10 + 4
    plain = {256: side, 257: side, 258: 8, 259: compression, 262: 1, 277: 1, 322: tile, 323: tile}
    lists = {324: place, 325: place + 4 * count}
    tags = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in plain.items()]
    tags += [struct.pack("<HHII", tag, 4, count, start) for tag, start in lists.items()]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + bytes(4)
    return head + struct.pack("<I", place + 8 * count) * count + struct.pack("<I", len(coded)) * count + coded


CODED = {
    "jpeg": (7, encoded(Image.new("L", (16, 16), 77), "JPEG")),
    "deflate": (8, zlib.compress(bytes([77]) * 256)),
    "packbits": (32773, bytes([129, 77, 129, 77])),
}


@pytest.mark.parametrize("name", CODED)
def test_equal_tiles_may_share_their_bytes(name: str) -> None:
    compression, coded = CODED[name]
    found = decode(tiled(compression, 640, 16, coded))
    assert found.shape == (640, 640, 3)
    assert (found == 77).all()


@pytest.mark.parametrize("name", CODED)
def test_tiles_that_all_share_the_whole_file_are_refused_before_anything_is_read(name: str) -> None:
    compression, coded = CODED[name]
    data = tiled(compression, 640, 16, coded + bytes(100_000))  # 1,600 times 100 kB
    with pytest.raises(DamagedImage, match="overlap"):
        open_image(data, LIMITS)
