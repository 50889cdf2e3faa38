"""The errors of an engine."""

from __future__ import annotations


class EngineError(Exception):
    """The requested engine is not available. The text says why and what the operator can do."""


class OutOfMemory(Exception):
    """The device has too little memory for a batch or a model. The engine remains usable."""


class DeviceLost(Exception):
    """A sticky error: the device refuses all further work of this process, so the process must end."""
