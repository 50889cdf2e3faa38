"""Tunes the C library's heap, so that one image's memory is reused for the next, on whichever thread."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from engines.cores import cores

# M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 32 * 2**20  # bytes, glibc's maximum for M_MMAP_THRESHOLD; a 4K frame in RGB has 25 MB
_KEPT: Final = 64 * 2**20  # bytes


def keep_freed() -> None:
    """Make the C library keep the memory of freed images.

    By default glibc returns it to the system after each image. The next image then costs a page fault for every
    4 KiB. A C library without `mallopt` is left as it is.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _LARGEST)
        set_option(_TRIM_THRESHOLD, _KEPT)


def share_arenas() -> None:
    """Limit the malloc arenas of later processes to one per core, unless MALLOC_ARENA_MAX is already set.

    glibc makes eight arenas per core, and memory that a thread frees stays in its arena. Each arena would grow to the
    size of the largest images. Their sum would grow for hours: 0.18 GB more after 2,000 mixed calls (2 cores, 2026-11).
    The environment must hold the limit, because libraries' threads take arenas while they are imported.
    """
    os.environ.setdefault("MALLOC_ARENA_MAX", str(cores(0)))
