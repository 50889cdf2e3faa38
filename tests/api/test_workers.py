"""The threads of one model: what comes back, when it comes back, and who has to wait."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from api.queue import Outcomes
from api.workers import Workers

Seen = tuple[Sequence[int], bool, str, int]


def look(group: Sequence[int], alone: bool) -> Outcomes[Seen]:
    """The arguments, and the name and nice value of the thread."""
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    return [(group, alone, threading.current_thread().name, nice)]


async def seen(workers: Workers[int, Seen], group: Sequence[int], alone: bool) -> Seen:
    (outcome,) = await workers.start(look, group, alone)
    assert not isinstance(outcome, Exception)
    return outcome


async def test_an_idle_model_s_request_runs_on_a_thread_of_normal_priority_and_queued_ones_step_back() -> None:
    workers: Workers[int, Seen] = Workers("pet_classifier", 2)
    group, alone, thread, nice = await seen(workers, [1, 2], True)
    assert (group, alone) == ([1, 2], True)
    assert thread.startswith("pet_classifier_")
    assert nice == os.getpriority(os.PRIO_PROCESS, 0)
    group, alone, thread, queued = await seen(workers, [3], False)
    assert (group, alone) == ([3], False)
    assert thread.startswith("pet_classifier-queued")
    assert queued > nice


async def test_an_error_of_the_work_is_the_caller_s() -> None:
    def fail(group: Sequence[int], alone: bool) -> Outcomes[int]:
        raise LookupError(f"no {group[0]}")

    workers: Workers[int, int] = Workers("pet_classifier", 1)
    with pytest.raises(LookupError, match="no 7"):
        await workers.start(fail, [7], False)


async def test_as_many_queued_groups_run_at_a_time_as_were_asked_for_and_an_idle_request_passes_them() -> None:
    workers: Workers[int, int] = Workers("pet_classifier", 2)
    running, go_on = threading.Semaphore(0), threading.Event()

    def hold(group: Sequence[int], alone: bool) -> Outcomes[int]:
        running.release()
        assert go_on.wait(10)
        return group

    held = [workers.start(hold, [number], False) for number in range(3)]
    for _ in range(2):
        assert await asyncio.to_thread(running.acquire, timeout=10)
    assert await workers.start(lambda group, _: group, [9], True) == [9]
    assert not await asyncio.to_thread(running.acquire, timeout=0.05)
    assert not any(future.done() for future in held)  # while a thread works, its future is open
    go_on.set()
    assert await asyncio.gather(*held) == [[0], [1], [2]]


NICE = """
import asyncio, sys
from api.workers import Workers

async def main():
    workers = Workers("pet_classifier", 2)
    print(await workers.start(lambda group, _: group, [7], False))

asyncio.run(main())
"""


@pytest.mark.parametrize("nice", [0, 15, 19])
def test_a_process_of_low_priority_keeps_it(nice: int) -> None:
    # Without CAP_SYS_NICE, which root has, nobody may raise a priority.
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if drop and not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed, and root may raise priorities")
    command = [*drop, "nice", "-n", str(nice), sys.executable, "-c", NICE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[7]\n", done.stderr
