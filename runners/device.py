"""The device that a runner computes on, asked of NVML: no torch, no CUDA context."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import pynvml

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only


@dataclass(frozen=True)
class Device:
    """cuda: there is a GPU to compute on. name: as NVML calls it, or "CPU". uuid: of the GPU."""

    cuda: bool
    name: str
    uuid: str | None = None

    def memory_used_gb(self) -> float:
        """Device memory of this process in GB (10⁹ bytes), CUDA context included; 0 on a CPU."""
        if self.uuid is None:
            return 0.0
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(self.uuid)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except pynvml.NVMLError as error:
            logger.warning("NVML does not say how much memory is used: %s", error)
            return 0.0
        return sum(process.usedGpuMemory or 0 for process in processes if process.pid == os.getpid()) / 1e9


def choose(index: int) -> Device:
    """Take physical GPU `index`, or the only one where just one is visible (a container), or the CPU.

    Sets CUDA_VISIBLE_DEVICES, so it must run before torch is imported; one that is set already is respected.
    """
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:  # no driver, no library, no permission: no GPU for this process
        return Device(cuda=False, name="CPU")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if count == 0 or visible in {"", "-1"}:
        return Device(cuda=False, name="CPU")
    taken = index if index < count else 0
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(taken))
    handle = pynvml.nvmlDeviceGetHandleByIndex(taken)
    return Device(cuda=True, name=pynvml.nvmlDeviceGetName(handle), uuid=pynvml.nvmlDeviceGetUUID(handle))
