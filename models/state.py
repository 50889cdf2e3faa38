"""Where a model is in its life, and what is known of it there."""

from __future__ import annotations

from enum import StrEnum
from typing import TypedDict

from models.card import ModelInput
from models.catalogue import ModelName


class State(StrEnum):
    """Where a model is in its life."""

    DISABLED = "disabled"  # assigned to the heavy service
    ABSENT = "absent"  # no weights in the model store
    UNLOADED = "unloaded"  # loads on the first request
    LOADING = "loading"
    BUILDING_ENGINE = "building_engine"  # ready on torch while a TensorRT engine is being built
    READY = "ready"
    FAILED = "failed"


def refusal(name: ModelName, state: State, detail: str | None) -> str:
    """What a caller is told of a model that can't answer. Why one failed may name paths, which only /health does."""
    return f"{name} is absent: {detail}" if state == State.ABSENT else f"{name} has failed: /health says why"


class ModelStatus(TypedDict):
    """One model as its runner knows it.

    input: the model card's, None while there are no weights. memory_mb: what loading it was measured to take, None
    before its first load. loads: how often it was loaded in this process. last_used: when its last call ended or it was
    loaded, in seconds since the epoch; None while it is not loaded. engine_build_failed: it runs on torch because no
    TensorRT engine could be built for it.
    """

    state: State
    engine: str | None
    precision: str | None
    weights: str | None
    untrained: bool
    detail: str | None
    input: ModelInput | None
    memory_mb: int | None
    loads: int
    last_used: float | None
    engine_build_failed: bool
