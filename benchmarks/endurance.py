"""Does the service stay right, quick and of one size under hours of mixed calls, a part of them broken?

usage: python -m benchmarks.endurance [--minutes 60] [--service service:EnrichmentLight]

All routes, formats and sizes. 5 % of the calls are a mistake, 2 % hang up, 1 % send slowly; 8 and 32 at a time in turn.
Right answers are those of the start. Needs the models in the store; tests.serving.fake_service:EnrichmentLight doesn't.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import numpy as np

from benchmarks import calls
from benchmarks.calls import Call
from benchmarks.serving import serving
from benchmarks.slopes import Samples

_WRONG, _HANG_UP, _SLOW = 0.05, 0.02, 0.01  # shares of all calls
_PHASE_S: Final = 10.0
_CONCURRENCY: Final = (8, 32)
_SLOW_S: Final = 2.0  # a slow caller's body takes this long
_CANARY_S: Final = 5.0
_REFUSED: Final = (429, 503)  # announced, with Retry-After
_SHOWN: Final = 10


@dataclass
class Outcome:
    """What came of all calls. latencies: concurrency → (seconds since the start, seconds) of right answers."""

    kinds: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    canaries: list[str | None] = field(default_factory=list)
    latencies: dict[int, list[tuple[float, float]]] = field(default_factory=dict)


class Load:
    """Calls for a server, and what its answers have to be."""

    def __init__(self, session: aiohttp.ClientSession, seed: int) -> None:
        self._session = session
        self._dice = random.Random(seed)
        files = calls.pictures()
        self._right, self._mistakes = calls.right(files), calls.wrong(files)
        self._references: Mapping[Call, bytes] = {}
        self._began = time.monotonic()
        self.outcome = Outcome()

    async def learn(self) -> None:
        """Ask every right call once, one at a time. Raises RuntimeError if one is not answered."""
        found = {}
        for call in self._right:
            status, body = await self._ask(call)
            if status != call.status:
                raise RuntimeError(f"{call.path} was answered {status} at the start: {body[:300]!r}")
            found[call] = body
        self._references = found
        self._began = time.monotonic()

    async def put(self, seconds: float) -> None:
        """Send calls for so long, and a canary every few seconds beside them."""
        watching = asyncio.create_task(self._canary())
        end = time.monotonic() + seconds
        phase = 0
        while time.monotonic() < end:
            concurrency = _CONCURRENCY[phase % len(_CONCURRENCY)]
            until = min(end, time.monotonic() + _PHASE_S)
            await asyncio.gather(*(self._caller(concurrency, until) for _ in range(concurrency)))
            phase += 1
        watching.cancel()

    async def _caller(self, concurrency: int, until: float) -> None:
        while time.monotonic() < until:
            share = self._dice.random()
            if share < _HANG_UP:
                await self._hang_up(self._dice.choice(self._right))
                continue
            slow = share < _HANG_UP + _SLOW
            mistake = _HANG_UP + _SLOW <= share < _HANG_UP + _SLOW + _WRONG
            call = self._dice.choice(self._mistakes if mistake else self._right)
            self.outcome.kinds["slow" if slow else "mistakes" if mistake else "right"] += 1
            began = time.monotonic()
            fault = await self._fault(call, slow=slow)
            if fault is None and not slow and not mistake:
                took = (began - self._began, time.monotonic() - began)
                self.outcome.latencies.setdefault(concurrency, []).append(took)

    async def _fault(self, call: Call, *, slow: bool = False) -> str | None:
        """Send a call; note and return what is wrong with its answer."""
        try:
            status, body = await self._ask(call, slow=slow)
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = f"{call.path}: {error!r}"
            self.outcome.lost.append(fault)
            return fault
        if status in _REFUSED:
            self.outcome.refused[status] += 1
            return f"{status}"
        if status != call.status:
            fault = f"{call.path}: {status} {body[:200]!r}"
        elif status == 200 and (difference := self._unlike(call, body)) is not None:
            fault = f"{call.path}: {difference}"
        else:
            return None
        self.outcome.wrong.append(fault)
        return fault

    def _unlike(self, call: Call, body: bytes) -> str | None:
        return None if call.body is None else calls.unlike(self._references[call], body)  # states may change

    async def _ask(self, call: Call, *, slow: bool = False) -> tuple[int, bytes]:
        method, headers = ("GET", {}) if call.body is None else ("POST", {"Content-Type": call.content_type})
        data = _slowly(call.body) if slow and call.body is not None else call.body
        async with self._session.request(method, call.path, data=data, headers=headers) as response:
            return response.status, await response.read()

    async def _hang_up(self, call: Call) -> None:
        """Send half of a call, or the whole one, and close the connection without waiting for the answer."""
        self.outcome.kinds["hung up"] += 1
        url = self._session._base_url
        assert url is not None
        _, writer = await asyncio.open_connection(url.host, url.port)
        body = call.body or b""
        head = f"POST {call.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {call.content_type}\r\n"
        sent = body[: len(body) // 2] if self._dice.random() < 0.5 else body
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + sent)
        await asyncio.sleep(0.02)
        writer.close()

    async def _canary(self) -> None:
        call = next(call for call in self._right if call.path == "/person-reid")
        while True:
            self.outcome.canaries.append(await self._fault(call))
            await asyncio.sleep(_CANARY_S)


async def _slowly(body: bytes) -> AsyncIterator[bytes]:
    step = len(body) // 10 + 1
    for place in range(0, len(body), step):
        yield body[place : place + step]
        await asyncio.sleep(_SLOW_S / 10)


def table(outcome: Outcome, seconds: float) -> str:
    """The outcome as Markdown. Begin and end of the latencies are the first and the last quarter."""
    rows = {
        "calls": f"{outcome.kinds.total()} in {seconds:.0f} s: {dict(outcome.kinds)}",
        "wrong; lost; refused": f"{len(outcome.wrong)}; {len(outcome.lost)}; {dict(outcome.refused)}",
        "canaries": f"{len(outcome.canaries)}, {sum(fault is not None for fault in outcome.canaries)} at fault",
    }
    for concurrency, points in sorted(outcome.latencies.items()):
        quarter = seconds / 4
        first = [took for at, took in points if at < quarter]
        last = [took for at, took in points if at >= seconds - quarter]
        if first and last:
            begin, end = (np.percentile(some, 99) for some in (first, last))
            rows[f"p99 at {concurrency}, begin → end"] = f"{begin:.2f} → {end:.2f} s ({end / begin:.2f} ×)"
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


async def _run(url: str, pid: int, seconds: float, seed: int) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(120), connector=connector) as session:
        load = Load(session, seed)
        await load.learn()
        samples = Samples(pid)
        watching = asyncio.create_task(samples.watch(session))
        began = time.monotonic()
        await load.put(seconds)
        took = time.monotonic() - began
        watching.cancel()
    print(table(load.outcome, took), samples.table(), sep="\n\n")
    print(*load.outcome.wrong[:_SHOWN], *load.outcome.lost[:_SHOWN], sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--service", default="service:EnrichmentLight")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with serving(("bentoml", "serve", arguments.service)) as server:
        asyncio.run(_run(server.url, server.pid, 60 * arguments.minutes, arguments.seed))


if __name__ == "__main__":
    main()
