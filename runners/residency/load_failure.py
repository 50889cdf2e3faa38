"""Turns the exception of a failed load into texts for /health and for callers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from engines.errors import DeviceLost, EngineError, OutOfMemory
from models.catalogue import ModelName
from models.store import StoreError

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only


class DoesNotFit(Exception):
    """The budget is too small, even with all evictable models out. The text has the figures."""


@dataclass(frozen=True)
class LoadFailure:
    """Why a load failed. It keeps texts, because an exception's traceback would keep the memory in use.

    detail: for /health. told: for callers; None = a general text. may_pass: a later try may succeed.
    """

    detail: str
    told: str | None = None
    may_pass: bool = False


def failure_of(name: ModelName, error: Exception) -> LoadFailure:
    """Describe the exception of a failed load. Logs the traceback of an unexpected one."""
    if isinstance(error, DoesNotFit):
        return LoadFailure(str(error), str(error), may_pass=True)
    if isinstance(error, OutOfMemory | MemoryError):
        told = f"{name} does not fit into the device's memory now"
        return LoadFailure(f"{told}: {str(error) or type(error).__name__}", told, may_pass=True)
    if isinstance(error, StoreError):  # its file may come back
        return LoadFailure(str(error), may_pass=True)
    if isinstance(error, EngineError | DeviceLost):
        return LoadFailure(str(error))
    logger.error("%s could not be loaded", name, exc_info=error)
    return LoadFailure(f"loading failed: {type(error).__name__}: {error}")
