from __future__ import annotations


class EngineError(RuntimeError):
    """An engine can't be had as it was asked for; the text says why and what can be done."""
