"""What happens under overload: how many requests are in time, late or refused, and do other routes suffer?

usage: python -m benchmarks.overload PICTURE [--seconds 40] [--factors 0.5 1 2 4] [--only MODEL ...]

Starts the service and measures each route's capacity with eight callers. Then sends requests at multiples of it,
without waiting for answers (open loop). Meanwhile the other routes together get two requests a second. Prints Markdown.
Needs the models in the store (make import).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np

from benchmarks.load import Question, put
from benchmarks.serving import serving
from models.catalogue import CATALOGUE, ModelName
from models.store import borrowed_home

_CAPACITY_S: Final = 8.0
_OTHERS_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 30.0  # limits.request_timeout_s; later answers are late
_GIVE_UP: Final = aiohttp.ClientTimeout(total=60)


Seen = list[tuple[int, float]]  # each request's status (0 for a broken connection) and duration in seconds


def seconds_of(seen: Seen, status: int) -> list[float]:
    return [seconds for each, seconds in seen if each == status]


def late(seen: Seen) -> int:
    """The number of requests that were answered late or failed. Refusals (429) don't count."""
    return sum(seconds > _TIMEOUT_S if status == 200 else status != 429 for status, seconds in seen)


async def flood(session: aiohttp.ClientSession, question: Question, per_second: float, seconds: float) -> Seen:
    """Send `per_second` requests for `seconds`, and wait for all answers."""
    seen: Seen = []
    began = time.perf_counter()
    tasks = []
    for number in range(round(per_second * seconds)):
        await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        tasks.append(asyncio.create_task(_ask(session, question, seen)))
    await asyncio.gather(*tasks)
    return seen


async def _ask(session: aiohttp.ClientSession, question: Question, seen: Seen) -> None:
    sent = time.perf_counter()
    try:
        async with session.post(question.route, data=question.body) as response:
            await response.read()
            status = response.status
    except (aiohttp.ClientError, TimeoutError):
        status = 0
    seen.append((status, time.perf_counter() - sent))


async def overload(url: str, image: bytes, name: ModelName, per_second: float, seconds: float) -> tuple[Seen, Seen]:
    """The outcomes of the flooded route, and those of the other routes."""
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        url, timeout=_GIVE_UP, headers=headers, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        others = [Question.of(CATALOGUE[other].route, image) for other in CATALOGUE if other != name]
        floods = [flood(session, other, 1 / _OTHERS_EVERY_S / len(others), seconds) for other in others]
        flooded, *beside = await asyncio.gather(
            flood(session, Question.of(CATALOGUE[name].route, image), per_second, seconds), *floods
        )
    return flooded, [each for seen in beside for each in seen]


def row(name: ModelName, factor: float, capacity: float, seconds: float, flooded: Seen, others: Seen) -> str:
    """One line of the table."""
    answered, refused, served = seconds_of(flooded, 200), seconds_of(flooded, 429), seconds_of(others, 200)
    cells = (
        CATALOGUE[name].route,
        f"{factor:g} × {capacity:.1f}",
        f"{len(answered)} ({len(answered) / seconds:.1f}/s)",
        str(late(flooded)),
        f"{len(refused)} ({_ms(refused, 99)})",
        f"{_ms(answered, 50)}, {_ms(answered, 99)}",
        f"{len(served) / max(1, len(others)):.0%} ({_ms(served, 99)})",
    )
    return f"| {' | '.join(cells)} |"


def _ms(seconds: Sequence[float], percent: float) -> str:
    return f"{np.percentile(seconds, percent) * 1000:.0f} ms" if seconds else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--factors", type=float, nargs="*", default=[0.5, 1, 2, 4])
    parser.add_argument("--only", choices=CATALOGUE, nargs="*")
    arguments = parser.parse_args()
    image = arguments.picture.read_bytes()
    print(
        "| route | asked, × capacity /s | 200 | late or failed | 429 (p99) | p50, p99 of 200 | others answered (p99) |"
    )
    print("|---|---|---|---|---|---|---|")
    with borrowed_home() as home, serving(BENTOML_HOME=str(home)) as server:
        for name in arguments.only or list(CATALOGUE):
            capacity = put(server.url, [Question.of(CATALOGUE[name].route, image)], 8, _CAPACITY_S).per_second
            for factor in arguments.factors:
                flooded, others = asyncio.run(overload(server.url, image, name, factor * capacity, arguments.seconds))
                print(row(name, factor, capacity, arguments.seconds, flooded, others), flush=True)


if __name__ == "__main__":
    main()
