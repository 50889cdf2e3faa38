"""Lowers the priority of background threads."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

PATIENCE: Final = 10  # nice value of background work: about a tenth of the CPU time of a thread at 0


def step_back() -> None:
    """Lower the priority of this thread, and of threads that it starts later. It can't be raised again.

    A thread of lower priority keeps its own. Where the system forbids it, a warning says so.
    """
    if not hasattr(os, "PRIO_PROCESS"):  # Windows
        return
    thread = threading.get_native_id()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, max(PATIENCE, os.getpriority(os.PRIO_PROCESS, thread)))
    except PermissionError:
        logger.warning("the system does not allow a lower thread priority: busy models slow down the others more")
