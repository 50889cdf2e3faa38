from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.precision import pipeline
from models.catalogue import ModelName
from settings import EngineChoice, Precision
from tasks.pipeline import Pipeline, read
from vision.arrays import RGB

Make = Callable[[ModelName, EngineChoice, Precision], Pipeline]


@pytest.fixture(scope="session")
def make(model_store: Path) -> Make:
    """Pipelines on the real weights, each loaded once."""
    made: dict[tuple[str, str, str], Pipeline] = {}

    def get(name: ModelName, engine: EngineChoice, precision: Precision) -> Pipeline:
        key = (name, engine, precision)
        if key not in made:
            made[key] = pipeline(name, engine, precision)
        return made[key]

    return get


@pytest.fixture(scope="session")
def image_files(shared: Path) -> list[Path]:
    """Every image of ../shared: scenes, formats and person crops."""
    return sorted(path for path in (shared / "images").rglob("*") if path.suffix in {".jpg", ".png", ".webp"})


@pytest.fixture(scope="session")
def images(image_files: list[Path]) -> dict[str, RGB]:
    """File name → the image as the service decodes it."""
    return {path.name: read(path) for path in image_files}
