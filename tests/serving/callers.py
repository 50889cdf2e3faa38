"""Callers who ask a server at the same time, and note what becomes of each request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from tests.serving import fake
from tests.serving.pictures import encoded, plain

ANSWERED: Final = "answered"
WRONG: Final = "wrong"
REFUSED: Final = "refused"  # no connection
RESET: Final = "reset"  # a connection that ended without an answer
UNAVAILABLE: Final = "503 with Retry-After"
OVERLOADED: Final = "429 with Retry-After"
_SIZE: Final = (1200, 900)  # so that some are being decoded at any time


@dataclass(frozen=True)
class Outcome:
    """What became of a request. began: by time.monotonic(). seconds: until then."""

    what: str
    began: float
    seconds: float

    @property
    def ended(self) -> float:
        return self.began + self.seconds


class Callers:
    """Callers of /person-reid, each with a picture of its own colour. Every second one keeps its connection."""

    def __init__(self, url: str, count: int, *, until_refused: bool = False) -> None:
        """until_refused: a caller who finds the port closed asks no more."""
        self.outcomes: list[Outcome] = []
        self._url = url
        self._until_refused = until_refused
        self._tasks = [asyncio.create_task(self._ask_on(number)) for number in range(count)]

    @property
    def counts(self) -> Counter[str]:
        return Counter(outcome.what for outcome in self.outcomes)

    def since(self, moment: float) -> Counter[str]:
        """What became of the requests that ended after a moment, by time.monotonic()."""
        return Counter(outcome.what for outcome in self.outcomes if outcome.ended > moment)

    async def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait while the callers go on. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.05)
                if failed := [task for task in self._tasks if task.done() and task.exception()]:
                    failed[0].result()

    async def answers(self, count: int, seconds: float) -> None:
        """Wait for so many further answers. Raises TimeoutError."""
        wanted = self.counts[ANSWERED] + count
        await self.wait(lambda: self.counts[ANSWERED] >= wanted, seconds)

    async def end(self) -> None:
        """End all callers; what is under way is not noted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def refused(self, seconds: float) -> None:
        """Wait until every caller was refused. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await asyncio.gather(*self._tasks)

    async def _ask_on(self, number: int) -> None:
        colour = (number, 200 - number, 7)
        image = encoded(plain(colour, _SIZE))
        connector = aiohttp.TCPConnector(force_close=number % 2 == 0)
        async with aiohttp.ClientSession(self._url, connector=connector) as session:
            while True:
                began = time.monotonic()
                what = await _what(lambda: _asked(session, image, colour))
                self.outcomes.append(Outcome(what, began, time.monotonic() - began))
                if what == REFUSED and self._until_refused:
                    return
                # Asked again without a pause after refusals, they would leave a starting process no core.
                await asyncio.sleep(0.02 if what == ANSWERED else 0.2)


async def _asked(session: aiohttp.ClientSession, image: bytes, colour: fake.Colour) -> str:
    headers = {"content-type": "image/png"}
    async with session.post("/person-reid", data=image, headers=headers) as response:
        body: dict[str, Any] = await response.json()
        if response.status == 200:
            return ANSWERED if fake.colour_of(body["embedding"]) == colour else WRONG
        if response.status in (429, 503) and "retry-after" in response.headers:
            return UNAVAILABLE if response.status == 503 else OVERLOADED
        return f"{response.status} {body['error']['code']}"


async def _what(asked: Callable[[], Awaitable[str]]) -> str:
    try:
        return await asked()
    except aiohttp.ClientConnectorError:
        return REFUSED
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
        return RESET
