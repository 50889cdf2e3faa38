from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

FRAMES: Final = 50
PAGES: Final = 1920 * 1080 * 3 // 4096  # of a frame
# As a request does it: a picture, and while it is there a copy of it.
CODE: Final = f"""
import resource, sys
import numpy as np
from api.heap import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
def frames():
    for value in range({FRAMES}):
        picture = np.full((1080, 1920, 3), value, np.uint8)
        copy = picture.tobytes()
        del picture, copy
frames()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
frames()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(which: str) -> int:
    return int(subprocess.run([sys.executable, "-c", CODE, which], capture_output=True, check=True).stdout)


def test_pictures_are_not_faulted_in_page_by_page_again() -> None:
    if faults("as it is") < FRAMES * PAGES / 2:
        pytest.skip("this C library keeps them by itself")
    assert faults("kept") < FRAMES * PAGES / 100
