"""Why a model could not be loaded, as /health and callers are to read it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from engines.errors import DeviceLost, EngineError, OutOfMemory
from models.catalogue import ModelName
from models.store import StoreError

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only


class DoesNotFit(Exception):
    """Even with everything out that may leave, the budget is too small; the text has the figures."""


@dataclass(frozen=True)
class LoadFailure:
    """told: what callers may read of it; None = not the detail. may_pass: it can be tried again later.

    A text, as an exception's traceback would hold what is to be given back.
    """

    detail: str
    told: str | None = None
    may_pass: bool = False


def failure_of(name: ModelName, error: Exception) -> LoadFailure:
    """What an exception says of a model that was to be loaded. Logs the traceback of one that was not foreseen."""
    if isinstance(error, DoesNotFit):
        return LoadFailure(str(error), str(error), may_pass=True)
    if isinstance(error, OutOfMemory | MemoryError):
        told = f"{name} does not fit into the device's memory now"
        return LoadFailure(f"{told}: {str(error) or type(error).__name__}", told, may_pass=True)
    if isinstance(error, EngineError | StoreError | DeviceLost):
        return LoadFailure(str(error))
    logger.error("%s could not be loaded", name, exc_info=error)
    return LoadFailure(f"loading failed: {type(error).__name__}: {error}")
