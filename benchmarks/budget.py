"""Does the service stay correct and within its memory budget if the budget is too small for all five models?

usage: python -m benchmarks.budget FOLDER [--requests 2000] [--concurrency 16] [--budget-mb 1200]

FOLDER has pictures. First starts a server without a budget, for the expected answers. Then starts one with the budget,
for a mixed load. Needs the models in the store (make import).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
import psutil

from benchmarks.agreement import Disagreement, difference
from benchmarks.serving import serving
from models.catalogue import CATALOGUE

Body = dict[str, Any]
ROUTES: Final = tuple(spec.route for spec in CATALOGUE.values())
_ANNOUNCED: Final = {"model_unavailable", "overloaded"}
_SEED: Final = 3
_UNLOADED: Final = re.compile(r"(\w+) left [^:]+: (\d+) MB before, (\d+) MB after")


@dataclass(frozen=True)
class Request:
    route: str
    picture: int


@dataclass
class Outcome:
    """The result of a load. memory_mb: of the engines' process, as in /health, 20 times a second."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    sizes_mb: dict[str, int] = field(default_factory=dict)
    loads: dict[str, int] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def unannounced(self) -> int:
        """The number of requests with neither an answer nor an announced refusal."""
        return sum(count for status, count in self.statuses.items() if status not in {"200", *_ANNOUNCED})


def mix(count: int, pictures: int) -> list[Request]:
    """`count` random requests over all routes and pictures, the same ones in every run."""
    rng = random.Random(_SEED)
    return [Request(rng.choice(ROUTES), rng.randrange(pictures)) for _ in range(count)]


async def answers(url: str, pictures: Sequence[bytes]) -> dict[Request, Body]:
    """Ask each route about each picture, one request at a time."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        found = {}
        for route in ROUTES:
            for number, picture in enumerate(pictures):
                response = await client.post(route, files={"image": picture})
                found[Request(route, number)] = response.raise_for_status().json()
        return found


async def load(
    url: str,
    pictures: Sequence[bytes],
    requests: Sequence[Request],
    expected: dict[Request, Body],
    compare: Callable[[str, Body, Body], object],
    concurrency: int,
) -> Outcome:
    """Send all requests, `concurrency` at a time. `compare` raises Disagreement for a wrong answer."""
    outcome = Outcome()
    todo = iter(requests)
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def worker() -> None:
            for request in todo:
                began = time.perf_counter()
                response = await client.post(request.route, files={"image": pictures[request.picture]})
                outcome.seconds.append(time.perf_counter() - began)
                body = response.json()
                code = str(response.status_code) if response.status_code < 400 else body["error"]["code"]
                outcome.statuses[code] += 1
                if code == "200":
                    try:
                        compare(request.route, expected[request], body)
                    except Disagreement as error:
                        outcome.wrong.append(f"{request}: {error}")

        (runner,) = (await client.get("/health")).json()["runners"]
        process = psutil.Process(runner["pid"])
        base_mb = process.memory_info().rss / 1e6 - runner["memory"]["used_mb"]

        async def watch() -> None:
            while True:
                outcome.memory_mb.append(process.memory_info().rss / 1e6 - base_mb)
                await asyncio.sleep(0.05)

        began = time.perf_counter()
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(worker() for _ in range(concurrency)))
        outcome.took_s = time.perf_counter() - began
        watching.cancel()
        await asyncio.sleep(1.5)  # for the last heartbeat
        found = (await client.get("/health")).json()["models"]
        models = {name: found[name] for name in CATALOGUE}
        outcome.loads = {name: model["loads"] for name, model in models.items()}
        outcome.sizes_mb = {name: model["memory_mb"] for name, model in models.items() if model["memory_mb"]}
    return outcome


def given_back(log: str) -> dict[str, list[tuple[float, float]]]:
    """Model → MB of the process before and after each of its unloads, from the runner's log."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, before, after in _UNLOADED.findall(log):
        found.setdefault(name, []).append((float(before), float(after)))
    return found


def table(outcome: Outcome, budget_mb: int, log: str) -> str:
    """The outcome as Markdown."""
    unloads = {name: median(before - after for before, after in pairs) for name, pairs in given_back(log).items()}
    seconds = sorted(outcome.seconds)
    largest = max(outcome.sizes_mb.values())
    rows = {
        "requests, answers": f"{sum(outcome.statuses.values())}, {dict(outcome.statuses)}",
        "wrong answers; unannounced errors": f"{len(outcome.wrong)}; {outcome.unannounced}",
        "budget; most memory taken; largest model": f"{budget_mb}; {max(outcome.memory_mb):.0f}; {largest} MB",
        "sizes measured at loading": ", ".join(f"{name} {size}" for name, size in outcome.sizes_mb.items()) + " MB",
        "given back by an unload, median": ", ".join(f"{name} {size:.0f}" for name, size in unloads.items()) + " MB",
        "loads": f"{sum(outcome.loads.values())} in {outcome.took_s:.0f} s: {outcome.loads}",
        "p50, p99 of a request": f"{seconds[len(seconds) // 2]:.2f} s, {seconds[len(seconds) * 99 // 100]:.2f} s",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--budget-mb", type=int, default=1200)
    arguments = parser.parse_args()
    pictures = [path.read_bytes() for path in sorted(arguments.folder.iterdir()) if path.suffix in {".jpg", ".png"}]
    with serving() as server:
        expected = asyncio.run(answers(server.url, pictures))
    limited = {"ENRICHMENT_MEMORY_BUDGET_MB": str(arguments.budget_mb), "ENRICHMENT_LIGHT_PRELOAD_MODELS": ""}
    with serving(**limited) as server:
        requests = mix(arguments.requests, len(pictures))
        outcome = asyncio.run(load(server.url, pictures, requests, expected, difference, arguments.concurrency))
        print(table(outcome, arguments.budget_mb, server.log))
    print(*outcome.wrong[:10], sep="\n")


if __name__ == "__main__":
    main()
