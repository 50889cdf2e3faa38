"""Does a server grow? Memory, descriptors and threads of each process, and Prometheus series, over its calls."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
import numpy as np
import psutil

_EVERY_S: Final = 5.0
_MONTH_H: Final = 30 * 24
_BLOCKS: Final = 20  # neighbouring samples depend on each other, means of blocks hardly
_T_95: Final = 2.10  # Student's t of 20 - 2 degrees of freedom, two-sided
_SERIES: Final = "Prometheus series"
_BUCKET: Final = re.compile(r',?le="[^"]*"')
#: Growth in the last half of the calls up to these limits counts as none. It comes from more pictures at a time than
#: before, from more connections, or from a status that no route had answered yet.
LARGEST: Final = {"memory, MB": 10, "descriptors": 3, "threads": 3, _SERIES: 40}


@dataclass(frozen=True)
class Sample:
    """A measured value. seconds, calls: since the start."""

    seconds: float
    calls: int
    value: float


@dataclass(frozen=True)
class Slope:
    """A slope, and half of the width of its 95 % interval."""

    value: float
    within: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} ± {self.within:.2f}"

    def times(self, factor: float) -> Slope:
        """The slope in another unit."""
        return Slope(self.value * factor, self.within * factor)


def slope(xs: Sequence[float], ys: Sequence[float]) -> Slope:
    """Return the slope by least squares through the means of 20 blocks. Raises ValueError for fewer than 20 points."""
    if len(xs) < _BLOCKS:
        raise ValueError(f"{len(xs)} samples; {_BLOCKS} are needed")
    x, y = (np.array([block.mean() for block in np.array_split(np.asarray(data), _BLOCKS)]) for data in (xs, ys))
    spread = float(((x - x.mean()) ** 2).sum())
    steepness = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    rest = y - y.mean() - steepness * (x - x.mean())
    return Slope(steepness, _T_95 * float(np.sqrt((rest**2).sum() / (_BLOCKS - 2) / spread)))


class Samples:
    """What was measured, by name."""

    def __init__(self, pid: int, calls: Callable[[], int]) -> None:
        """calls: returns the number of calls so far."""
        self._pid = pid
        self._calls = calls
        self._began = time.monotonic()
        self.values: dict[str, list[Sample]] = {}
        self._series: dict[str, int] = {}  # labels of a series → calls when it appeared

    async def watch(self, session: aiohttp.ClientSession) -> None:
        """Measure until cancelled."""
        while True:
            self._processes()
            async with session.get("/metrics") as response:
                self.note_metrics(await response.text())
            await asyncio.sleep(_EVERY_S)

    def _processes(self) -> None:
        parent = psutil.Process(self._pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # a helper of BentoML that has just ended
                name = f"{'supervisor' if process is parent else _service(process)} {process.pid}"
                self.note(f"{name}: memory, MB", process.memory_info().rss / 1e6)
                self.note(f"{name}: descriptors", process.num_fds())
                self.note(f"{name}: threads", process.num_threads())

    def note_metrics(self, text: str) -> None:
        """Count the series of a scrape, and keep when each appeared."""
        series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
        for one in series:
            self._series.setdefault(_BUCKET.sub("", one), self._calls())
        self.note(_SERIES, len(series))

    def note(self, name: str, value: float) -> None:
        """Keep a value of now."""
        self.values.setdefault(name, []).append(Sample(time.monotonic() - self._began, self._calls(), value))

    def late(self) -> list[str]:
        """Labels of the series that appeared in the last half of the calls."""
        half = self._calls() / 2
        return sorted({one.partition("{")[2].rstrip("}") for one, calls in self._series.items() if calls > half})

    def table(self) -> str:
        """The slopes of the last half of the calls, as Markdown."""
        rows = [
            "| | begin | half | end | 1,000 calls add | 30 days would add, taken literally |",
            "|---|---|---|---|---|---|",
        ]
        for name, samples, half in self._halves():
            cells = [f"{sample.value:.0f}" for sample in (samples[0], (half or samples)[0], samples[-1])]
            grown = ["–", "–"]
            if len(half) >= _BLOCKS:
                month = _by_hours(half).times(_MONTH_H)
                grown = [str(_by_calls(half)), f"{month.value:+,.0f} ± {month.within:,.0f}"]
            rows.append(f"| {name} | {' | '.join([*cells, *grown])} |")
        return "\n".join(rows)

    def growing(self) -> list[str]:
        """Return the values that grew by more than LARGEST in the last half of the calls, by the slope's lower limit.

        Values with too few samples are returned, too.
        """
        found = []
        for name, _, half in self._halves():
            if len(half) < _BLOCKS and (half or name == _SERIES):  # a process may have ended before
                found.append(f"{name}: {len(half)} samples in the last half, {_BLOCKS} needed")
            elif half:
                grown, most = _by_calls(half), LARGEST[name.rpartition(": ")[2]]
                thousands = (half[-1].calls - half[0].calls) / 1000
                if (grown.value - grown.within) * thousands > most:
                    found.append(f"{name}: {grown} for 1,000 calls, {most / thousands:.2f} allowed")
        return found

    def _halves(self) -> Iterator[tuple[str, list[Sample], list[Sample]]]:
        for name, samples in self.values.items():
            yield name, samples, [sample for sample in samples if sample.calls >= self._calls() / 2]


def _service(process: psutil.Process) -> str:
    """The service that a process serves; "helper" if none."""
    arguments = process.cmdline()
    return arguments[arguments.index("--service-name") + 1] if "--service-name" in arguments else "helper"


def _by_calls(samples: Sequence[Sample]) -> Slope:
    return slope([sample.calls for sample in samples], [sample.value for sample in samples]).times(1000)


def _by_hours(samples: Sequence[Sample]) -> Slope:
    return slope([sample.seconds for sample in samples], [sample.value for sample in samples]).times(3600)
