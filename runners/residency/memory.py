"""Measures the memory of a runner process: device memory on a GPU, resident memory on a CPU."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import psutil
import pynvml

from engines.device import Gpu
from engines.errors import DeviceLost

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_MB = 1e6  # settings and NVIDIA's data sheets count in powers of ten


class Memory(Protocol):
    """Measures the memory of the whole process, and frees the caches of its libraries. In MB (10⁶ bytes)."""

    @property
    def context_mb(self) -> float:
        """Memory in use before the first model: on a GPU the CUDA context once it is made, else 0."""
        ...

    def used_mb(self) -> float:
        """Memory in use now, libraries and CUDA context included."""
        ...

    def give_back(self) -> None:
        """Return freed memory to the system: collect garbage and empty the allocators' caches."""
        ...

    def trim(self) -> None:
        """Empty the allocators' caches only, which holds up calls for milliseconds. May be called on any thread."""
        ...


class CpuMemory:
    """Growth of the process's resident memory since this object was made, at the start of the process."""

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
        self.trim()

    def trim(self) -> None:
        """See Memory.trim."""
        _trim_heap()

    def _resident_mb(self) -> float:
        return float(self._process.memory_info().rss / _MB)


class GpuMemory:
    """Device memory of this process as NVML counts it, the CUDA context included.

    NVML lists processes by pid. In a container, depending on the driver, it may list this process under its pid on the
    host, without a figure, or not at all. So the process is recognised by its pid, or else as the only one that
    appeared when the CUDA context was made.

    If NVML has no figure for it, used memory is the card's growth during that moment plus torch's reserved memory. If
    NVML knows nothing about the card's memory either (MIG, memory shared with the CPU), torch's figure is all.
    """

    def __init__(self, gpu: Gpu, on_lost: Callable[[DeviceLost], None] | None = None) -> None:
        """on_lost: called whenever NVML reports that the GPU is lost. A missing figure is no error."""
        self._uuid = gpu.uuid
        self._on_lost = on_lost
        self._pid = os.getpid()
        self._others: set[int] | None = None  # NVML's processes before the context was made
        self._context_growth_mb = 0.0  # growth of the card's used memory while the context was made
        self._made = False
        self._context_mb = 0.0  # used_mb right after the context was made
        self._problem = ""  # why NVML has no figure for this process
        self._said = False

    @contextmanager
    def recognising(self) -> Iterator[None]:
        """Measure the CUDA context that the block makes, and find this process in NVML's list.

        If the block fails, the next try adds to its figures: half a context may be left.
        """
        if self._others is None:
            self._others = set(self._processes())
        before_mb = self._card_mb()
        try:
            yield
        finally:
            after_mb = self._card_mb()
            if before_mb is not None and after_mb is not None:
                self._context_growth_mb += max(0.0, after_mb - before_mb)
        appeared = self._processes().keys() - self._others
        if self._pid not in appeared and len(appeared) == 1:
            (self._pid,) = appeared
        self._made = True
        self._context_mb = self.used_mb()  # logs at the start, not during a load, if NVML has no figure

    @property
    def context_mb(self) -> float:
        """See Memory.context_mb."""
        return self._context_mb

    def used_mb(self) -> float:
        """See Memory.used_mb."""
        if not self._made:
            return 0.0
        self._problem = "it is in a container without the host's pids"
        own_mb = self._processes().get(self._pid, 0.0)
        if own_mb:
            return own_mb
        if not self._said:
            self._said = True
            logger.warning(
                "NVML gives no memory of this process (%s): torch's own figures are used instead", self._problem
            )
        return self._context_growth_mb + _allocated_mb()

    def give_back(self) -> None:
        """See Memory.give_back."""
        gc.collect()
        _trim_heap()
        self.trim()

    def trim(self) -> None:
        """See Memory.trim."""
        if "torch" in sys.modules:
            import torch

            try:
                torch.cuda.empty_cache()
            except RuntimeError as error:  # the device is lost, and the process ends soon
                logger.warning(
                    "torch's unused GPU memory could not be freed, and this process may end: %s",
                    str(error).split("\n")[0],
                )

    def _processes(self) -> dict[int, float]:
        """pid → MB; 0 if NVML has no figure."""
        processes = self._ask(pynvml.nvmlDeviceGetComputeRunningProcesses) or []
        return {process.pid: (process.usedGpuMemory or 0) / _MB for process in processes}

    def _card_mb(self) -> float | None:
        memory = self._ask(pynvml.nvmlDeviceGetMemoryInfo)
        return None if memory is None else float(memory.used / _MB)

    def _ask(self, function: Callable[[Any], Any]) -> Any | None:
        """NVML's answer about this GPU, or None."""
        try:
            return function(pynvml.nvmlDeviceGetHandleByUUID(self._uuid))
        except pynvml.NVMLError as error:
            self._problem = str(error)
            if error.value == pynvml.NVML_ERROR_GPU_IS_LOST and self._on_lost is not None:
                self._on_lost(DeviceLost(f"NVML: {error}"))
            return None


def held_mb(memory: Memory) -> float:
    """Memory in use in MB, after the libraries' caches are emptied."""
    memory.give_back()
    return memory.used_mb()


def of(gpu: Gpu | None, on_lost: Callable[[DeviceLost], None]) -> CpuMemory | GpuMemory:
    """The memory of this process on its device; gpu None = the CPU. on_lost: see GpuMemory."""
    return CpuMemory() if gpu is None else GpuMemory(gpu, on_lost)


def _allocated_mb() -> float:
    if "torch" not in sys.modules:
        return 0.0
    import torch

    return float(torch.cuda.memory_reserved() / _MB)


def _trim_heap() -> None:
    """Make glibc return free heap pages. Other C libraries have no such call and need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
