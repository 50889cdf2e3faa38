from __future__ import annotations

import os

import numpy as np
import pynvml
import pytest

from runners.device import choose
from runners.memory import CpuMemory, GpuMemory
from tests.runners.nvml import Card, FakeNvml, a400

OWN = os.getpid()
MB = 1_000_000


def test_a_cpus_memory_is_what_the_process_grew_by_and_comes_back() -> None:
    memory = CpuMemory()
    before = memory.used_mb()
    held = np.ones(200 * MB, np.uint8)
    assert 180 < memory.used_mb() - before < 260
    del held
    memory.give_back()
    assert memory.used_mb() - before < 40


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    found = a400()
    FakeNvml([found]).install(monkeypatch)
    return found


def make() -> GpuMemory:
    gpu = choose(0, {})
    assert gpu is not None
    return GpuMemory(gpu)


def test_on_the_host_it_is_nvmls_figure_of_the_process(card: Card) -> None:
    card.processes[4711] = 700 * MB
    memory = make()
    assert memory.used_mb() == 0
    card.processes[OWN] = 300 * MB  # the CUDA context
    memory.recognise()
    assert memory.used_mb() == 300
    card.processes[OWN] = 850 * MB
    card.processes[4711] = 900 * MB  # another's
    assert memory.used_mb() == 850


def test_in_a_container_it_is_the_process_that_appeared_with_the_context(card: Card) -> None:
    card.processes[4711] = 700 * MB
    memory = make()
    card.processes[31337] = 300 * MB  # this one, under its pid on the host
    memory.recognise()
    card.processes[31337] = 850 * MB
    card.processes[5000] = 100 * MB  # one that came later
    assert memory.used_mb() == 850


@pytest.mark.parametrize("own", [{}, {OWN: None}, {OWN: 0}])
def test_where_nvml_has_no_figure_it_is_what_the_card_gave_out_since(
    card: Card, caplog: pytest.LogCaptureFixture, own: dict[int, int | None]
) -> None:
    card.other_bytes = 700 * MB
    memory = make()
    card.processes |= own
    card.other_bytes += 300 * MB
    memory.recognise()
    assert "what all programs on the card have taken since the start is counted" in caplog.text
    card.other_bytes += 550 * MB
    assert memory.used_mb() == 850
    card.other_bytes = 0  # the others have left
    assert memory.used_mb() == 0


def test_two_that_appear_at_once_are_not_told_apart_by_guessing(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    memory = make()
    card.processes |= {1000: 300 * MB, 1001: 400 * MB}
    memory.recognise()
    assert memory.used_mb() == 700
    assert "all programs on the card" in caplog.text


def test_a_driver_that_does_not_answer_is_an_error_and_no_zero(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    memory = make()
    FakeNvml([card], pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)).install(monkeypatch)
    with pytest.raises(pynvml.NVMLError):
        memory.used_mb()
