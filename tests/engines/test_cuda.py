"""Errors told apart, over the fake device layer."""

from __future__ import annotations

import pytest
import torch

from engines.cuda import device_errors
from engines.device import Gpu
from engines.errors import DeviceLost, EngineError, OutOfMemory
from runners import engine_choice
from settings import DEFAULT_FILE, load
from tests.engines.cuda_layer import FakeCuda

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


def fail(error: Exception) -> None:
    with device_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 96.00 MiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":1407, please report'),
    ],
)
def test_too_little_memory_is_that_whichever_library_says_it(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    FakeCuda().install(monkeypatch)
    with pytest.raises(OutOfMemory):
        fail(error)


def test_after_a_sticky_error_the_device_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(answers=False).install(monkeypatch)
    with pytest.raises(DeviceLost) as caught:
        fail(torch.AcceleratorError(ILLEGAL))
    assert str(caught.value) == (
        "the GPU refuses everything after: CUDA error: an illegal memory access was encountered"
    )


def test_too_little_memory_on_a_device_that_is_gone_is_a_lost_device(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(answers=False).install(monkeypatch)
    with pytest.raises(DeviceLost):
        fail(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("of this call"), KeyError("x")])
def test_an_error_of_one_call_stays_what_it_is(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    FakeCuda().install(monkeypatch)
    with pytest.raises(type(error)) as caught:
        fail(error)
    assert caught.value is error


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"),
    torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: CUDA error: out of memory"),
]
UNFIT = [
    RuntimeError("The NVIDIA driver on your system is too old\nsee the documentation"),
    torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
    torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: invalid device"),
]


@pytest.mark.parametrize(
    ("error", "raised"), [(error, OutOfMemory) for error in FULL] + [(error, EngineError) for error in UNFIT]
)
def test_a_context_that_finds_no_room_may_find_it_later_and_any_other_error_is_for_good(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    FakeCuda(answers=False).install(monkeypatch)  # nor is a device lost that never answered

    def zeros(*_: object, **__: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(torch, "zeros", zeros)
    settings = load(DEFAULT_FILE, {})
    gpu = Gpu(1, "NVIDIA RTX A400", "GPU-bbbb", 4295, "580.95.05", "8.6")
    with pytest.raises(raised) as caught:
        engine_choice.start(settings, gpu)
    assert "\n" not in str(caught.value)
