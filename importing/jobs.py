"""The jobs and results of the workshop's processes. It does not import torch, so that the command line starts fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.card import ModelInput
from models.catalogue import ModelName
from models.store import StoredModel


@dataclass(frozen=True)
class Job:
    """One model to convert into `folder`. files: its weights; empty for an untrained stand-in."""

    name: ModelName
    files: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True)
class CalibrationJob:
    """A stored model to copy into `folder` with an int8 graph, calibrated on `pictures`."""

    stored: StoredModel
    pictures: tuple[Path, ...]
    folder: Path

    @property
    def name(self) -> ModelName:
        return self.stored.card.name


@dataclass(frozen=True)
class Conversion:
    """The results of a conversion, for the model card. seconds: per stage (load, program, graph, proof)."""

    labels: tuple[str, ...]
    input: ModelInput
    outputs: tuple[str, ...]
    tolerance: Mapping[str, float]
    seconds: Mapping[str, float]
