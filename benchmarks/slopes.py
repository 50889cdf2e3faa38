"""Does a server grow? Memory, descriptors and threads of each process, and Prometheus series, over time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

import aiohttp
import numpy as np
import psutil

_EVERY_S: Final = 2.0
_WARM: Final = 1 / 3  # of the time, in which caches fill
_MONTH_H: Final = 30 * 24


class Samples:
    """What was measured: name → (seconds since the start, value)."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = time.monotonic()
        self.values: dict[str, list[tuple[float, float]]] = {}

    async def watch(self, session: aiohttp.ClientSession) -> None:
        """Measure until cancelled."""
        while True:
            self._processes()
            async with session.get("/metrics") as response:
                lines = (await response.text()).splitlines()
            self._note("Prometheus series", sum(not line.startswith("#") for line in lines))
            await asyncio.sleep(_EVERY_S)

    def _processes(self) -> None:
        parent = psutil.Process(self._pid)
        family = [parent, *sorted(parent.children(recursive=True), key=lambda process: process.pid)]
        for number, process in enumerate(family):
            with contextlib.suppress(psutil.NoSuchProcess):  # a helper of BentoML that has just ended
                self._note(f"process {number}: memory, MB", process.memory_info().rss / 1e6)
                self._note(f"process {number}: descriptors", process.num_fds())
                self._note(f"process {number}: threads", process.num_threads())

    def _note(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append((time.monotonic() - self._began, value))

    def table(self) -> str:
        """The slopes as Markdown. The first third is warm-up: it counts for the first value only."""
        rows = ["| | begin | warm | end | per hour | 30 days would add |", "|---|---|---|---|---|---|"]
        for name, points in self.values.items():
            warm = points[int(len(points) * _WARM) :]
            slope = per_hour(warm)
            cells = (points[0][1], warm[0][1], points[-1][1])
            rows.append(
                f"| {name} | {' | '.join(f'{cell:.0f}' for cell in cells)} | {slope:+.1f} | {slope * _MONTH_H:+.0f} |"
            )
        return "\n".join(rows)


def per_hour(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of (seconds, value) points by least squares, per hour; 0 for fewer than three."""
    if len(points) < 3:
        return 0.0
    seconds, values = np.array(points).T
    return float(np.polyfit(seconds, values, 1)[0]) * 3600
