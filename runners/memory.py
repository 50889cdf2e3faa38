"""How much memory a runner process takes where its models live: on the GPU, or on a CPU in the process itself."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import psutil
import pynvml

from runners.device import Gpu

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_MB = 1e6  # the seed's tables and NVIDIA's data sheets count in powers of ten


class Memory(Protocol):
    """Measures the whole process and gives back what its libraries keep for later."""

    @property
    def context_mb(self) -> float:
        """What the process took there before its first model: on a GPU its CUDA context, once it is made; else 0."""
        ...

    def used_mb(self) -> float:
        """What the process takes now, in MB (10⁶ bytes); libraries and the CUDA context included."""
        ...

    def give_back(self) -> None:
        """Return to the system what was freed: collect garbage, empty the allocators' caches."""
        ...


class CpuMemory:
    """By how much the process's resident memory has grown since this object was made, in its beginning."""

    context_mb = 0.0

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._base = self._resident_mb()

    def used_mb(self) -> float:
        """See Memory.used_mb."""
        return max(0.0, self._resident_mb() - self._base)

    def give_back(self) -> None:
        """See Memory.give_back."""
        gc.collect()
        _trim_heap()

    def _resident_mb(self) -> float:
        return float(self._process.memory_info().rss / _MB)


class GpuMemory:
    """Device memory of this process as NVML counts it, the CUDA context included.

    NVML's list of processes is by pid. In a container it may show this process under its pid on the host, or without a
    figure, or not at all, depending on the driver. So the process is recognised by its pid or else by being the one
    that appeared when the CUDA context was made. Where neither has a figure, it is what the card gave out for the
    context, and what torch's allocator has taken since.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
        self._pid = os.getpid()
        self._context_mb: float | None = None  # by what the card gave out; None: there is no context yet
        self._own_context_mb = 0.0  # the same by NVML's figure of this process, where it has one
        self._said = False

    @contextmanager
    def recognising(self) -> Iterator[None]:
        """The block makes the CUDA context: find out which of NVML's processes this one is, and what that takes."""
        others, before_mb = self._processes().keys(), self._card_mb()
        yield
        appeared = self._processes().keys() - others
        if self._pid not in appeared and len(appeared) == 1:
            (self._pid,) = appeared
        self._context_mb = max(0.0, self._card_mb() - before_mb)
        self._own_context_mb = self.used_mb()  # says now, and not in the middle of something, if NVML has no figure

    @property
    def context_mb(self) -> float:
        """See Memory.context_mb."""
        return self._own_context_mb

    def used_mb(self) -> float:
        """See Memory.used_mb."""
        if self._context_mb is None:
            return 0.0
        try:
            own = self._processes().get(self._pid, 0.0)
            problem = "it is in a container without the host's pids"
        except pynvml.NVMLError as error:
            own, problem = 0.0, str(error)
        if own:
            return own
        if not self._said:
            self._said = True
            logger.warning("NVML gives no memory of this process (%s): torch's own figures are used instead", problem)
        return self._context_mb + _allocated_mb()

    def give_back(self) -> None:
        """See Memory.give_back."""
        gc.collect()
        _trim_heap()
        if "torch" in sys.modules:
            import torch

            torch.cuda.empty_cache()

    def _processes(self) -> dict[int, float]:
        """pid → MB, 0 where NVML has no figure."""
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        return {process.pid: (process.usedGpuMemory or 0) / _MB for process in processes}

    def _card_mb(self) -> float:
        return float(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used / _MB)


def held_mb(memory: Memory) -> float:
    """What the process takes, without what its libraries merely keep for later."""
    memory.give_back()
    return memory.used_mb()


def of(gpu: Gpu | None) -> CpuMemory | GpuMemory:
    """The memory of this process on the device that it computes on."""
    return CpuMemory() if gpu is None else GpuMemory(gpu)


def _allocated_mb() -> float:
    if "torch" not in sys.modules:
        return 0.0
    import torch

    return float(torch.cuda.memory_reserved() / _MB)


def _trim_heap() -> None:
    """Ask glibc to return free heap pages; other C libraries have no such call and need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
