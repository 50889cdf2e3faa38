"""How an engine fails."""

from __future__ import annotations


class EngineError(Exception):
    """An engine can't be had as it was asked for; the text says why and what can be done."""


class OutOfMemory(Exception):
    """The device has too little memory left for a batch, or for a model; the engine itself is unharmed."""


class DeviceLost(Exception):
    """A sticky error: the device refuses everything from this process on, which therefore has to end."""
