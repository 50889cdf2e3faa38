"""How fast does a server answer concurrent callers that each send the next request after an answer (closed loop)?"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
import numpy as np

_TIMEOUT: Final = aiohttp.ClientTimeout(total=120)


@dataclass(frozen=True)
class Question:
    """A request: a route and JSON with the image in base64, as the backend sends it."""

    route: str
    body: bytes

    @classmethod
    def of(cls, route: str, image: bytes) -> Question:
        return cls(route, json.dumps({"image_base64": base64.b64encode(image).decode()}).encode())


@dataclass(frozen=True)
class Load:
    """The result. seconds: duration. latencies: of answers with 200, in seconds. failures: other outcomes → count."""

    seconds: float
    latencies: Sequence[float]
    failures: Counter[str]

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """A percentile of the latencies in seconds; NaN without answers."""
        return float(np.percentile(self.latencies, percent)) if self.latencies else float("nan")


def put(url: str, questions: Sequence[Question], concurrency: int, seconds: float) -> Load:
    """Send `questions` in turn for so many seconds, `concurrency` at a time, over kept connections.

    It waits for the last answers and counts them, so that slow requests are included.
    """
    return asyncio.run(_put(url, questions, concurrency, seconds))


async def _put(url: str, questions: Sequence[Question], concurrency: int, seconds: float) -> Load:
    latencies: list[float] = []
    failures: Counter[str] = Counter()
    turn = itertools.cycle(questions)
    headers = {"Content-Type": "application/json"}

    async with aiohttp.ClientSession(
        url, timeout=_TIMEOUT, headers=headers, connector=aiohttp.TCPConnector(limit=0)
    ) as session:

        async def call() -> None:
            while time.perf_counter() < end:
                question = next(turn)
                sent = time.perf_counter()
                try:
                    async with session.post(question.route, data=question.body) as response:
                        await response.read()
                        outcome = str(response.status)
                except (aiohttp.ClientError, TimeoutError) as error:
                    outcome = type(error).__name__
                if outcome == "200":
                    latencies.append(time.perf_counter() - sent)
                else:
                    failures[outcome] += 1

        began = time.perf_counter()
        end = began + seconds
        await asyncio.gather(*(call() for _ in range(concurrency)))
        return Load(time.perf_counter() - began, latencies, failures)
