"""The device that a runner computes on, asked of NVML: no torch, no CUDA context."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import pynvml

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML describes it. index: physical, in PCI order; memory_mb: of the whole card, in 10⁶ bytes."""

    index: int
    name: str
    uuid: str
    memory_mb: float
    driver: str
    compute_capability: str

    def __str__(self) -> str:
        return f"GPU {self.index}: {self.name}, {self.memory_mb / 1000:.1f} GB, driver {self.driver}"


def choose(index: int, environment: MutableMapping[str, str]) -> Gpu | None:
    """Take physical GPU `index`, or the only one where just one is visible (a container); None: the CPU computes.

    Sets CUDA_VISIBLE_DEVICES in `environment`, so it must run before torch is imported. One that is set already is
    respected: its first entry is the GPU.
    """
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:  # no driver, no library, no permission: no GPU for this process
        return None
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if count == 0 or visible in {"", "-1"}:
        return None
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # CUDA's own order is by speed; NVML's is this
    if visible is not None:
        handle = _handle(visible.split(",")[0].strip(), count)
        if handle is None:
            logger.warning("CUDA_VISIBLE_DEVICES=%s names no GPU of this machine (NVML finds %d)", visible, count)
        return _describe(handle) if handle is not None else None
    if index >= count > 1:
        logger.warning("GPU %d is configured and there are %d: GPU 0 is taken", index, count)
    taken = index if index < count else 0
    environment["CUDA_VISIBLE_DEVICES"] = str(taken)
    return _describe(pynvml.nvmlDeviceGetHandleByIndex(taken))


def _handle(entry: str, count: int) -> Any | None:
    """The GPU of one entry of CUDA_VISIBLE_DEVICES: an index, or the beginning of a UUID. None: there is none."""
    handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
    if entry.isdecimal():
        return handles[int(entry)] if int(entry) < count else None
    return next((handle for handle in handles if pynvml.nvmlDeviceGetUUID(handle).startswith(entry)), None)


def _describe(handle: Any) -> Gpu:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=pynvml.nvmlDeviceGetIndex(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        memory_mb=pynvml.nvmlDeviceGetMemoryInfo(handle).total / 1e6,
        driver=pynvml.nvmlSystemGetDriverVersion(),
        compute_capability=f"{major}.{minor}",
    )
