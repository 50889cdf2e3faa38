"""The API's heap: what one picture leaves free is kept for the next."""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1  # of glibc's malloc.h: give memory back when so much is free at the end of the heap
_MMAP_THRESHOLD: Final = -3  # and take it from the system for what is larger
_LARGEST: Final = 32 * 2**20  # the most that glibc takes; a 4K frame in RGB has 25 MB
_KEPT: Final = 64 * 2**20


def keep_freed() -> None:
    """Let the C library keep the memory of freed pictures, in this process.

    By itself glibc gives each back to the system, which hands out zeroed pages again, one fault at a time: 1,500 for a
    full HD frame, of which there are three copies. Other C libraries have no such call and are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _LARGEST)
        set_option(_TRIM_THRESHOLD, _KEPT)
