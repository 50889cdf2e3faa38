"""Does the service stay right, quick and of one size under hours of mixed calls, a part of them broken?

usage: python -m benchmarks.endurance [--minutes 60] [--requests 100000] [--service service:EnrichmentLight]

All routes, formats and sizes. 5 % of the calls are a mistake, 2 % hang up, 1 % send slowly; 8 and 32 at a time in turn.
Right answers are those of the start. With --requests it ends after so many calls, and with --minutes after that time.
Ends with status 1 unless all criteria hold. SIGUSR1 prints the figures so far. Needs the models in the store;
tests.serving.fake_service:EnrichmentLight doesn't.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import numpy as np

from benchmarks import calls
from benchmarks.calls import Call
from benchmarks.references import unlike
from benchmarks.serving import serving
from benchmarks.slopes import Samples

_WRONG, _HANG_UP, _SLOW = 0.05, 0.02, 0.01  # shares of all calls
_PHASE_S: Final = 10.0
_CONCURRENCY: Final = (8, 32)
_SLOW_S: Final = 2.0  # a slow caller's body takes this long
_CANARY_S: Final = 5.0
_REFUSED: Final = (429, 503)  # announced, with Retry-After
# Marks in an answer that one model is missing because it had no time.
_LEFT_OUT: Final = re.compile(rb'"code":"(?:overloaded|timeout)"|"person_in_view":null')
_LONGER: Final = 1.2  # the last quarter's 99th percentile, as a multiple of the first's
_REFUSAL: Final = "refused"
_SHOWN: Final = 10
_TOLD: Final = 6  # phases between two progress lines

Point = tuple[float, float]  # seconds since the start, and a value


@dataclass
class Outcome:
    """What came of all calls.

    refused: by status, or "in part". canaries: what was at fault with each. latencies: concurrency → seconds of right
    answers. loads: the machine's load averages.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    refused: Counter[int | str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    canaries: list[str | None] = field(default_factory=list)
    latencies: dict[int, list[Point]] = field(default_factory=dict)
    loads: list[Point] = field(default_factory=list)

    def slowest(self, seconds: float) -> dict[int, tuple[float, float]]:
        """Concurrency → the 99th percentile in s, in the first and the last quarter of the time."""
        quarters = {concurrency: _quarters(points, seconds) for concurrency, points in self.latencies.items()}
        return {
            concurrency: (float(np.percentile(first, 99)), float(np.percentile(last, 99)))
            for concurrency, (first, last) in sorted(quarters.items())
            if first and last
        }

    @property
    def _canaries_at_fault(self) -> int:
        return sum(fault not in {None, _REFUSAL} for fault in self.canaries)

    def faults(self, seconds: float) -> list[str]:
        """Say which criteria don't hold."""
        found = [f"{len(some)} {what}" for what, some in (("wrong", self.wrong), ("lost", self.lost)) if some]
        if bad := self._canaries_at_fault:
            found.append(f"{bad} canaries at fault")
        for concurrency, (begin, end) in self.slowest(seconds).items():
            if end > _LONGER * begin:
                found.append(f"p99 at {concurrency}: {end / begin:.2f} × the beginning, {_LONGER} allowed")
        return found

    def table(self, seconds: float) -> str:
        """The outcome as Markdown."""
        begin, end = (f"{np.mean(some):.1f}" if some else "–" for some in _quarters(self.loads, seconds))
        canaries = f"{len(self.canaries)}, {self._canaries_at_fault} at fault, {self.canaries.count(_REFUSAL)} refused"
        rows = {
            "calls": f"{self.kinds.total()} in {seconds:.0f} s: {dict(self.kinds)}",
            "wrong; lost; refused": f"{len(self.wrong)}; {len(self.lost)}; {dict(self.refused)}",
            "canaries": canaries,
            "load average of the machine, first → last quarter": f"{begin} → {end}",
        }
        for concurrency, (first, last) in self.slowest(seconds).items():
            rows[f"p99 at {concurrency}, first → last quarter"] = f"{first:.2f} → {last:.2f} s ({last / first:.2f} ×)"
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _quarters(points: Sequence[Point], seconds: float) -> tuple[list[float], list[float]]:
    first = [value for at, value in points if at < seconds / 4]
    return first, [value for at, value in points if at >= seconds * 3 / 4]


class Load:
    """Calls for a server, and what its answers have to be."""

    def __init__(self, session: aiohttp.ClientSession, seed: int) -> None:
        self._session = session
        self._dice = random.Random(seed)
        self._right: Sequence[Call] = ()
        self._shares: Sequence[int] = ()  # of the right calls, added up
        self._mistakes: Sequence[Call] = ()
        self._references: Mapping[Call, bytes] = {}
        self._began = time.monotonic()
        self.outcome = Outcome()

    async def learn(self) -> None:
        """Ask every call once, one at a time. Raises RuntimeError if one is not answered as it should be."""
        files = calls.pictures()
        embedded = [json.loads(await self._expected(call)) for call in calls.embeddings(files)]
        self._right, self._mistakes = calls.right(files, embedded), calls.wrong(files)
        self._shares = list(itertools.accumulate(call.share for call in self._right))
        self._references = {call: await self._expected(call) for call in (*self._right, *self._mistakes)}
        self._began = time.monotonic()

    async def _expected(self, call: Call) -> bytes:
        status, _, body = await self._ask(call)
        if status != call.status:
            raise RuntimeError(f"{call.path} was answered {status} at the start: {body[:300]!r}")
        return body

    async def put(self, seconds: float, most: float) -> None:
        """Send calls for so long, or `most` calls, and a canary every few seconds beside them."""
        watching = asyncio.create_task(self._canary())
        end = time.monotonic() + seconds
        phase = 0
        while time.monotonic() < end and self.outcome.kinds.total() < most:
            concurrency = _CONCURRENCY[phase % len(_CONCURRENCY)]
            until = min(end, time.monotonic() + _PHASE_S)
            await asyncio.gather(*(self._caller(concurrency, until, most) for _ in range(concurrency)))
            phase += 1
            if phase % _TOLD == 0:
                told = f"{self.outcome.kinds.total()} calls after {time.monotonic() - self._began:.0f} s"
                print(f"{told}: {len(self.outcome.wrong)} wrong, {len(self.outcome.lost)} lost", file=sys.stderr)
        _stop(watching)

    async def _caller(self, concurrency: int, until: float, most: float) -> None:
        while time.monotonic() < until and self.outcome.kinds.total() < most:
            share = self._dice.random()
            if share < _HANG_UP:
                await self._hang_up(self._any_right())
                continue
            slow = share < _HANG_UP + _SLOW
            mistake = _HANG_UP + _SLOW <= share < _HANG_UP + _SLOW + _WRONG
            call = self._dice.choice(self._mistakes) if mistake else self._any_right()
            self.outcome.kinds["slow" if slow else "mistakes" if mistake else "right"] += 1
            began = time.monotonic()
            fault = await self._fault(call, slow=slow)
            if fault is None and not slow and not mistake:
                took = (began - self._began, time.monotonic() - began)
                self.outcome.latencies.setdefault(concurrency, []).append(took)

    def _any_right(self) -> Call:
        return self._dice.choices(self._right, cum_weights=self._shares)[0]

    async def _fault(self, call: Call, *, slow: bool = False) -> str | None:
        """Send a call; note and return what is wrong with its answer."""
        try:
            status, announced, body = await self._ask(call, slow=slow)
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = f"{call.path}: {error!r}"
            self.outcome.lost.append(fault)
            return fault
        difference = f"{status} {body[:200]!r}" if status != call.status else None
        if status == call.status == 200 and not call.varies:
            difference = unlike(self._references[call], body)
        if difference is None:
            return None
        if status in _REFUSED and announced:
            self.outcome.refused[status] += 1
            return _REFUSAL
        if status == 200 and Counter(_LEFT_OUT.findall(body)) - Counter(_LEFT_OUT.findall(self._references[call])):
            self.outcome.refused["in part"] += 1
            return _REFUSAL
        self.outcome.wrong.append(f"{call.path}: {difference}")
        return difference

    async def _ask(self, call: Call, *, slow: bool = False) -> tuple[int, bool, bytes]:
        """Return the status, whether there is a Retry-After, and the body."""
        headers = {"Content-Type": call.content_type} if call.content_type else {}
        data = _slowly(call.body) if slow and call.body is not None else call.body
        async with self._session.request(call.method, call.path, data=data, headers=headers) as response:
            return response.status, "Retry-After" in response.headers, await response.read()

    async def _hang_up(self, call: Call) -> None:
        """Send half of a call, or the whole one, and close the connection without waiting for the answer."""
        self.outcome.kinds["hung up"] += 1
        url = self._session._base_url
        assert url is not None
        _, writer = await asyncio.open_connection(url.host, url.port)
        body = call.body or b""
        head = f"{call.method} {call.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {call.content_type}\r\n"
        sent = body[: len(body) // 2] if self._dice.random() < 0.5 else body
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + sent)
        await asyncio.sleep(0.02)
        writer.close()

    async def _canary(self) -> None:
        call = next(call for call in self._right if call.path == "/person-reid")
        while True:
            self.outcome.canaries.append(await self._fault(call))
            self.outcome.loads.append((time.monotonic() - self._began, os.getloadavg()[0]))
            await asyncio.sleep(_CANARY_S)


def _stop(task: asyncio.Task[None]) -> None:
    """End an endless task. Raises what it may have failed with."""
    if not task.cancel():
        task.result()


async def _slowly(body: bytes) -> AsyncIterator[bytes]:
    step = len(body) // 10 + 1
    for place in range(0, len(body), step):
        yield body[place : place + step]
        await asyncio.sleep(_SLOW_S / 10)


async def _run(url: str, pid: int, seconds: float, requests: float, seed: int) -> Sequence[str]:
    """Print what came of the calls. Return the criteria that don't hold."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(120), connector=connector) as session:
        load = Load(session, seed)
        await load.learn()
        samples = Samples(pid, load.outcome.kinds.total)
        watching = asyncio.create_task(samples.watch(session))
        began = time.monotonic()
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGUSR1, lambda: _tell(load.outcome, samples, time.monotonic() - began)
        )
        await load.put(seconds, requests)
        took = time.monotonic() - began
        _stop(watching)
    _tell(load.outcome, samples, took)
    return [*load.outcome.faults(took), *samples.growing()]


def _tell(outcome: Outcome, samples: Samples, seconds: float) -> None:
    late = samples.late() or ["none"]
    print(outcome.table(seconds), samples.table(), "series that appeared in the last half:", sep="\n\n")
    print(*late, *outcome.wrong[:_SHOWN], *outcome.lost[:_SHOWN], sep="\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="default: 60, or without end if --requests is given")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--service", default="service:EnrichmentLight")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    minutes = arguments.minutes or (60 if arguments.requests is None else math.inf)
    most = math.inf if arguments.requests is None else arguments.requests
    with serving(("bentoml", "serve", arguments.service), ENRICHMENT_DEEPSTACK="true") as server:
        faults = asyncio.run(_run(server.url, server.pid, 60 * minutes, most, arguments.seed))
    print("all criteria hold" if not faults else f"what does not hold: {'; '.join(faults)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
