"""How many threads and images the CPU computes at a time."""

from __future__ import annotations

import os
from typing import Final

_FEWEST_DECODED, _MOST_DECODED = 2, 8  # images; a slow one does not hold up all others, and threads share one GIL
MOST_SIDE_BY_SIDE: Final = 4  # images; each needs its own memory, so more cores do not raise it


def cores(threads: int) -> int:
    """The number of computing threads. threads: the setting; 0 = one for each core that the process may use."""
    available = len(os.sched_getaffinity(0))
    return min(threads or available, available)


def decoded_at_a_time(threads: int) -> int:
    """How many images the API decodes, resizes or encodes at a time. threads: as in `cores`."""
    return min(max(cores(threads), _FEWEST_DECODED), _MOST_DECODED)


def side_by_side(threads: int) -> int:
    """How many images OpenVINO computes at a time. threads: as in `cores`."""
    return min(MOST_SIDE_BY_SIDE, cores(threads))
