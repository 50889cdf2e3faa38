from __future__ import annotations

import os

import numpy as np
import pynvml
import pytest

from runners import memory
from runners.device import choose
from runners.memory import CpuMemory, GpuMemory
from tests.runners.nvml import Card, FakeNvml, a400

OWN = os.getpid()
MB = 1_000_000


def test_a_cpus_memory_is_what_the_process_grew_by_and_comes_back() -> None:
    cpu = CpuMemory()
    before = cpu.used_mb()
    held = np.ones(200 * MB, np.uint8)
    assert 180 < cpu.used_mb() - before < 260
    del held
    cpu.give_back()
    assert cpu.used_mb() - before < 40
    assert cpu.context_mb == 0


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    found = a400()
    FakeNvml([found]).install(monkeypatch)
    return found


def make() -> GpuMemory:
    gpu = choose(0, {})
    assert gpu is not None
    return GpuMemory(gpu)


@pytest.fixture
def reserved(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What torch's allocator has taken, in MB."""
    taken = {"mb": 0.0}
    monkeypatch.setattr(memory, "_allocated_mb", lambda: taken["mb"])
    return taken


def test_on_the_host_it_is_nvmls_figure_of_the_process(card: Card) -> None:
    card.processes[4711] = 700 * MB
    gpu = make()
    assert (gpu.used_mb(), gpu.context_mb) == (0, 0)
    with gpu.recognising():
        card.processes[OWN] = 300 * MB
    assert gpu.used_mb() == 300
    card.processes[OWN] = 850 * MB
    card.processes[4711] = 900 * MB  # another's
    assert (gpu.used_mb(), gpu.context_mb) == (850, 300)


def test_in_a_container_it_is_the_process_that_appeared_with_the_context(card: Card) -> None:
    gpu = make()
    card.processes[4711] = 700 * MB  # another, started after the runner and before its first load
    assert gpu.used_mb() == 0
    with gpu.recognising():
        card.processes[31337] = 300 * MB  # this one, under its pid on the host
    card.processes[31337] = 850 * MB
    card.processes[5000] = 100 * MB  # one that came later: an engine build, say
    assert gpu.used_mb() == 850


@pytest.mark.parametrize("own", [{}, {OWN: None}, {OWN: 0}])
def test_where_nvml_has_no_figure_it_is_the_context_and_torchs_own(
    card: Card, caplog: pytest.LogCaptureFixture, reserved: dict[str, float], own: dict[int, int | None]
) -> None:
    card.other_bytes = 700 * MB
    gpu = make()
    with gpu.recognising():
        card.processes |= own
        card.other_bytes += 300 * MB
    assert gpu.used_mb() == 300
    card.other_bytes += 900 * MB  # what others take, an engine build for one, is none of this process's
    reserved["mb"] = 550
    assert (gpu.used_mb(), gpu.context_mb) == (850, 300)
    assert caplog.text.count("NVML gives no memory of this process (it is in a container") == 1


def test_two_that_appear_at_once_are_not_told_apart_by_guessing(card: Card, reserved: dict[str, float]) -> None:
    gpu = make()
    with gpu.recognising():
        card.processes |= {1000: 300 * MB, 1001: 400 * MB}
    reserved["mb"] = 100
    assert gpu.used_mb() == 800


def test_a_driver_that_stops_answering_leaves_torchs_own_figures(
    monkeypatch: pytest.MonkeyPatch, card: Card, caplog: pytest.LogCaptureFixture, reserved: dict[str, float]
) -> None:
    # A container loses NVML after the host's service manager was reloaded, while CUDA goes on.
    gpu = make()
    with gpu.recognising():
        card.processes[OWN] = 300 * MB
        card.other_bytes = 0
    card.processes[OWN] = 850 * MB
    assert gpu.used_mb() == 850
    reserved["mb"] = 540
    FakeNvml([card], pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)).install(monkeypatch)
    assert [gpu.used_mb(), gpu.used_mb()] == [840, 840]
    assert caplog.text.count("NVML gives no memory of this process (Unknown Error)") == 1
