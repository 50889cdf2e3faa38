"""The script that makes the GPU's table, over the fake device layer: that it runs, not what it finds."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from benchmarks import gpu
from engines.device import Gpu
from runners import engine_choice
from settings import Settings
from tests.engines.cuda_layer import FakeCuda
from tests.engines.nvml import FakeNvml, a400, a5500


def test_without_a_gpu_there_is_no_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    FakeNvml([]).install(monkeypatch)
    assert gpu.main([]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_table_names_the_device_and_has_a_row_for_each_measurement(
    model_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = [a5500(), a400()]
    FakeNvml(cards).install(monkeypatch)
    FakeCuda().install(monkeypatch)

    def start(settings: Settings, chosen: Gpu | None) -> None:
        cards[1].processes[os.getpid()] = 290_000_000

    monkeypatch.setattr(engine_choice, "start", start)
    for variable in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("ENRICHMENT_ENGINE", "torch")
    monkeypatch.setattr(gpu, "_UNMEASURED", 1)  # f16 on a CPU takes a second a call
    assert gpu.main(["person_reid", "--calls", "1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^## \d{4}-\d\d-\d\d, GPU 1: NVIDIA RTX A400, 4\.3 GB, driver 580\.95\.05", out)
    assert "| CUDA context and torch | 290 |" in out
    assert "| person_reid on torch (f16) | 0 |" in out
    assert len(re.findall(r"^\| person_reid \| [18] \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", out, re.MULTILINE)) == 2
    assert "| person_reid | 290 | 290 |" in out
