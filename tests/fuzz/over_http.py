"""The same pictures and bodies over HTTP: no 5xx, no trace or path in an answer, and /health stays quick."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from models.catalogue import CATALOGUE
from tests.fuzz import mutator, pictures
from tests.fuzz.findings import LEAK, Finding

#: The routes that take an image as the body.
ROUTES: Final = (
    *(spec.route for spec in CATALOGUE.values()),
    "/pose-analyze?render=overlay",
    "/depth-estimate?format=png8&colormap=turbo",
    "/object-distance?bbox=0,0,9,9",
    "/enrich",
    "/enrich?boxes=[[0,0,9,9],[4,4,30,30]]&render=overlay",
    "/person-reid/compare",
    "/person-reid/match",
)
_TYPES: Final = ("image/*", "application/octet-stream", "", "application/json", "multipart/form-data; boundary=X")
_POLL_S: Final = 0.05


@dataclass
class Outcome:
    """statuses: of all answers. refused_s, health_s: seconds of each refusal, and of each GET /health."""

    statuses: Counter[int] = field(default_factory=Counter)
    refused_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)


async def run(url: str, numbers: Iterable[int], concurrency: int = 8) -> Outcome:
    """Send the cases of these numbers. Raises Finding for the first answer that must not be."""
    seeds = pictures.seeds()
    cases = [(number, mutator.case(seeds, number)) for number in numbers]  # first, as times are measured in this thread
    outcome, todo, done = Outcome(), iter(cases), asyncio.Event()
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(60)) as session:

        async def send() -> None:
            for number, data in todo:
                await _one(session, number, data, outcome)

        async def watch() -> None:
            while not done.is_set():
                began = time.perf_counter()
                async with session.get("/health") as response:
                    await response.read()
                outcome.health_s.append(time.perf_counter() - began)
                await asyncio.sleep(_POLL_S)

        watching = asyncio.create_task(watch())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(send())
        except* Finding as found:
            raise found.exceptions[0] from None
        finally:
            done.set()
            await watching
    return outcome


async def _one(session: aiohttp.ClientSession, number: int, data: bytes, outcome: Outcome) -> None:
    dice = random.Random(number)
    route = dice.choice(ROUTES)
    content_type = _TYPES[0] if dice.random() < 0.8 else dice.choice(_TYPES)
    began = time.perf_counter()
    async with session.post(route, data=data, headers={"Content-Type": content_type}) as response:
        body = await response.read()
    outcome.statuses[response.status] += 1
    if response.status >= 400:
        outcome.refused_s.append(time.perf_counter() - began)
        if "error" not in json.loads(body) or LEAK.search(body.decode()):
            raise Finding(f"case {number} to {route}: {body[:500]!r}")
    if response.status >= 500:
        raise Finding(f"case {number} to {route}: {response.status} {body[:500]!r}")
    if response.content_type == "application/json":
        json.loads(body, parse_constant=lambda name: _refuse(number, route, name))


def _refuse(number: int, route: str, name: str) -> None:
    raise Finding(f"case {number} to {route}: {name} stands in the answer")
