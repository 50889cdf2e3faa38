"""How many threads and images the CPU computes at a time."""

from __future__ import annotations

import os
from typing import Final

MOST_SIDE_BY_SIDE: Final = 4  # images; each needs its own memory, so more cores do not raise it


def cores(threads: int) -> int:
    """The number of computing threads. threads: the setting; 0 = one for each core that the process may use."""
    available = len(os.sched_getaffinity(0))
    return min(threads or available, available)


def side_by_side(threads: int) -> int:
    """How many images OpenVINO computes at a time. threads: as in `cores`."""
    return min(MOST_SIDE_BY_SIDE, cores(threads))
