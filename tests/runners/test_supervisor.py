"""The supervisor's arbiter over made-up watchers, and the heartbeat through a real pipe."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import click
import pytest
from bentoml._internal.utils.circus import create_circus_socket_from_uri
from bentoml.serving import API_SERVER_NAME

from runners import arbiter, signs
from runners.arbiter import Arbiter
from runners.signs import LAST_STOP, Heartbeat

HUNG_S = 6.0


@pytest.fixture
def heartbeat(monkeypatch: pytest.MonkeyPatch) -> Heartbeat:
    monkeypatch.setenv(signs._PIPE, "")  # put back afterwards
    return Heartbeat(HUNG_S)


async def beat_once() -> None:
    beating = asyncio.create_task(signs.beat())
    await asyncio.sleep(0.01)
    beating.cancel()


async def test_a_silent_api_hangs_and_is_named_once(heartbeat: Heartbeat) -> None:
    await beat_once()
    assert [heartbeat.hung(2) for _ in range(6)] == [None, None, None, os.getpid(), None, None]


async def test_each_sign_of_life_counts(heartbeat: Heartbeat) -> None:
    for _ in range(3):
        await beat_once()
        await beat_once()
        assert [heartbeat.hung(2) for _ in range(3)] == [None] * 3


def test_an_api_that_still_starts_does_not_hang(heartbeat: Heartbeat) -> None:
    assert {heartbeat.hung(2) for _ in range(100)} == {None}


async def test_the_beat_ends_with_the_supervisor(heartbeat: Heartbeat) -> None:
    os.close(heartbeat._end)
    await asyncio.wait_for(signs.beat(), 1)


async def test_without_a_supervisor_there_is_no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(signs._PIPE, raising=False)
    await asyncio.wait_for(signs.beat(), 1)


class Watcher:
    """What the arbiter uses of Circus' watchers."""

    priority = 0
    on_demand = False
    graceful_timeout = 86400.0
    stop_signal = signal.SIGTERM

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.processes: dict[int, Any] = {}
        self.ended = False

    def __len__(self) -> int:
        return 1

    def is_stopped(self) -> bool:
        return self.ended

    async def manage_processes(self) -> None:
        self.log.append(f"manage {self.name}")

    async def _stop(self, close_output_streams: bool = False) -> None:
        if not self.ended:
            self.log.append(f"end {self.name}")
            await asyncio.sleep(0.02)
            self.log.append(f"{self.name} has ended")
            self.ended = True


@pytest.fixture
async def supervised(heartbeat: Heartbeat) -> AsyncIterator[tuple[Arbiter, list[str]]]:
    log: list[str] = []
    watchers = [Watcher("service_runner", log), Watcher("service", log), Watcher("service_other", log)]
    made = Arbiter(heartbeat, 30, watchers, endpoint="", pubsub_endpoint="", check_delay=10)
    made.exit_stack.callback(log.append, "sockets are gone")
    loop = SimpleNamespace(call_later=asyncio.get_running_loop().call_later, add_callback=id, stop=None)
    made.loop = loop  # the end would stop this one
    yield made, log
    made.ctrl.sys_hdl.stop()  # it has put its own handlers of signals in


async def test_the_runners_end_after_the_api(supervised: tuple[Arbiter, list[str]]) -> None:
    made, log = supervised
    await made._stop_watchers(close_output_streams=True)
    assert log[:2] == ["end service", "service has ended"]
    assert set(log[2:]) == {f"{end}" for name in ("runner", "other") for end in _ends(f"service_{name}")}


def _ends(name: str) -> tuple[str, str]:
    return f"end {name}", f"{name} has ended"


async def test_everything_ends_within_a_containers_grace_period(supervised: tuple[Arbiter, list[str]]) -> None:
    by_name = {watcher.name: watcher for watcher in supervised[0].watchers}
    api = by_name.pop("service")
    assert api.graceful_timeout > 31
    assert api.stop_signal == LAST_STOP
    for runner in by_name.values():
        assert runner.stop_signal == signal.SIGTERM
        assert api.graceful_timeout + runner.graceful_timeout < 40


async def test_the_runners_sockets_outlive_the_begin_of_the_end(supervised: tuple[Arbiter, list[str]]) -> None:
    made, log = supervised
    await made.stop()
    assert "sockets are gone" not in log
    made.exit_stack.close()
    assert log[-1] == "sockets are gone"


async def test_a_stop_while_a_process_is_respawned_is_not_forgotten(
    supervised: tuple[Arbiter, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arbiter, "_CONFLICT_S", 0.01)
    made, log = supervised
    made._exclusive_running_command = "manage_watchers"
    made.stop()
    await asyncio.sleep(0.05)
    assert log == []
    made._exclusive_running_command = None
    async with asyncio.timeout(5):
        while "service has ended" not in log:
            await asyncio.sleep(0.01)


async def test_an_api_that_hangs_is_ended(
    supervised: tuple[Arbiter, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    made, _ = supervised
    await beat_once()
    api = next(watcher for watcher in made.watchers if watcher.name == "service")
    for _ in range(4):  # its number is of another process by now
        await made.manage_watchers()
    assert killed == []
    api.processes[os.getpid()] = SimpleNamespace(pid=os.getpid())
    await beat_once()
    for _ in range(4):
        await made.manage_watchers()
    assert killed == [(os.getpid(), signal.SIGKILL)]


def test_a_port_that_is_taken_at_the_last_moment_is_told_without_a_trace(heartbeat: Heartbeat) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sockets = [create_circus_socket_from_uri(f"tcp://127.0.0.1:{port}", name=API_SERVER_NAME)]
        made = Arbiter(heartbeat, 30, [Watcher("service", [])], endpoint="", pubsub_endpoint="", sockets=sockets)
        with pytest.raises(click.ClickException, match=f"can't listen on port {port} of 127.0.0.1: another program"):
            made.start()
