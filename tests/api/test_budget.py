from __future__ import annotations

import asyncio

import pytest

from api.budget import PixelBudget


async def test_who_finds_too_little_waits_until_somebody_gives_back() -> None:
    budget = PixelBudget(100)
    order: list[str] = []

    async def request(name: str, pixels: int, work: asyncio.Event) -> None:
        async with budget.hold(pixels):
            order.append(name)
            await work.wait()

    first, rest = asyncio.Event(), asyncio.Event()
    rest.set()
    tasks = [asyncio.create_task(request("large", 80, first)), asyncio.create_task(request("small", 20, rest))]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(request("waiting", 30, rest)))
    await asyncio.sleep(0.01)
    assert order == ["large", "small"]
    first.set()
    await asyncio.gather(*tasks)
    assert order == ["large", "small", "waiting"]


@pytest.mark.parametrize("holding", [True, False])
async def test_a_cancelled_request_takes_nothing_with_it(holding: bool) -> None:
    budget = PixelBudget(100)
    never = asyncio.Event()

    async def request(pixels: int) -> None:
        async with budget.hold(pixels):
            await never.wait()

    async with budget.hold(0 if holding else 50):
        task = asyncio.create_task(request(100))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(1), budget.hold(100):
        pass
