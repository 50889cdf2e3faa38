"""A model's last batches and latencies, for /models: a limited number of each."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict

import numpy as np

BATCHES: Final = 50
LATENCIES: Final = 200


class RecentBatches:
    """The sizes of the last batches of a runner. Thread-safe.

    The images of a batch may belong to several requests. They share the times at which the batch began, so that each
    batch is counted once.
    """

    def __init__(self) -> None:
        self._sizes: OrderedDict[tuple[int, int], int] = OrderedDict()  # by the times of tasks.task.Timing
        self._lock = threading.Lock()

    def note(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Count the batches of these results. Failures tell no batch."""
        timings = [result["timing"] for result in results if "timing" in result]
        with self._lock:
            for timing in timings:
                self._sizes[timing["taken"], timing["loaded"]] = timing["batch"]
            while len(self._sizes) > BATCHES:
                self._sizes.popitem(last=False)

    @property
    def sizes(self) -> dict[int, int]:
        """Size → number of batches, the smallest size first."""
        with self._lock:
            return dict(sorted(Counter(self._sizes.values()).items()))


class Latency(TypedDict):
    """Quantiles of the last latencies in ms, None without samples."""

    p50: float | None
    p95: float | None
    samples: int


class RecentLatencies:
    """The latencies of the last answered requests. For one thread."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=LATENCIES)

    def note(self, seconds: float) -> None:
        """Add an answered request's latency."""
        self._seconds.append(seconds)

    @property
    def summary(self) -> Latency:
        """The quantiles, with linear interpolation between samples."""
        if not self._seconds:
            return {"p50": None, "p95": None, "samples": 0}
        p50, p95 = np.percentile(np.array(self._seconds) * 1000, (50, 95))
        return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "samples": len(self._seconds)}
