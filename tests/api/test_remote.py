from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import aiohttp
import numpy as np
import pytest
from bentoml.exceptions import BentoMLException, ServiceUnavailable
from prometheus_client import REGISTRY

from api import remote
from api.errors import ApiError
from api.remote import RemoteLink
from engines.deadline import Deadline
from models.state import State
from settings import Watchdog
from tasks.task import Item

ITEM: Item = {"image": np.zeros((2, 2, 3), np.uint8)}
RESULT = {"embedding": np.ones(3, np.float32)}
OWN_PID = os.getpid()
WATCHDOG = Watchdog(silence_s=5, hung_s=20)
# What BentoML's client raises where the runner closed an idle connection, and where its process died.
RACE = aiohttp.ServerDisconnectedError()
CUT_OFF = aiohttp.ClientPayloadError("Response payload is not completed")


@pytest.fixture(autouse=True)
def quick_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(remote, "HEARTBEAT_DOWN_S", 0.02)


class Runner:
    """The far end of BentoML's internal call: gives or raises what the test wrote down for it."""

    def __init__(self, *script: object, pid: int = OWN_PID) -> None:
        self.script = list(script)
        self.pid = pid
        self.silent: BaseException | None = None  # what /state raises
        self.images: list[Any] = []  # as they came
        self.ids: list[str] = []
        self.abandoned: list[str] = []
        self.fault: str | None = None
        self.out_of_memory = 0  # batches that had too little of it, as the process says
        self.hold = asyncio.Event()
        self.hold.set()

    @property
    def inferences(self) -> int:
        return len(self.images)

    async def __call__(self, method: str, *args: Any) -> Any:
        if method == "state":
            if self.silent is not None:
                raise self.silent
            model = {"state": State.READY}
            memory = {"used_mb": 1, "budget_mb": None, "out_of_memory": self.out_of_memory}
            return {"pid": self.pid, "fault": self.fault, "memory": memory, "models": {"person_reid": model}}
        if method == "abandon":
            self.abandoned += args[0]
            return None
        ((item,),) = args
        assert method == "person_reid"
        self.ids.append(item["id"])
        self.images.append(item["image"])
        await self.hold.wait()
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step


@contextlib.asynccontextmanager
async def watched(runner: Runner, watchdog: Watchdog = WATCHDOG) -> Any:
    link = RemoteLink("runner", ["person_reid"], runner, watchdog)
    beat = asyncio.Event()
    watch = asyncio.create_task(link.watch(beat.set))
    await asyncio.wait_for(beat.wait(), 5)
    try:
        yield link
    finally:
        watch.cancel()


async def infer(link: RemoteLink, item: Item) -> Any:
    (result,) = await link.infer("person_reid", [item], Deadline.after(60))
    return result


async def refusal(link: RemoteLink) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await infer(link, ITEM)
    return caught.value


async def until(condition: Any, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def zombie_pid() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # dead, and not waited for
    yield child.pid
    child.wait()


async def test_an_answer_comes_back_as_it_is() -> None:
    runner = Runner([RESULT])
    async with watched(runner) as link:
        assert await infer(link, ITEM) is RESULT
    assert runner.images == [ITEM["image"]]


async def test_before_the_first_heartbeat_there_is_no_runner() -> None:
    runner = Runner([RESULT])
    assert (await refusal(RemoteLink("runner", ["person_reid"], runner, WATCHDOG))).code == "runner_unavailable"
    assert runner.inferences == 0


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("broken", [RACE, aiohttp.ClientOSError(104, "reset"), CUT_OFF], ids=repr)
async def test_a_broken_connection_to_a_living_runner_is_tried_again(broken: Exception, times: int) -> None:
    runner = Runner(*[broken] * times, [RESULT])
    async with watched(runner) as link:
        assert await infer(link, ITEM) is RESULT
    assert runner.inferences == times + 1


async def test_a_connection_that_breaks_every_time_is_given_up() -> None:
    runner = Runner(*[RACE] * remote.ATTEMPTS, [RESULT])
    async with watched(runner) as link:
        error = await refusal(link)
    assert (error.code, error.status) == ("runner_unavailable", 503)
    assert error.response("id").headers["retry-after"] == "10"
    assert runner.inferences == remote.ATTEMPTS


async def test_a_runner_with_another_pid_died_so_nothing_is_repeated() -> None:
    runner = Runner(RACE, [RESULT])
    async with watched(runner) as link:
        runner.pid = os.getppid()
        assert (await refusal(link)).code == "runner_unavailable"
        assert runner.inferences == 1
        await until(lambda: link.status is not None)  # and the new one is used from then on
        assert await infer(link, ITEM) is RESULT


async def test_a_runner_that_is_dead_is_not_asked_again(dead_pid: int) -> None:
    runner = Runner(RACE, [RESULT], pid=dead_pid)
    async with watched(runner) as link:
        runner.silent = aiohttp.ClientConnectionError("refused")
        assert (await refusal(link)).code == "runner_unavailable"
    assert runner.inferences == 1
    assert link.status is None


@pytest.mark.parametrize("results", [[], [RESULT, RESULT], None, RESULT, "ab"], ids=repr)
async def test_another_number_of_results_is_nobodys_answer(results: object) -> None:
    async with watched(Runner(results)) as link:
        error = await refusal(link)
    assert (error.code, error.status) == ("internal", 500)


@pytest.mark.parametrize(("code", "status"), [("model_unavailable", 503), ("internal", 500)])
async def test_an_items_failure_is_its_own(code: str, status: int) -> None:
    async with watched(Runner([{"error": code, "message": "why"}])) as link:
        error = await refusal(link)
    assert (error.code, error.status, error.message) == (code, status, "why")


async def test_a_runner_that_drops_a_call_is_unavailable() -> None:
    async with watched(Runner(ServiceUnavailable("process is overloaded at /usr/lib"))) as link:
        error = await refusal(link)
    assert error.code == "runner_unavailable"
    assert "/usr" not in error.message


async def test_a_call_that_the_runner_fails_is_internal_and_tells_nothing() -> None:
    broken = BentoMLException("Traceback at /usr/lib", error_code=HTTPStatus.INTERNAL_SERVER_ERROR)
    async with watched(Runner(broken)) as link:
        error = await refusal(link)
    assert error.code == "internal"
    assert "/usr" not in error.message


async def test_calls_under_way_end_as_soon_as_the_runner_is_found_dead(dead_pid: int) -> None:
    runner = Runner(pid=dead_pid)
    runner.hold.clear()  # BentoML's own call would hang until the runner is respawned
    async with watched(runner) as link:
        calls = [asyncio.create_task(refusal(link)) for _ in range(8)]
        await until(lambda: runner.inferences == 8)
        runner.silent = aiohttp.ClientConnectionError("refused")
        began = time.monotonic()
        assert {error.code for error in await asyncio.gather(*calls)} == {"runner_unavailable"}
        assert time.monotonic() - began < 1
        assert (await refusal(link)).code == "runner_unavailable"  # and the next one does not even try
    assert runner.inferences == 8


async def test_calls_under_way_end_when_the_runner_was_replaced_between_two_heartbeats() -> None:
    runner = Runner()
    runner.hold.clear()
    async with watched(runner) as link:
        call = asyncio.create_task(refusal(link))
        await until(lambda: runner.inferences == 1)
        runner.pid = os.getppid()
        assert (await asyncio.wait_for(call, 5)).code == "runner_unavailable"
        await until(lambda: link.status is not None)


async def test_a_zombie_counts_as_dead(zombie_pid: int) -> None:
    runner = Runner(pid=zombie_pid)
    async with watched(runner) as link:
        runner.silent = aiohttp.ClientConnectionError("refused")
        await until(lambda: link.status is None)


async def test_a_living_runner_may_miss_heartbeats_until_it_was_silent_too_long() -> None:
    runner = Runner([RESULT])
    async with watched(runner, Watchdog(silence_s=3, hung_s=60)) as link:
        runner.silent = TimeoutError()
        await asyncio.sleep(0.4)
        assert link.status is not None
        await until(lambda: link.status is None, 10)
        runner.silent = None
        await until(lambda: link.status is not None, 10)
        assert await infer(link, ITEM) is RESULT


async def test_a_pause_of_this_process_is_no_silence_of_the_runner() -> None:
    runner = Runner()
    async with watched(runner) as link:
        runner.silent = TimeoutError()
        link._checked -= 3600  # as if the container had been frozen
        await asyncio.sleep(0.3)
        assert link.status is not None


@pytest.mark.parametrize("unexpected", [RuntimeError("Session is closed"), KeyError("pid"), ValueError("no JSON")])
async def test_the_heartbeat_goes_on_whatever_a_probe_raises(unexpected: Exception) -> None:
    runner = Runner([RESULT])
    async with watched(runner) as link:
        runner.silent = unexpected
        await asyncio.sleep(0.3)
        runner.silent = None
        runner.pid = os.getppid()
        await until(lambda: link.status is not None and link.status["pid"] == os.getppid())


async def test_a_caller_that_gives_up_ends_its_call() -> None:
    ended = asyncio.Event()

    told: list[str] = []

    async def call(method: str, *arguments: Any) -> Any:
        if method == "abandon":
            told.extend(arguments[0])
            return None
        if method == "state":
            return {"pid": OWN_PID, "fault": None, "memory": {"out_of_memory": 0}, "models": {}}
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    link = RemoteLink("runner", ["person_reid"], call, WATCHDOG)
    watch = asyncio.create_task(link.watch(lambda: None))
    await until(lambda: link.status is not None)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(infer(link, ITEM), 0.1)
    await asyncio.wait_for(ended.wait(), 1)
    await until(lambda: len(told) == 1)  # the runner need not compute it any more
    watch.cancel()


async def test_items_of_one_request_go_in_one_call_and_carry_their_deadline() -> None:
    calls: list[list[Any]] = []

    async def call(method: str, *arguments: Any) -> Any:
        if method == "state":
            return {"pid": OWN_PID, "fault": None, "memory": {"out_of_memory": 0}, "models": {}}
        calls.append(arguments[0])
        return [{"number": number} for number, _ in enumerate(arguments[0])]

    link = RemoteLink("runner", ["person_reid"], call, WATCHDOG)
    watch = asyncio.create_task(link.watch(lambda: None))
    await until(lambda: link.status is not None)
    deadline = Deadline.after(60)
    named: Item = {**ITEM, "id": "its request#7"}
    results: list[Any] = await link.infer("person_reid", [ITEM, ITEM, named], deadline)
    watch.cancel()
    assert [result["number"] for result in results] == [0, 1, 2]
    (sent,) = calls
    assert {item["expires"] for item in sent} == {deadline.expires}
    assert len({item["id"] for item in sent}) == 3
    assert sent[2]["id"] == "its request#7"  # by which the engine's log names the request


@pytest.mark.parametrize("method", ["load", "unload"])
async def test_loading_meets_a_closed_connection_and_is_tried_again(method: Any) -> None:
    answers: list[object] = [RACE, {"model": {"state": State.READY}}]

    async def call(asked: str, *_: Any) -> Any:
        if asked == "state":
            return {"pid": OWN_PID, "fault": None, "memory": {"out_of_memory": 0}, "models": {}}
        assert asked == method
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    link = RemoteLink("runner", ["person_reid"], call, WATCHDOG)
    watch = asyncio.create_task(link.watch(lambda: None))
    await until(lambda: link.status is not None)
    assert (await link.manage(method, "person_reid"))["state"] == State.READY
    watch.cancel()


async def test_the_heartbeat_goes_on_where_another_users_process_has_the_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    runner = Runner()
    async with watched(runner) as link:
        monkeypatch.setattr(os, "kill", kill)
        await until(lambda: link.status is None)
        monkeypatch.undo()
        monkeypatch.setattr(remote, "HEARTBEAT_DOWN_S", 0.02)
        await until(lambda: link.status is not None)


async def test_a_runner_with_a_fault_is_gone_at_once_and_the_fault_is_kept() -> None:
    runner = Runner([{"error": "runner_unavailable", "message": "the runner has lost its device"}], [RESULT])
    async with watched(runner) as link:
        runner.fault = "the GPU refuses everything after: illegal memory access"
        assert (await refusal(link)).code == "runner_unavailable"
        assert link.status is None  # heard in the same call, not with the next heartbeat
        assert (await refusal(link)).code == "runner_unavailable"
        assert runner.inferences == 1
        assert link.last_fault is not None
        assert link.last_fault.endswith("illegal memory access")
        runner.pid, runner.fault = os.getppid(), None
        await until(lambda: link.status is not None)
        assert link.restarts == 1
        assert "illegal memory access" in link.last_fault  # still told after the restart
        assert await infer(link, ITEM) is RESULT


async def test_a_fault_that_no_call_met_is_heard_by_the_heartbeat() -> None:
    runner = Runner([RESULT])
    async with watched(runner) as link:
        runner.fault = "lost while loading"
        await until(lambda: link.status is None)
        assert "lost while loading" in (link.last_fault or "")


def counted(name: str) -> float | None:
    return REGISTRY.get_sample_value("enrichment_light_out_of_memory_total", {"runner": name})


async def test_what_had_too_little_memory_is_counted_over_all_processes_of_a_runner() -> None:
    runner = Runner()
    runner.out_of_memory = 5  # of a time before this API process, whose predecessor has counted it
    link = RemoteLink("hungry", ["person_reid"], runner, WATCHDOG)
    assert counted("hungry") == 0  # Prometheus sees an increase of what it has seen before only
    watch = asyncio.create_task(link.watch(lambda: None))
    await until(lambda: link.status is not None)
    assert counted("hungry") == 0
    runner.out_of_memory = 7
    await until(lambda: counted("hungry") == 2)
    runner.pid, runner.out_of_memory = os.getppid(), 0
    await until(lambda: link.restarts == 1)
    assert counted("hungry") == 2
    runner.out_of_memory = 1
    await until(lambda: counted("hungry") == 3)
    runner.out_of_memory, runner.fault = 4, "the device is lost"  # the last that it says
    await until(lambda: link.status is None)
    assert counted("hungry") == 6
    watch.cancel()


async def test_the_batches_of_a_process_are_counted_whole_though_requests_share_them() -> None:
    timing = {"taken": 1, "loaded": 2, "batch": 3}
    failure = {"error": "internal", "message": "no"}
    runner = Runner([{**RESULT, "timing": timing}], [failure], [{**RESULT, "timing": timing}])
    async with watched(runner) as link:
        await infer(link, ITEM)
        await refusal(link)
        await infer(link, ITEM)
    assert link.batches["person_reid"].sizes == {3: 1}


async def test_the_last_status_stays_while_the_runner_is_down() -> None:
    runner = Runner()
    async with watched(runner) as link:
        await until(lambda: link.status is not None)
        known = link.last_status
        assert known is not None
        runner.fault = "it lost its device"
        await until(lambda: link.status is None)
        assert link.last_status is not None
        assert link.last_status["models"] == known["models"]
    assert RemoteLink("other", ["person_reid"], runner, WATCHDOG).last_status is None


async def test_a_runner_that_hangs_is_ended_once_it_was_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    monkeypatch.setattr(os, "getppid", os.getpid)
    runner = Runner(pid=hung.pid)
    async with watched(runner, Watchdog(silence_s=0.3, hung_s=1)) as link:
        runner.silent = TimeoutError()
        await until(lambda: link.status is None, 3)
        assert await asyncio.wait_for(hung.wait(), 5) == -signal.SIGKILL


async def test_a_process_of_somebody_else_is_never_ended() -> None:
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    runner = Runner(pid=other.pid)  # our child, so not of our parent
    async with watched(runner, Watchdog(silence_s=0.2, hung_s=0.3)) as link:
        runner.silent = TimeoutError()
        await until(lambda: link.status is None, 3)
        await asyncio.sleep(0.7)
        assert other.returncode is None
    other.kill()
    await other.wait()
