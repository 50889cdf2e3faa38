"""What residency needs from whoever finds and loads models (runners/loader.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engines.engine import Engine
from engines.errors import DeviceLost
from models.catalogue import ModelName
from models.store import StoredModel
from runners.residency.resident import Loaded, Resident


@dataclass(frozen=True)
class EngineSwap:
    """Another engine for a loaded model.

    wanted: whether the loaded model still needs the swap. load: makes the new engine. on_done: called with None after
    a swap, or if it was no longer wanted or the model was evicted. Called with the error if the swap failed; then the
    present engine stays.
    """

    wanted: Callable[[Loaded], bool]
    load: Callable[[], Engine]
    on_done: Callable[[Exception | None], None]


class Loader(Protocol):
    """Finds and loads the models of a process. Everything but `find` is called on the residency's thread."""

    def find(self, name: ModelName) -> StoredModel | None:
        """The model in the model store; None if it is not there. Raises StoreError if it can't be used."""
        ...

    def start(self) -> None:
        """Prepare what all models share, so that no model is charged for its memory. Called before each load."""
        ...

    def load(self, stored: StoredModel) -> Engine:
        """Load a model into an engine. Raises EngineError, OutOfMemory or DeviceLost."""
        ...

    def warm_up(self, stored: StoredModel, engine: Engine) -> None:
        """Run the shapes whose first run would be slow. Raises as the engine does."""
        ...

    def on_ready(self, resident: Resident, swap: Callable[[Resident, EngineSwap], None]) -> None:
        """React to a model that has become ready. swap: Residency.swap_engine, to swap its engine later."""
        ...

    def on_device_lost(self, error: DeviceLost) -> None:
        """React to the loss of the device: the process can't compute any more."""
        ...
