"""Lowers the priority of background threads."""

from __future__ import annotations

import os
import threading
from typing import Final

PATIENCE: Final = 10  # nice value of background work: about a tenth of the CPU time of a thread at 0


def step_back() -> None:
    """Lower the priority of this thread, and of threads that it starts later. It can't be raised again."""
    if hasattr(os, "PRIO_PROCESS"):  # not on Windows
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PATIENCE)
