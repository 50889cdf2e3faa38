"""How threads share the processor."""

from __future__ import annotations

import os
import threading
from typing import Final

PATIENCE: Final = 10  # by how much work that may wait steps back (nice): 10 has a tenth of the time beside 0


def step_back() -> None:
    """Let this thread, and those that it will start, leave the processor to others that want it. For good."""
    if hasattr(os, "PRIO_PROCESS"):  # not on Windows
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PATIENCE)
