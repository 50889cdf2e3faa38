"""Errors told apart, over the fake device layer."""

from __future__ import annotations

import pytest
import torch

from runners.engines.cuda import device_errors
from runners.engines.errors import DeviceLost, OutOfMemory
from tests.runners.engines.cuda_layer import FakeCuda

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
