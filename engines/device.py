"""Finds the runner's GPU through NVML, without torch and without a CUDA context."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import pynvml

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_ABSENT: Final = (
    pynvml.nvmlExceptionClass(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
    pynvml.nvmlExceptionClass(pynvml.NVML_ERROR_DRIVER_NOT_LOADED),
)
UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML describes it.

    index: physical, in PCI order. memory_mb: of the whole card, in 10⁶ bytes; None if NVML does not know it (MIG,
    memory shared with the CPU). Texts that NVML does not know are `unknown`. cuda: the newest version that the driver
    supports, such as (13, 0); None if NVML does not know it.
    """

    index: int
    name: str
    uuid: str
    memory_mb: float | None
    driver: str
    compute_capability: str
    cuda: tuple[int, int] | None = None

    def __str__(self) -> str:
        memory = "memory unknown" if self.memory_mb is None else f"{self.memory_mb / 1000:.1f} GB"
        return f"GPU {self.index}: {self.name}, {memory}, driver {self.driver}"


def choose(index: int, environment: MutableMapping[str, str]) -> Gpu | None:
    """Choose physical GPU `index`, or the only visible one (in a container). None: the CPU computes.

    Sets CUDA_VISIBLE_DEVICES in `environment`, so it must run before torch is imported. If the variable is already
    set, its first entry is the GPU. A GPU that does not answer NVML is logged and not used.
    """
    try:
        pynvml.nvmlInit()
        return _choose(index, environment, pynvml.nvmlDeviceGetCount())
    except _ABSENT:  # no driver is installed: nothing to report
        return None
    except pynvml.NVMLError as error:
        logger.warning("NVML finds no usable GPU: %s. Run `nvidia-smi` for details", error)
        return None


def _choose(index: int, environment: MutableMapping[str, str], count: int) -> Gpu | None:
    """See choose. count: GPUs of this machine. Raises NVMLError."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if count == 0 or visible in {"", "-1"}:
        return None
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # NVML's order; CUDA's default is by speed
    if visible is not None:
        handle = _handle(visible.split(",")[0].strip(), count)
        if handle is None:
            logger.warning("CUDA_VISIBLE_DEVICES=%s names no GPU of this machine (NVML finds %d)", visible, count)
        return _describe(handle, 0) if handle is not None else None
    if index >= count > 1:
        logger.warning("GPU %d is configured, but this machine has %d GPUs: using GPU 0", index, count)
    taken = index if index < count else 0
    gpu = _describe(pynvml.nvmlDeviceGetHandleByIndex(taken), taken)
    environment["CUDA_VISIBLE_DEVICES"] = str(taken)
    return gpu


def _handle(entry: str, count: int) -> Any | None:
    """The GPU that one entry of CUDA_VISIBLE_DEVICES names by index or beginning of UUID; None if there is none.

    Raises NVMLError if the GPU at that index does not answer. A search by UUID skips GPUs that do not answer.
    """
    if entry.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(entry)) if int(entry) < count else None
    handles = [_ask(pynvml.nvmlDeviceGetHandleByIndex, number) for number in range(count)]
    uuids = [(handle, _ask(pynvml.nvmlDeviceGetUUID, handle)) for handle in handles if handle is not None]
    return next((handle for handle, uuid in uuids if uuid is not None and uuid.startswith(entry)), None)


def _describe(handle: Any, index: int) -> Gpu:
    """Ask NVML for the GPU's properties. index: used if NVML does not know it. Raises NVMLError if the GPU is lost."""
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    physical = _ask(pynvml.nvmlDeviceGetIndex, handle)
    cuda = _ask(pynvml.nvmlSystemGetCudaDriverVersion)  # 13000 for 13.0
    return Gpu(
        index=index if physical is None else physical,
        name=_ask(pynvml.nvmlDeviceGetName, handle) or UNKNOWN,
        uuid=uuid,
        memory_mb=memory.total / 1e6 if memory is not None and memory.total else None,
        driver=_ask(pynvml.nvmlSystemGetDriverVersion) or UNKNOWN,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else UNKNOWN,
        cuda=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
    )


def _ask(function: Callable[..., Any], *arguments: Any) -> Any | None:
    """NVML's answer; None if this GPU or its driver does not support the question."""
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        logger.info("NVML: %s: %s", function.__name__, error)
        return None
