"""How many threads and images a CPU computes at a time."""

from __future__ import annotations

import os
from typing import Final

MOST_SIDE_BY_SIDE: Final = 4  # images, on whatever processor: each takes memory of its own


def cores(threads: int) -> int:
    """How many threads compute at a time. threads: a setting, 0 = as many as the process may use cores."""
    available = len(os.sched_getaffinity(0))
    return min(threads or available, available)


def side_by_side(threads: int) -> int:
    """How many images OpenVINO computes at a time on so many threads."""
    return min(MOST_SIDE_BY_SIDE, cores(threads))
