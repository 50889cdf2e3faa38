"""The signals between the supervisor and the API process: a heartbeat, and the signal of the last stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Final

#: Tells the API that the whole server ends. At a SIGTERM alone, a new API takes over the port.
LAST_STOP: Final = signal.SIGUSR2
HEARTBEAT_S: Final = 1.0
_PIPE: Final = "ENRICHMENT_LIGHT_HEARTBEAT_PIPE"  # environment of the API: the number of its end of the pipe


class Heartbeat:
    """The supervisor's end of a pipe by which the API process says that its event loop runs."""

    def __init__(self, hung_s: float) -> None:
        """hung_s: seconds of silence after which the API counts as hung."""
        self._hung_s = hung_s
        self._silent_s = 0.0
        self._pid: int | None = None
        self._end, of_api = os.pipe()
        for end in (self._end, of_api):
            os.set_blocking(end, False)
        os.set_inheritable(of_api, True)
        os.environ[_PIPE] = str(of_api)

    def hung(self, passed_s: float) -> int | None:
        """Return the pid of an API process that hangs, once per hang; else None.

        passed_s: planned seconds since the last call. So the time while the machine sleeps does not count as silence.
        """
        with contextlib.suppress(BlockingIOError):
            self._pid = int(os.read(self._end, 2**16).split()[-1])
            self._silent_s = 0
            return None
        self._silent_s += passed_s
        if self._silent_s < self._hung_s:
            return None
        hung, self._pid = self._pid, None
        return hung


async def beat() -> None:
    """Tell the supervisor each second that this event loop runs, as long as there is a supervisor."""
    if _PIPE not in os.environ:
        return
    with contextlib.suppress(BrokenPipeError):
        while True:
            with contextlib.suppress(BlockingIOError):  # the supervisor has not read for hours
                os.write(int(os.environ[_PIPE]), f"{os.getpid()}\n".encode())
            await asyncio.sleep(HEARTBEAT_S)
