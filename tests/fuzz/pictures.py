"""Does each changed image file end in a picture or a refusal of ours, in bounded time and memory?"""

from __future__ import annotations

import re
import time
from functools import cache
from pathlib import Path
from typing import Final

from tests.fuzz.findings import Finding
from tests.vision.decoding.test_damage import FOREIGN, fuzz_seeds
from vision.decoding import ImageError, Limits, open_image

LIMITS: Final = Limits(pixels=50_000_000, pass_pixels=1_000_000_000)  # configuration.yaml's
REFUSED_S: Final = 0.25  # processor time
#: The time of a picture that is decoded: as much, and what 50 megapixels may take.
DECODED_S_PER_PIXEL: Final = 0.2e-6
#: Beside peak_bytes: what the allocator keeps, and what the process's other threads take meanwhile.
SPARE_BYTES: Final = 8_000_000
_SHARED: Final = Path(__file__).parents[3] / "shared"
_LARGEST_SEED: Final = 300_000  # bytes; larger pictures take most of their time in what is not damaged


@cache
def seeds() -> tuple[bytes, ...]:
    """Small drawn files of every kind, and the real pictures beside the checkout, where there are any."""
    real = [
        path.read_bytes()
        for folder in ("images", "cases")
        for path in sorted((_SHARED / folder).glob("*.*"))
        if path.suffix in {".jpg", ".png", ".webp", ".tif"} and path.stat().st_size < _LARGEST_SEED
    ]
    return (*fuzz_seeds() * 2, *real)


def check(data: bytes) -> str:
    """Decode a file. Returns what came of it. Raises Finding for any other end than a picture or an ImageError."""
    memory = _Memory()
    began = time.process_time()
    bound, pixels, outcome = 0, 0, "decoded"
    try:
        file = open_image(data, LIMITS)
        bound, pixels = file.peak_bytes, file.pixels
        picture = file.decode()
    except ImageError as error:
        outcome = type(error).__name__
        if FOREIGN.search(str(error)) or not 20 < len(str(error)) < 400:
            raise Finding(f"the refusal is not in our words: {error}") from error
    except Exception as error:
        raise Finding(f"{type(error).__name__} came out: {error}") from error
    else:
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.shape[0] * picture.shape[1] != pixels:
            raise Finding(f"a picture of the shape {picture.shape} came out of {pixels} pixels")
    took = time.process_time() - began
    peak = memory.peak()
    if took > REFUSED_S + (pixels * DECODED_S_PER_PIXEL if outcome == "decoded" else 0):
        raise Finding(f"{outcome} took {took:.2f} s of processor time")
    if peak > bound + SPARE_BYTES:
        raise Finding(f"{outcome} took {peak / 1e6:.0f} MB; at most {bound / 1e6:.0f} MB were announced")
    return outcome


class _Memory:
    """The most memory that this process took since, in bytes over what it had; Linux tells it."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status("VmRSS")

    def peak(self) -> int:
        return _status("VmHWM") - self._before


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
