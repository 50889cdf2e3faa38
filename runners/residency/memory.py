"""How much memory a runner process takes where its models live: on the GPU, or on a CPU in the process itself."""

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
    context, and what torch's allocator has taken since. NVML may also answer nothing of that (MIG, memory shared with
    the CPU), or no more: then torch's own figures are all.
    """

    def __init__(self, gpu: Gpu, on_lost: Callable[[DeviceLost], None] | None = None) -> None:
        """on_lost: told each time when NVML says that the GPU is lost; no figure is an error."""
        self._uuid = gpu.uuid
        self._on_lost = on_lost
        self._pid = os.getpid()
        self._others: set[int] | None = None  # NVML's processes before the context was made
        self._given_mb = 0.0  # what the card gave out while it was made
        self._made = False
        self._own_context_mb = 0.0  # the same by NVML's figure of this process, where it has one
        self._problem = ""  # why NVML has none
        self._said = False

    @contextmanager
    def recognising(self) -> Iterator[None]:
        """The block makes the CUDA context: find out which of NVML's processes this one is, and what that takes.

        If it fails the next try goes on from there: half a context may be left.
        """
        if self._others is None:
            self._others = set(self._processes())
        before_mb = self._card_mb()
        try:
            yield
        finally:
            after_mb = self._card_mb()
            if before_mb is not None and after_mb is not None:
                self._given_mb += max(0.0, after_mb - before_mb)
        appeared = self._processes().keys() - self._others
        if self._pid not in appeared and len(appeared) == 1:
            (self._pid,) = appeared
        self._made = True
        self._own_context_mb = self.used_mb()  # says now, and not in the middle of something, if NVML has no figure

    @property
    def context_mb(self) -> float:
        """See Memory.context_mb."""
        return self._own_context_mb

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
        return self._given_mb + _allocated_mb()

    def give_back(self) -> None:
        """See Memory.give_back."""
        gc.collect()
        _trim_heap()
        if "torch" in sys.modules:
            import torch

            try:
                torch.cuda.empty_cache()
            except RuntimeError as error:  # a lost device, whose process ends
                logger.warning("the GPU takes no memory back: %s", str(error).split("\n")[0])

    def _processes(self) -> dict[int, float]:
        """pid → MB, 0 where NVML has no figure."""
        processes = self._ask(pynvml.nvmlDeviceGetComputeRunningProcesses) or []
        return {process.pid: (process.usedGpuMemory or 0) / _MB for process in processes}

    def _card_mb(self) -> float | None:
        memory = self._ask(pynvml.nvmlDeviceGetMemoryInfo)
        return None if memory is None else float(memory.used / _MB)

    def _ask(self, function: Callable[[Any], Any]) -> Any | None:
        """What NVML answers of this GPU, or None."""
        try:
            return function(pynvml.nvmlDeviceGetHandleByUUID(self._uuid))
        except pynvml.NVMLError as error:
            self._problem = str(error)
            if error.value == pynvml.NVML_ERROR_GPU_IS_LOST and self._on_lost is not None:
                self._on_lost(DeviceLost(f"NVML: {error}"))
            return None


def held_mb(memory: Memory) -> float:
    """What the process takes, without what its libraries merely keep for later."""
    memory.give_back()
    return memory.used_mb()


def of(gpu: Gpu | None, on_lost: Callable[[DeviceLost], None]) -> CpuMemory | GpuMemory:
    """The memory of this process on the device that it computes on. on_lost: see GpuMemory."""
    return CpuMemory() if gpu is None else GpuMemory(gpu, on_lost)


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
