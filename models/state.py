"""The states of a model, and the status that its runner reports."""

from __future__ import annotations

from enum import StrEnum
from typing import TypedDict

from models.card import CardSummary, ModelInput
from models.catalogue import ModelName


class State(StrEnum):
    """The state of a model."""

    DISABLED = "disabled"  # assigned to the heavy service
    ABSENT = "absent"  # no weights in the model store
    UNLOADED = "unloaded"  # loads on its next request
    LOADING = "loading"
    BUILDING_ENGINE = "building_engine"  # torch serves while a TensorRT engine is built
    READY = "ready"
    FAILED = "failed"


def refusal(name: ModelName, state: State, detail: str | None) -> str:
    """Return the error text for a model that can't answer.

    The reason of a failure may name paths, so only /health shows it.
    """
    return f"{name} is absent: {detail}" if state == State.ABSENT else f"{name} has failed: /health says why"


class LastError(TypedDict):
    """A failure of a load or of an engine build. at: seconds since the epoch."""

    at: float
    message: str


class ModelStatus(TypedDict):
    """One model's status, as its runner reports it.

    input, card: from the model card; None without weights. memory_mb: measured growth at its load in MB (10⁶ bytes);
    None before the first load. loads: number of loads in this process. last_used: end of its last call, or time of its
    load, in seconds since the epoch; None while unloaded. engine_build_failed: torch serves because no TensorRT engine
    could be built. last_error: of this process; it stays after a success.
    """

    state: State
    engine: str | None
    precision: str | None
    weights: str | None
    untrained: bool
    detail: str | None
    input: ModelInput | None
    card: CardSummary | None
    memory_mb: int | None
    loads: int
    last_used: float | None
    engine_build_failed: bool
    last_error: LastError | None
