"""Which GPU is taken, over the fake device layer."""

from __future__ import annotations

import pynvml
import pytest

from engines.device import Gpu, choose
from tests.engines.nvml import Card, FakeNvml, a400, a5500

A400 = Gpu(1, "NVIDIA RTX A400", "GPU-bbbb", 4294.967296, "580.95.05", "8.6", (13, 0))


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml([], pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)).install(monkeypatch)
    environment: dict[str, str] = {}
    assert choose(1, environment) is None
    assert environment == {}


@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_UNKNOWN,
    ],
)
@pytest.mark.parametrize(
    "broken", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"]
)
@pytest.mark.parametrize("visible", [{}, {"CUDA_VISIBLE_DEVICES": "1"}])
def test_a_gpu_that_does_not_answer_is_none_and_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str, error: int, visible: dict[str, str]
) -> None:
    FakeNvml([a5500(), a400()], broken={broken: error}).install(monkeypatch)
    assert choose(1, visible) is None
    assert f"NVML finds no usable GPU: {pynvml.NVMLError(error)}" in caplog.text


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_GPU_IS_LOST])
def test_what_nvml_does_not_know_of_a_gpu_is_unknown_and_no_error(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    needed = {"nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"}
    nvml = FakeNvml([a5500(), a400()])
    nvml.broken = dict.fromkeys(nvml.functions().keys() - needed, error)
    nvml.install(monkeypatch)
    gpu = choose(1, {})
    assert gpu == Gpu(1, "unknown", "GPU-bbbb", None, "unknown", "unknown", None)
    assert str(gpu) == "GPU 1: unknown, memory unknown, driver unknown"


def test_another_gpu_that_is_lost_does_not_hide_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([a5500(), a400()])
    original = nvml.nvmlDeviceGetHandleByIndex

    def first_is_lost(index: int) -> Card:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return original(index)

    nvml.install(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", first_is_lost)
    for visible in ("1", "GPU-bbbb"):
        assert choose(0, {"CUDA_VISIBLE_DEVICES": visible}) == A400


def test_the_configured_gpu_is_taken_where_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml([a5500(), a400()]).install(monkeypatch)
    environment: dict[str, str] = {}
    gpu = choose(1, environment)
    assert gpu == A400
    assert str(gpu) == "GPU 1: NVIDIA RTX A400, 4.3 GB, driver 580.95.05"
    # CUDA counts by speed unless told otherwise: GPU 1 would be the slower card by chance only.
    assert environment == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_container_that_sees_one_gpu_uses_that(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml([a400()]).install(monkeypatch)
    environment: dict[str, str] = {}
    gpu = choose(1, environment)
    assert gpu is not None
    assert (gpu.index, gpu.name) == (0, "NVIDIA RTX A400")
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"


def test_an_index_beyond_several_cards_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeNvml([a5500(), a400()]).install(monkeypatch)
    gpu = choose(5, {})
    assert gpu is not None
    assert gpu.index == 0
    assert "GPU 5 is configured, but this machine has 2 GPUs: using GPU 0" in caplog.text


@pytest.mark.parametrize(
    ("visible", "index"),
    [("0", 0), ("1", 1), ("1,0", 1), ("GPU-bbbb", 1), ("GPU-a", 0), (" 1 ", 1), ("", None), ("-1", None)],
)
def test_what_the_operator_made_visible_is_respected(
    monkeypatch: pytest.MonkeyPatch, visible: str, index: int | None
) -> None:
    FakeNvml([a5500(), a400()]).install(monkeypatch)
    environment = {"CUDA_VISIBLE_DEVICES": visible}
    gpu = choose(1, environment)
    assert (gpu.index if gpu else None) == index
    assert environment["CUDA_VISIBLE_DEVICES"] == visible


@pytest.mark.parametrize("visible", ["7", "GPU-cccc", "nonsense"])
def test_a_visible_gpu_that_is_not_there_is_none_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, visible: str
) -> None:
    FakeNvml([a5500(), a400()]).install(monkeypatch)
    assert choose(1, {"CUDA_VISIBLE_DEVICES": visible}) is None
    assert f"CUDA_VISIBLE_DEVICES={visible} names no GPU of this machine (NVML finds 2)" in caplog.text
