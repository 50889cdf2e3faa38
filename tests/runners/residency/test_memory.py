from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest

from engines.device import choose
from engines.errors import DeviceLost
from runners.residency import memory
from runners.residency.memory import CpuMemory, GpuMemory
from tests.engines.nvml import Card, FakeNvml, a400

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


def make(lost: list[DeviceLost] | None = None) -> GpuMemory:
    gpu = choose(0, {})
    assert gpu is not None
    return GpuMemory(gpu, (lost if lost is not None else []).append)


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


ASKED = ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetMemoryInfo"]


@pytest.mark.parametrize("broken", [ASKED, *[[name] for name in ASKED]])
@pytest.mark.parametrize(
    "error",
    [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH],
)
def test_what_nvml_never_answers_is_no_error_and_torch_is_asked(
    monkeypatch: pytest.MonkeyPatch, reserved: dict[str, float], broken: list[str], error: int
) -> None:
    found = a400()
    FakeNvml([found], broken=dict.fromkeys(broken, error)).install(monkeypatch)
    lost: list[DeviceLost] = []
    gpu = make(lost)
    assert gpu.used_mb() == 0
    with gpu.recognising():
        found.processes[OWN] = 300 * MB
    found.processes[OWN] = 850 * MB
    reserved["mb"] = 540
    expected = {ASKED[1]: 300 + 540, ASKED[2]: 850}.get(broken[0], 540) if len(broken) == 1 else 540
    assert gpu.used_mb() == expected
    assert lost == []


def test_a_card_that_begins_to_answer_in_the_middle_is_not_charged_to_the_process(
    monkeypatch: pytest.MonkeyPatch, card: Card, reserved: dict[str, float]
) -> None:
    card.other_bytes = 3000 * MB
    nvml = FakeNvml([card], broken={ASKED[2]: pynvml.NVML_ERROR_TIMEOUT}).install(monkeypatch)
    gpu = make()
    with gpu.recognising():
        nvml.broken.clear()
    assert gpu.used_mb() == 0


@pytest.mark.parametrize("broken", ASKED[:2])
def test_a_lost_gpu_is_told_and_no_figure_is_an_error(
    monkeypatch: pytest.MonkeyPatch, card: Card, reserved: dict[str, float], broken: str
) -> None:
    nvml = FakeNvml([card]).install(monkeypatch)
    lost: list[DeviceLost] = []
    gpu = make(lost)
    with gpu.recognising():
        card.processes[OWN] = 300 * MB
    nvml.broken[broken] = pynvml.NVML_ERROR_GPU_IS_LOST
    reserved["mb"] = 40
    assert gpu.used_mb() == 340
    assert [str(error) for error in lost] == ["NVML: GPU is lost"]


def test_a_context_that_could_be_made_at_the_second_try_is_measured_from_the_first(
    card: Card, reserved: dict[str, float]
) -> None:
    gpu = make()

    def half() -> None:
        with gpu.recognising():
            card.processes[31337] = 200 * MB  # this process, under its pid on the host
            raise MemoryError

    with pytest.raises(MemoryError):
        half()
    assert gpu.used_mb() == gpu.context_mb == 0
    with gpu.recognising():
        card.processes[31337] = 300 * MB
    assert gpu.used_mb() == gpu.context_mb == 300
    card.processes[31337] = None
    assert gpu.used_mb() == 300  # by the card


def test_a_lost_device_that_takes_no_memory_back_is_no_error(
    monkeypatch: pytest.MonkeyPatch, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nsee above")

    torch = SimpleNamespace(cuda=SimpleNamespace(empty_cache=refuse))
    monkeypatch.setitem(sys.modules, "torch", torch)
    make().give_back()
    assert (
        "could not be freed, and this process may end: CUDA error: an illegal memory access was encountered"
        in caplog.text
    )
