from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from api.heap import share_arenas

FRAMES: Final = 50
PAGES: Final = 1920 * 1080 * 3 // 4096  # of a frame
PICTURES, SIZE = 16, 16_000_000

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


# As a server does it: many threads, each with a picture now and then.
THREADS: Final = f"""
import threading
import numpy as np
from api.heap import keep_freed
keep_freed()
end = threading.Event()
def picture(done):
    np.full({SIZE}, 1, np.uint8)
    done.set()
    end.wait()
for _ in range({PICTURES}):
    done = threading.Event()
    threading.Thread(target=picture, args=(done,)).start()
    done.wait()
with open("/proc/self/statm") as status:
    print(int(status.read().split()[1]) * 4096)
end.set()
"""


def resident() -> int:
    return int(subprocess.run([sys.executable, "-c", THREADS], capture_output=True, check=True).stdout)


def test_one_threads_freed_picture_is_the_next_ones_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "16")
    apart = resident()
    if apart < PICTURES * SIZE:
        pytest.skip("this C library has no arenas of threads")
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    monkeypatch.setattr("api.heap.cores", lambda _: 2)  # on a machine with more, there are more
    share_arenas()
    assert resident() < apart - (PICTURES - 4) * SIZE


def test_an_operators_number_of_arenas_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    share_arenas()
    assert os.environ["MALLOC_ARENA_MAX"] == "7"
