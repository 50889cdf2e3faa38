"""How long each kind of image file takes to decode, beside another version of the decoder.

    python -m benchmarks.decoding PICTURE [--before image.py]

PICTURE is scaled to full HD and written as every kind. `--before` names a module of an earlier version that has
`decode(data, max_pixels)`. The two take turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

from vision.decoding import OWN_FILES, open_image
from vision.decoding.primaries import CODED, profile_of

_FULL_HD: Final = (1920, 1080)
_VGA: Final = (640, 480)
_DISPLAY_P3: Final = 12  # of ITU-T H.273
_PIXELS: Final = 50_000_000

Decode = Callable[[bytes], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--before", type=Path, help="a module with decode(data, max_pixels)")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    versions: list[Decode] = [lambda data: open_image(data, OWN_FILES).decode()]
    if arguments.before:
        versions.append(_earlier(arguments.before))
    print(f"| {'file':24} | KB | ms |{' before | ratio |' if arguments.before else ''}")
    print(f"|---|---|---|{'---|---|' if arguments.before else ''}")
    for name, data in files(Image.open(arguments.picture).convert("RGB")).items():
        times = medians(versions, data, arguments.rounds)
        row = f"| {name:24} | {len(data) // 1024} | {times[0]:.2f} |"
        print(row + (f" {times[1]:.2f} | {times[0] / times[1]:.2f} |" if arguments.before else ""))


def files(picture: Image.Image) -> dict[str, bytes]:
    """The picture as files of every kind, by name."""
    large, small = picture.resize(_FULL_HD), picture.resize(_VGA)
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, _FULL_HD[0]).astype(np.uint8), (_FULL_HD[1], 1)))
    opaque, clear = large.convert("RGBA"), large.copy()
    clear.putalpha(alpha)
    sixteen = Image.fromarray(np.asarray(large.convert("L")).astype(np.uint16) * 257)
    srgb, p3 = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), profile_of(CODED[_DISPLAY_P3])
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "JPEG 640×480": _file(small, "JPEG", quality=90),
        "JPEG": _file(large, "JPEG", quality=90),
        "JPEG, sRGB profile": _file(large, "JPEG", quality=90, icc_profile=srgb),
        "JPEG, Display P3 profile": _file(large, "JPEG", quality=90, icc_profile=p3),
        "JPEG, progressive": _file(large, "JPEG", quality=90, progressive=True),
        "JPEG, turned": _file(large, "JPEG", quality=90, exif=turned),
        "JPEG, grey": _file(large.convert("L"), "JPEG", quality=90),
        "JPEG, CMYK": _file(large.convert("CMYK"), "JPEG", quality=90),
        "PNG": _file(large, "PNG"),
        "PNG, opaque alpha": _file(opaque, "PNG"),
        "PNG, alpha": _file(clear, "PNG"),
        "PNG, palette": _file(large.quantize(256), "PNG"),
        "PNG, 16-bit grey": _file(sixteen, "PNG"),
        "WebP": _file(large, "WEBP", quality=90),
        "WebP, alpha": _file(clear, "WEBP", quality=90),
        "GIF": _file(large.quantize(256), "GIF"),
        "BMP": _file(large, "BMP"),
        "TIFF": _file(large, "TIFF"),
        "TIFF, LZW": _file(large, "TIFF", compression="tiff_lzw"),
        "TIFF, LZW and predictor": _file(large, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        "TIFF, 16-bit grey": _file(sixteen, "TIFF"),
        "TIFF, JPEG": _file(large, "TIFF", compression="jpeg"),
    }


def medians(versions: list[Decode], data: bytes, rounds: int) -> list[float]:
    """Milliseconds of each version."""
    times: list[list[float]] = [[] for _ in versions]
    for _ in range(rounds):
        for version, taken in zip(versions, times, strict=True):
            began = time.perf_counter()
            version(data)
            taken.append((time.perf_counter() - began) * 1000)
    return [statistics.median(taken) for taken in times]


def _earlier(path: Path) -> Decode:
    spec = spec_from_file_location("earlier", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return lambda data: module.decode(data, _PIXELS)


def _file(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
