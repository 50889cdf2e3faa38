from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from api import queue
from api.errors import ApiError
from api.queue import ModelQueue, Outcomes
from engines import deadline as deadlines
from engines.deadline import Abandoned, Deadline


class Worker:
    """Works on groups until it is told that one is done."""

    def __init__(self, width: int = 1, most: int = 1) -> None:
        self.deadline = Deadline(math.inf)
        self.groups: list[list[str]] = []
        self.alone: list[bool] = []
        self._done: list[asyncio.Future[Outcomes[str]]] = []
        self.queue: ModelQueue[str, str] = ModelQueue("person_reid", width, self.start, most)

    def start(self, group: Sequence[str], alone: bool) -> asyncio.Future[Outcomes[str]]:
        self.groups.append(list(group))
        self.alone.append(alone)
        done: asyncio.Future[Outcomes[str]] = asyncio.get_running_loop().create_future()
        self._done.append(done)
        return done

    async def ask(self, *names: str) -> list[asyncio.Task[str]]:
        tasks = [asyncio.create_task(self.queue.run(name, self.deadline)) for name in names]
        await asyncio.sleep(0)
        return tasks

    async def finish(self, number: int, outcomes: Outcomes[str] | None = None) -> None:
        self._done[number].set_result(outcomes or [name.upper() for name in self.groups[number]])
        await asyncio.sleep(0.001)


async def test_first_come_first_served_and_no_more_at_a_time_than_there_are_places() -> None:
    worker = Worker(width=2)
    tasks = await worker.ask("a", "b", "c", "d")
    assert worker.groups == [["a"], ["b"]]
    await worker.finish(1)
    assert worker.groups == [["a"], ["b"], ["c"]]
    await worker.finish(0)
    await worker.finish(2)
    await worker.finish(3)
    assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]


async def test_a_group_is_what_waits_when_a_place_becomes_free() -> None:
    worker = Worker(most=4)
    tasks = await worker.ask("a", "b", "c", "d", "e", "f")
    assert worker.groups == [["a"]]  # nobody waits for company
    await worker.finish(0)
    assert worker.groups == [["a"], ["b", "c", "d", "e"]]
    await worker.finish(1)
    await worker.finish(2)
    assert await asyncio.gather(*tasks) == ["A", "B", "C", "D", "E", "F"]


async def test_one_failure_in_a_group_is_one_requests() -> None:
    worker = Worker(most=4)
    tasks = await worker.ask("a", "b", "c")
    await worker.finish(0)
    await worker.finish(1, ["B", ApiError("invalid_image", "no")])
    assert await tasks[1] == "B"
    with pytest.raises(ApiError, match="no"):
        await tasks[2]


async def test_only_who_finds_nobody_is_alone() -> None:
    worker = Worker(width=2)
    await worker.ask("a")
    await worker.ask("b")
    await worker.finish(0)
    await worker.ask("c")
    await worker.finish(1)
    await worker.finish(2)
    await worker.ask("d")
    assert worker.alone == [True, False, False, True]


async def test_who_is_cancelled_while_it_waits_is_never_worked_on() -> None:
    worker = Worker()
    tasks = await worker.ask("a", "gone", "b")
    tasks[1].cancel()
    await asyncio.sleep(0)
    await worker.finish(0)
    assert worker.groups == [["a"], ["b"]]
    await worker.finish(1)
    assert await tasks[2] == "B"


async def test_a_place_is_taken_until_its_work_has_ended_whoever_has_gone() -> None:
    worker = Worker()
    tasks = await worker.ask("gone", "b")
    tasks[0].cancel()
    await asyncio.sleep(0.001)
    assert worker.groups == [["gone"]]
    await worker.finish(0)
    assert worker.groups == [["gone"], ["b"]]


async def test_work_that_raises_fails_its_requests_and_frees_its_place() -> None:
    worker = Worker(most=2)
    tasks = await worker.ask("a", "b")
    worker._done[0].set_exception(RuntimeError("a bug"))
    await asyncio.sleep(0.001)
    with pytest.raises(RuntimeError, match="a bug"):
        await tasks[0]
    await worker.finish(1)
    assert await tasks[1] == "B"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(queue, "time", SimpleNamespace(monotonic=clock))
    return clock


async def test_what_cannot_be_answered_in_time_is_refused_and_told_when_to_come_back(clock: Clock) -> None:
    worker = Worker()
    names = [str(number) for number in range(12)]
    await worker.ask(*names)
    worker.queue.check(10)  # nothing was measured yet
    for number in range(4):
        clock.now += 1
        await worker.finish(number)
    # A second each: one under way, seven wait, then this one.
    assert worker.queue.expected_s() == pytest.approx(9)
    worker.queue.check(18)
    with pytest.raises(ApiError) as caught:
        worker.queue.check(17)
    assert caught.value.code == "overloaded"
    assert caught.value.response("id").headers["retry-after"] == "1"
    with pytest.raises(ApiError) as caught:
        worker.queue.check(10)
    assert caught.value.response("id").headers["retry-after"] == "4"  # 9 s are expected, 5 s may be
    for number in range(4, 9):
        clock.now += 1
        await worker.finish(number)
    worker.queue.check(10)


async def test_work_that_hangs_is_expected_to_take_longer_and_longer(clock: Clock) -> None:
    worker = Worker()
    await worker.ask("a", "b")
    worker.queue.check(10)
    clock.now += 5  # and it has not ended
    with pytest.raises(ApiError, match="are waiting already"):
        worker.queue.check(10)


async def test_a_free_place_is_never_refused(clock: Clock) -> None:
    worker = Worker()
    await worker.ask("a")
    clock.now += 60
    await worker.finish(0)
    worker.queue.check(10)


async def test_who_was_admitted_too_early_is_refused_as_soon_as_that_is_known(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All came before the first was answered, when nobody knew how long one takes.
    monkeypatch.setattr(deadlines, "time", SimpleNamespace(monotonic=clock))
    worker = Worker()
    worker.deadline = Deadline(clock.now + 6)
    tasks = await worker.ask(*(str(number) for number in range(12)))
    clock.now += 1
    await worker.finish(0)
    await asyncio.sleep(0)
    refused = [number for number, task in enumerate(tasks) if task.done() and task.exception() is not None]
    assert refused == list(range(len(tasks) - len(refused), 12))  # the last ones
    assert 12 - len(refused) == 5  # the first, and four in 80 % of five seconds
    error = tasks[-1].exception()
    assert isinstance(error, ApiError)
    assert error.code == "overloaded"
    assert int(error.response("id").headers["retry-after"]) >= 6


async def test_the_state_counts_requests_not_groups_and_expects_nothing_before_it_has_measured() -> None:
    worker = Worker(width=2, most=4)
    assert worker.queue.state == {"waiting": 0, "in_progress": 0, "expected_ms": None}
    await worker.ask(*"abcdefghi")
    assert worker.queue.state == {"waiting": 7, "in_progress": 2, "expected_ms": None}
    await worker.finish(0)
    assert (worker.queue.state["waiting"], worker.queue.state["in_progress"]) == (3, 5)
    least, expected_ms, most = worker.queue.expected_s(), worker.queue.state["expected_ms"], worker.queue.expected_s()
    assert expected_ms is not None
    assert least * 1000 - 0.1 <= expected_ms <= most * 1000 + 0.1
    for number in range(1, 4):
        await worker.finish(number)
    assert (worker.queue.state["waiting"], worker.queue.state["in_progress"]) == (0, 0)


async def test_a_closed_queue_answers_everybody_at_once_those_to_come_included() -> None:
    worker = Worker(most=2)
    tasks = await worker.ask("a", "b", "c", "d")
    hung = ApiError("runner_unavailable", "it hangs")
    worker.queue.close(hung)
    tasks += await worker.ask("e")
    assert await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1) == [hung] * 5
    assert worker.groups == [["a"]]
    await worker.finish(0)  # it was no hang after all
    assert worker.groups == [["a"]]
    assert worker.queue.state["waiting"] == worker.queue.state["in_progress"] == 0


async def test_a_pause_is_forgotten_after_the_next_quick_answers(clock: Clock) -> None:
    worker = Worker()
    await worker.ask("a", "b", "c")
    for number in range(3):
        clock.now += 120  # the container was paused
        await worker.finish(number)
    await worker.ask("d", "e")
    for number in (3, 4):
        clock.now += 0.05
        await worker.finish(number)
    await worker.ask("f")
    worker.queue.check(30, 8)


async def test_busy_minutes_long_ago_refuse_nobody(clock: Clock) -> None:
    worker = Worker(width=2)
    await worker.ask(*(str(number) for number in range(8)))
    for number in range(8):
        clock.now += 0.6
        await worker.finish(number)
    for number in range(8, 40):  # one at a time since
        await worker.ask("x")
        clock.now += 0.05
        await worker.finish(number)
    await worker.ask("y")
    worker.queue.check(30, 64)


async def test_refused_pictures_say_nothing_of_a_group_s_time_and_abandoned_ones_do(clock: Clock) -> None:
    worker = Worker()
    tasks = await worker.ask("a", "bad", "late")
    clock.now += 1.5
    await worker.finish(0)
    clock.now += 0.005
    await worker.finish(1, [ApiError("invalid_image", "no")])
    assert worker.queue._takes_s == pytest.approx(1.5)
    clock.now += 6
    await worker.finish(2, [Abandoned()])
    assert worker.queue._takes_s == pytest.approx(0.8 * 1.5 + 0.2 * 6)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_idle_queue_takes_any_number(clock: Clock) -> None:
    worker = Worker(width=3)
    await worker.ask("a")
    clock.now += 6  # its model was loaded
    await worker.finish(0)
    worker.queue.check(10, 64)


async def test_a_start_that_fails_fails_its_requests_and_gives_its_place_back() -> None:
    worker = Worker(width=2)
    start, worker.queue._start = worker.queue._start, refuse
    for _ in range(3):
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await worker.queue.run("a", worker.deadline)
    worker.queue._start = start
    (task,) = await worker.ask("b")
    waiting = await worker.ask("c", "d")
    worker.queue._start = refuse
    await worker.finish(0)  # begins d, which fails
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await asyncio.wait_for(waiting[1], 1)
    worker.queue._start = start
    await worker.finish(1)
    assert (await task, await waiting[0]) == ("B", "C")
    assert worker.queue.state["in_progress"] == 0


def refuse(_: Sequence[str], __: bool) -> asyncio.Future[Outcomes[str]]:
    raise RuntimeError("can't start new thread")
