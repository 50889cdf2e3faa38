"""Image files as the tests of decoding make them, and how the service would decode one."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vision.arrays import RGB
from vision.decoding import Limits, open_image
from vision.decoding.primaries import Chromaticities, profile_of

MEGAPIXEL = 1_000_000
LIMITS = Limits(pixels=MEGAPIXEL, pass_pixels=20 * MEGAPIXEL)
FILES = Path(__file__).parent / "files"

DISPLAY_P3: Chromaticities = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)


def decode(data: bytes, limits: Limits = LIMITS) -> RGB:
    return open_image(data, limits).decode()


def difference(data: bytes, expected: NDArray[np.uint8]) -> int:
    """The greatest difference of a decoded file to a picture, of 255."""
    decoded = decode(data)
    assert decoded.shape == expected.shape
    assert decoded.dtype == np.uint8
    return int(np.abs(decoded.astype(int) - expected).max())


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


def repeated(grey: NDArray[np.uint8]) -> RGB:
    """Grey (h, w) as RGB."""
    return np.repeat(grey[..., None], 3, axis=2)


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """Opacities from 0 to 255, left to right."""
    return np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))


def on_white(colours: RGB, alpha: NDArray[np.uint8]) -> RGB:
    """The formula itself, apart from what the service does with it."""
    blended = colours * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    return np.asarray(np.round(blended), dtype=np.uint8)


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def xmp_orientation(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
        % orientation
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: NDArray[Any], depth: int, kind: int, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG of (h, w) or (h, w, n) samples as they are. before, behind: chunks in front of and after the coded data."""
    height, width = samples.shape[:2]
    if depth >= 8:
        rows = np.ascontiguousarray(samples.astype(f">u{depth // 8}")).view(np.uint8).reshape(height, -1)
    else:
        bits = samples[..., None] >> np.arange(depth - 1, -1, -1) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    coded = chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + coded + behind + chunk(b"IEND", b"")


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of fewer than 100 bytes that announces so many pixels and holds none of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def display_p3_profile() -> bytes:
    profile = profile_of(DISPLAY_P3)
    assert profile is not None
    return profile


def p3_to_srgb(colours: RGB) -> RGB:
    """Display P3 in sRGB by the matrix of CSS Color 4, apart from any colour management."""
    to_srgb = np.array(
        [
            [1.2249401762805598, -0.22494017628055996, 0.0],
            [-0.042056954709688163, 1.0420569547096881, 0.0],
            [-0.019637554590334432, -0.078636045550631889, 1.0982736001409663],
        ]
    )
    return encoded_light(np.clip(decoded_light(colours) @ to_srgb.T, 0, 1))


def decoded_light(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    values = colours / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded_light(light: NDArray[np.float64]) -> NDArray[np.uint8]:
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(values * 255), dtype=np.uint8)


def webp_chunks(data: bytes, change: Callable[[bytes, bytes], bytes | None]) -> bytes:
    """A WebP with the content of its chunks changed, or left out where `change` gives None."""
    position, body = 12, b"WEBP"
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, position)
        content = change(kind, data[position + 8 : position + 8 + size])
        if content is not None:
            body += kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        position += 8 + size + size % 2
    return b"RIFF" + struct.pack("<I", len(body)) + body
