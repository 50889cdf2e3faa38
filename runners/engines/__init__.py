"""Engines run a graph on a device: uint8 batches in, float32 arrays out. They know nothing of what an image means."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.store import StoredModel
    from runners.device import Device
    from settings import Settings

# Importing openvino would report it to Google Analytics; without this package it uses a stub of its own.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only


class Engine(Protocol):
    """A loaded graph. One call at a time; the caller sees to that."""

    @property
    def name(self) -> str:
        """`openvino` or `torch`."""
        ...

    @property
    def precision(self) -> str:
        """`f32`, `bf16` or `f16`."""
        ...

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Run a batch (n, h, w, 3) uint8 RGB and return the graph's outputs, each with n as its first dimension."""
        ...


def load(stored: StoredModel, settings: Settings, device: Device) -> Engine:
    """Load a stored model into the engine that the settings and the device call for.

    `auto` means torch on a CUDA device, where torch is installed, and OpenVINO elsewhere. Raises EngineError where what
    was asked for by name can't be had: nothing falls back silently.
    """
    choice = settings.engine
    if choice == "auto":
        choice = "torch" if device.cuda and find_spec("torch") else "openvino"
        if device.cuda and choice == "openvino":
            logger.warning("torch is not installed (requirements/gpu.txt): the CPU computes, not %s", device.name)
    # Imported here and not above: an engine costs up to 2 GB and seconds, and a process needs one of them.
    if choice == "torch":
        from runners.engines.torch import TorchEngine

        return TorchEngine(stored.program, settings.precision, cuda=device.cuda, threads=settings.cpu_threads)
    from runners.engines.openvino import OpenVinoEngine

    precision = OpenVinoEngine.auto_precision(stored.card.name) if settings.precision == "auto" else settings.precision
    return OpenVinoEngine(stored.graph, precision, threads=settings.cpu_threads)
