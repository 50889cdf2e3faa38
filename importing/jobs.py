"""What the workshop's processes are given, and what they give back: without torch, for the command line's sake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.card import ModelInput
from models.catalogue import ModelName
from models.store import StoredModel


@dataclass(frozen=True)
class Job:
    """One model to convert into `folder`: from `files`, or from a stand-in that is made there where there are none."""

    name: ModelName
    files: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True)
class CalibrationJob:
    """A stored model to copy into `folder` with an int8 form beside its graphs, calibrated on `pictures`."""

    stored: StoredModel
    pictures: tuple[Path, ...]
    folder: Path

    @property
    def name(self) -> ModelName:
        return self.stored.card.name


@dataclass(frozen=True)
class Conversion:
    """What converting a model found out; `seconds` are per stage (load, program, graph, proof)."""

    labels: tuple[str, ...]
    input: ModelInput
    outputs: tuple[str, ...]
    tolerance: Mapping[str, float]
    seconds: Mapping[str, float]
