"""What decoding takes of memory, natively allocated included, is within what the header promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pytest
from PIL import Image

SIDE: Final = 1600  # 2.6 megapixels: a byte of each is 2.6 MB
SLACK: Final = 12_000_000  # what a process takes beside: buffers, tables, heap that is not given back at once

MEASURE: Final = """
import json, sys
from vision.decoding import OWN_FILES, open_image
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
open_image(open(sys.argv[1], "rb").read(), OWN_FILES).decode()  # what is loaded once
import ctypes; ctypes.CDLL(None).malloc_trim(0)
found = {}
for name in sys.argv[1:]:
    file = open_image(open(name, "rb").read(), OWN_FILES)
    open("/proc/self/clear_refs", "w").write("5")
    before = kilobytes("VmRSS")
    pixels = file.decode()
    found[name] = ((kilobytes("VmHWM") - before) * 1024, file.peak_bytes, pixels.nbytes)
    del pixels, file
    ctypes.CDLL(None).malloc_trim(0)
print(json.dumps(found))
"""


def pictures() -> dict[str, tuple[Any, dict[str, Any]]]:
    """File name → what is saved, and how. Arrays are OpenCV's: it writes 16 bits."""
    grey = np.zeros((SIDE, SIDE), np.uint8)
    grey[::7] = 200
    colours = np.dstack([grey, grey // 2, 255 - grey])
    opaque = np.dstack([colours, grey])
    deep, deep_colours = grey.astype(np.uint16) * 257, colours.astype(np.uint16) * 257
    rgb = Image.fromarray(colours)
    turned = Image.Exif()
    turned[0x112] = 6
    return {
        "plain.jpg": (rgb, {}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "progressive-444.jpg": (rgb, {"progressive": True, "subsampling": 0, "quality": 95}),
        "turned.jpg": (rgb, {"exif": turned}),
        "grey.jpg": (Image.fromarray(grey), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "rgb.png": (rgb, {}),
        "grey.png": (Image.fromarray(grey), {}),
        "bits.png": (Image.fromarray(grey).convert("1"), {}),
        "palette.png": (rgb.quantize(16), {}),
        "alpha.png": (Image.fromarray(opaque), {}),
        "grey-alpha.png": (Image.fromarray(np.dstack([grey, grey]), "LA"), {}),
        "deep-grey.png": (deep, {}),
        "deep-rgb.png": (deep_colours, {}),
        "deep-alpha.png": (np.dstack([deep_colours, deep]), {}),
        "rgb.tif": (rgb, {"compression": "tiff_lzw"}),
        "alpha.tif": (Image.fromarray(opaque), {"compression": "tiff_lzw"}),
        "cmyk.tif": (rgb.convert("CMYK"), {"compression": "tiff_lzw"}),
        "palette.tif": (rgb.quantize(16), {"compression": "tiff_lzw"}),
        "fax.tif": (Image.fromarray(grey).convert("1"), {"compression": "group4"}),
        "deep.tif": (Image.fromarray(deep), {"compression": "tiff_lzw"}),
        "float.tif": (Image.fromarray(grey.astype(np.float32)), {"compression": "tiff_deflate"}),
        "deep-rgb.tif": (deep_colours, {}),
        "rgb.bmp": (rgb, {}),
        "palette.gif": (Image.fromarray(grey), {}),
        "lossy.webp": (rgb, {"method": 0}),
        "alpha.webp": (Image.fromarray(opaque), {"method": 0}),
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int, int]]:
    """File name → the peak of decoding it, what its header promises, and the picture itself; in bytes."""
    folder = tmp_path_factory.mktemp("pictures")
    names = []
    for name, (picture, options) in pictures().items():
        names.append(str(folder / name))
        if isinstance(picture, np.ndarray):
            assert cv2.imwrite(names[-1], picture)
        else:
            picture.save(names[-1], **options)
    done = subprocess.run([sys.executable, "-c", MEASURE, *names], capture_output=True, text=True, check=True)
    return {Path(name).name: figures for name, figures in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", pictures())
def test_decoding_takes_no_more_than_the_header_promises(measured: dict[str, tuple[int, int, int]], name: str) -> None:
    peak, promised, _ = measured[name]
    assert peak <= promised + SLACK
    assert promised <= 2.5 * peak + SLACK  # else one would wait for memory that nobody takes
