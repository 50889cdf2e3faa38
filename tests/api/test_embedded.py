from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from api import embedded
from api.errors import ApiError
from models.catalogue import CATALOGUE, ModelName
from tests.api.answered import Runner


class Histogram:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def observe(self, value: int) -> None:
        self.seen.append(value)


def test_the_histograms_of_batch_sizes_are_made_before_any_thread_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[tuple[str, str], Histogram] = {}

    def make(runner: str, method: str) -> Histogram:
        return made.setdefault((runner, method), Histogram())

    monkeypatch.setattr(embedded, "batch_size_of", make)
    runner: Any = Runner()
    link = embedded.EmbeddedLink("runners", list(CATALOGUE), runner, [])
    assert set(made) == {("runners", name) for name in CATALOGUE}
    before = dict(made)
    names: tuple[ModelName, ...] = ("threat_detector", "pet_classifier")
    threads = [threading.Thread(target=link.compute, args=(name, [{}], None), kwargs={"alone": True}) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == before
    assert [made["runners", name].seen for name in names] == [[1], [1]]


async def test_an_engine_that_hangs_is_told_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    runner: Any = Runner()
    memory = {"used_mb": 1, "budget_mb": None, "out_of_memory": 0}
    healthy = {**runner.status(), "fault": None, "memory": memory}
    runner.status = lambda: healthy
    link = embedded.EmbeddedLink("runners", list(CATALOGUE), runner, [])
    told: list[ApiError] = []
    link.when_lost.append(told.append)
    await link._beat()
    assert link.model("person_reid")
    runner.status = lambda: {**healthy, "fault": "a batch has not ended"}
    await link._beat()
    await link._beat()
    assert [(error.code, error.status) for error in told] == [("runner_unavailable", 503)]
    assert (link.status, link.last_fault) == (None, "a batch has not ended")
    with pytest.raises(ApiError, match="hangs"):
        link.model("person_reid")


async def test_loads_that_take_long_leave_the_heartbeat_and_the_loops_threads_alone() -> None:
    runner: Any = Runner()
    memory = {"used_mb": 1, "budget_mb": None, "out_of_memory": 0}
    healthy = {**runner.status(), "fault": None, "memory": memory}
    go_on = threading.Event()
    runner.status = lambda: healthy
    runner.load = lambda name: go_on.wait(10) and {"model": healthy["models"][name]}
    link = embedded.EmbeddedLink("runners", list(CATALOGUE), runner, [])
    loads = [asyncio.create_task(link.manage("load", "person_reid")) for _ in range(40)]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(link._beat(), 1)
    await asyncio.wait_for(asyncio.to_thread(int), 1)
    go_on.set()
    assert (await asyncio.gather(*loads))[-1] == healthy["models"]["person_reid"]
